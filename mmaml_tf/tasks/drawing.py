"""What task distributions that draw with NumPy share: streams, balance, and their datasets."""

import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from mmaml_tf.arguments import whole_number
from mmaml_tf.division import processors
from mmaml_tf.episodes import Episodes, prefetched

#: the parts of a split
SPLITS = ("train", "validation", "test")


def check_split(split: str) -> str:
    """Returns the name of a split; raises ValueError for any other."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: expected one of {SPLITS}.")
    return split


def generator(*key) -> np.random.Generator:
    """Returns a generator of random numbers that is a function of strings and whole numbers."""
    digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))


def balanced_modes(tasks: int, modes: int, step: int) -> np.ndarray:
    """Returns the mode of each task of a batch, `[T]`, in order.

    Where T is no multiple of the number of modes M, the modes take turns in having one task more,
    so that M batches are balanced exactly.
    """
    return np.sort((np.arange(tasks) + step * tasks) % modes)


def check_shard(shard: tuple[int, int] | None, tasks: int) -> tuple[int, int]:
    """Returns (i, n), which stands for the tasks i, i + n, i + 2n, ... of a batch.

    Args:
        shard: that pair, or None for all tasks.
        tasks: number of tasks T of the batch.

    Raises:
        ValueError: for anything else, or a T that is no multiple of n.
    """
    if shard is None:
        return 0, 1
    if not isinstance(shard, tuple | list) or len(shard) != 2:
        raise ValueError(f"shard={shard!r}: expected (i, n), part i of n equal parts of a batch.")
    part, parts = whole_number("shard", shard[0], 0), whole_number("shard", shard[1])
    if part >= parts or tasks % parts:
        raise ValueError(
            f"shard={shard!r} of batches of {tasks} tasks: expected i from 0 to n - 1, and a "
            "number of tasks that is a multiple of n."
        )
    return part, parts


def dataset_of(draw: Callable[[int], Episodes], start: int, fixed: bool) -> tf.data.Dataset:
    """Returns the endless sequence of a distribution's batches.

    Args:
        draw: draws the `Episodes` of a step as arrays.
        start: first step.
        fixed: whether all batches have the same numbers of points.
    """
    start = whole_number("start", start, 0)
    first = draw(start)  # what is wrong is told here

    def shape(name, array):
        points = () if name in ("mode", "origin") or fixed else (1,)
        return [None if axis in points else size for axis, size in enumerate(array.shape)]

    @tf.autograph.experimental.do_not_convert
    def batch(step):
        types = [array.dtype for array in first]
        tensors = tf.numpy_function(lambda step: list(draw(int(step))), [step], types)
        for tensor, (name, array) in zip(tensors, first._asdict().items(), strict=True):
            tensor.set_shape(shape(name, array))
        return Episodes(*tensors)

    # NumPy lets go of Python's lock while it copies, so that several draw at the same time. In
    # threads of their own they do not hold up the training step.
    at_once = max(1, processors() // 4)
    options = tf.data.Options()
    options.threading.private_threadpool_size = at_once
    batches = tf.data.Dataset.counter(start).map(batch, num_parallel_calls=at_once)
    return prefetched(batches.with_options(options), 2)
