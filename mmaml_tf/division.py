"""How the tasks of a training batch are divided, which changes its speed and not its result.

The gradient of a batch is a sum over tasks. On a CPU it is fastest when every core works on its
own share of the tasks, and in groups so small that their adapted weights stay in its cache.
"""

import math
import os
from typing import NamedTuple

import tensorflow as tf

from mmaml_tf.arguments import whole_number

#: adapted weights of the tasks that are worked on at once by one core
_CACHE_BYTES = 512 * 1024


class Division(NamedTuple):
    """A division of T tasks into groups of the same size.

    Attributes:
        shards: parts that run at the same time, each a program of its own.
        groups: groups of a shard, which follow one another in a loop inside the graph.
        longer: number of shards that have one group more than the others.
    """

    shards: int = 1
    groups: int = 1
    longer: int = 0

    @classmethod
    def of(cls, tasks: int | None, weight_bytes: int, shards="auto", tasks_at_once="auto"):
        """Divides a batch as evenly as it goes.

        Args:
            tasks: number of tasks T, or None where it is not known, for no division.
            weight_bytes: size of the adapted weights of one task.
            shards: most shards; "auto" for one a CPU thread, and one on a GPU.
            tasks_at_once: most tasks of a group; "auto" for as many as fit the cache of a CPU
                core, and all on a GPU.

        Returns:
            The `Division` with the largest equal parts that these bounds allow, or, where that
            leaves shards out, one whose longest shard is shorter: 75 tasks are 40 and 35, in
            groups of 5. A number of tasks with many divisors divides best.
        """
        if tasks is None:
            return cls()
        if shards == "auto":
            shards = 1 if on_gpu() else _threads()
        if tasks_at_once == "auto":
            tasks_at_once = tasks if on_gpu() else max(1, _CACHE_BYTES // max(weight_bytes, 1))
        shards = min(shards, tasks)
        even = _largest_divisor(tasks, shards)
        of_shard = tasks // even
        size = _largest_divisor(of_shard, tasks_at_once)
        smaller = _largest_divisor(tasks, min(tasks_at_once, math.ceil(tasks / shards)))
        groups, longer = divmod(tasks // smaller, shards)
        # Much smaller groups would lose what the shards win.
        if smaller * (groups + 1) < of_shard and 2 * smaller >= size:
            return cls(shards, groups, longer)
        return cls(even, of_shard // size)

    def split(self, arrays) -> list[tuple[list, int]]:
        """Splits arrays `[T, ...]` (or None) along T; returns each shard's, and its groups."""
        groups = [self.groups + (shard < self.longer) for shard in range(self.shards)]
        if self.shards == 1:
            return [(list(arrays), *groups)]
        pieces = []
        for array in arrays:
            if array is None:
                pieces.append([None] * self.shards)
                continue
            size = array.shape[0] // sum(groups)
            pieces.append(tf.split(array, [size * count for count in groups]))
        return [(list(part), count) for *part, count in zip(*pieces, groups, strict=True)]


def on_gpu() -> bool:
    """Whether there is a GPU, which TensorFlow then works on."""
    return bool(tf.config.list_physical_devices("GPU"))


def check(shards, tasks_at_once) -> None:
    """Raises ValueError unless both are "auto" or whole numbers of at least 1."""
    for name, value in (("shards", shards), ("tasks_at_once", tasks_at_once)):
        if isinstance(value, str) and value != "auto":
            raise ValueError(f'{name}={value!r}; expected "auto" or a positive whole number.')
        if value != "auto":
            whole_number(name, value)


def map_groups(function, arrays, groups: int, dtypes):
    """Applies a function to equal groups of tasks, one group after the other.

    Args:
        function: maps arrays of t tasks to (a tuple of tensors `[t, ...]`, a list of tensors that
            are sums over these tasks).
        arrays: tensors `[T, ...]` or None.
        groups: number of groups; T is a multiple of it.
        dtypes: types of what `function` returns, in the same structure.

    Returns:
        What `function` returns for all T tasks.
    """
    if groups == 1:
        return function(*arrays)
    present = [a is not None for a in arrays]
    stacked = [tf.stack(tf.split(a, groups)) for a in arrays if a is not None]

    def of_group(group):
        group = iter(group)
        return function(*(next(group) if there else None for there in present))

    by_task, sums = tf.map_fn(of_group, stacked, fn_output_signature=dtypes)
    by_task = tuple(tf.reshape(a, [-1, *tf.unstack(tf.shape(a)[2:])]) for a in by_task)
    return by_task, [tf.reduce_sum(a, axis=0) for a in sums]


def processors() -> int:
    """Returns the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _threads():
    return tf.config.threading.get_intra_op_parallelism_threads() or processors()


def _largest_divisor(number, limit):
    return max(size for size in range(1, min(number, limit) + 1) if number % size == 0)
