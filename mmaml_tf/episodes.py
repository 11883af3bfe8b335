"""Episodes: the support and query sets of a batch of tasks.

Axes, in this order and under these letters everywhere in the package: T tasks, K support
points, Q query points, M modes, D features, E embedding.
"""

from typing import Any, NamedTuple

import tensorflow as tf


class Episodes(NamedTuple):
    """The support and query sets of T tasks.

    Attributes:
        support_x: `[T, K, ...]` inputs the learner adapts on.
        support_y: `[T, K, ...]` their targets.
        query_x: `[T, Q, ...]` inputs the learner is judged on.
        query_y: `[T, Q, ...]` their targets, or None where there is only to predict.
        mode: `[T]` integer index of each task's mode, or None where it is not known.
        origin: `[2]` integers (seed, step) the batch was drawn from, or None. They name the
            batch in error messages, so that it can be drawn again. `[4]` integers (seed, step, i,
            n) say that these are part i of n of a larger batch, see `distribution`.
    """

    support_x: Any
    support_y: Any
    query_x: Any
    query_y: Any = None
    mode: Any = None
    origin: Any = None


def check_support(support_x, support_y) -> None:
    """Raises ValueError unless support sets are `[T, K, ...]` with equal T, K and K >= 1."""
    for name, value in (("support_x", support_x), ("support_y", support_y)):
        shape = tf.TensorShape(value.shape)
        if shape.rank is None:
            raise ValueError(
                f"{name} has an unknown shape; expected [T, K, ...] (tasks, support points, "
                "features). Give the dataset an output_signature with shapes."
            )
        if shape.rank < 2:
            raise ValueError(
                f"{name} has shape {tuple(shape)}; expected [T, K, ...] (tasks, support points, "
                "features). A single task needs a leading axis of size 1."
            )
        if 0 in shape[:2].as_list():
            raise ValueError(
                f"{name} has shape {tuple(shape)}: there must be at least one task, and a task "
                "needs at least one point."
            )
    _check_equal_axes("support_x", support_x, "support_y", support_y, axes=(0, 1))


def check_query(support_x, query_x) -> None:
    """Raises ValueError unless query_x is `[T, Q, ...]` and fits support_x `[T, K, ...]`."""
    support, query = tf.TensorShape(support_x.shape), tf.TensorShape(query_x.shape)
    if query.rank != support.rank:
        raise ValueError(
            f"query_x has shape {tuple(query)}; expected rank {support.rank} like support_x "
            f"{tuple(support)}: [T, Q, ...] (tasks, query points, features)."
        )
    if query[1] == 0:
        raise ValueError(f"query_x has shape {tuple(query)}: there must be at least one query.")
    _check_equal_axes("support_x", support_x, "query_x", query_x, axes=(0, *range(2, query.rank)))


def is_absent(part) -> bool:
    """Tells whether a part of a batch is None, or what tf.data has in place of it."""
    return part is None or type(part).__name__ == "NoneTensorSpec"


def check_episodes(episodes: Episodes) -> None:
    """Raises ValueError when the shapes of `episodes` contradict the contract above."""
    if not isinstance(episodes, Episodes):
        raise ValueError(
            f"expected mmaml_tf.Episodes, got {type(episodes).__name__}. A dataset for fit() "
            "yields Episodes(support_x, support_y, query_x, query_y, mode, origin)."
        )
    episodes = Episodes(*(None if is_absent(part) else part for part in episodes))
    check_support(episodes.support_x, episodes.support_y)
    check_query(episodes.support_x, episodes.query_x)
    if episodes.query_y is not None:
        _check_equal_axes("query_x", episodes.query_x, "query_y", episodes.query_y, axes=(0, 1))
    tasks = tf.TensorShape(episodes.support_x.shape)[0]
    for name, part, shapes, expected in (
        ("mode", episodes.mode, ([tasks],), "one index for each of the tasks [T]"),
        ("origin", episodes.origin, ([2], [4]), "(seed, step), or (seed, step, i, n)"),
    ):
        found = None if part is None else tf.TensorShape(part.shape)
        if found is not None and not any(map(found.is_compatible_with, shapes)):
            raise ValueError(f"{name} has shape {tuple(found)}; expected {expected}.")


def is_shared(origin) -> bool:
    """Tells whether the origin of a batch says that it is part of a larger one."""
    return origin is not None and (origin.shape[0] or 2) > 2


def as_mode(mode):
    """Returns `[T]` modes as int32, or None; raises ValueError for what are no whole numbers."""
    if mode is None:
        return None
    mode = tf.convert_to_tensor(mode)
    if not mode.dtype.is_integer or mode.shape.rank not in (None, 1):
        raise ValueError(
            f"mode has shape {tuple(mode.shape)} and type {mode.dtype.name}; expected [T] whole "
            "numbers, the index of each task's mode."
        )
    return tf.cast(mode, tf.int32)


def _check_equal_axes(name_a, a, name_b, b, axes) -> None:
    shape_a, shape_b = tf.TensorShape(a.shape), tf.TensorShape(b.shape)
    if shape_a.rank is None or shape_b.rank is None:
        return
    for axis in axes:
        if axis >= shape_b.rank or axis >= shape_a.rank:
            raise ValueError(
                f"{name_a} {tuple(shape_a)} and {name_b} {tuple(shape_b)} must share axis {axis}."
            )
        size_a, size_b = shape_a[axis], shape_b[axis]
        if size_a is not None and size_b is not None and size_a != size_b:
            raise ValueError(
                f"{name_a} {tuple(shape_a)} and {name_b} {tuple(shape_b)} differ on axis {axis} "
                f"({size_a} and {size_b}); they must be equal."
            )


def prefetched(batches: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Returns a dataset that draws `count` batches ahead.

    tf.data's tuning is off. It has nothing to choose here, and its thread, which sleeps twice as
    long each time (10, 20, 41 s ...), every now and then holds up the end of `fit` until it wakes.

    Args:
        batches: a dataset of batches of tasks.
        count: batches drawn ahead of the one in use; each stays in memory.

    Returns:
        A dataset of the same batches in the same order.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(count).with_options(options)
