"""Tasks from data of one's own, such as users, machines or sites with a few points each."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from mmaml_tf.arguments import whole_number
from mmaml_tf.episodes import Episodes
from mmaml_tf.tasks import columns
from mmaml_tf.tasks.class_splits import SHARES, divided
from mmaml_tf.tasks.drawing import balanced_modes, check_shard, check_split, dataset_of, generator
from mmaml_tf.tasks.given import GivenTasks


class ArrayTasks:
    """Tasks from arrays, balanced by mode in each batch.

    Each task keeps its own number of points. A batch takes support and query points of a task at
    random, without replacement, so that no query point is a support point and all points are used
    over time. Tasks are divided into training, validation and test as a function of a seed.
    Every batch is a function of (seed, step).

    Args:
        x: `[n, ...]` inputs of all points; `[n]` becomes `[n, 1]`.
        y: `[n, ...]` targets. Floats are those of a regression, `[n]` becomes `[n, 1]`. Whole
            numbers, `[n]` or `[n, 1]`, are class labels from 0 to N - 1.
        task: `[n]` the task of each point: strings, numbers, or any other hashable labels.
        mode: name of each point's mode `[n]`, or `{task: mode}`; None for one mode.
        support: support points K, or the least and the most of them. Each batch draws one K;
            XLA compiles the training step once for each.
        queries: query points Q, or None. Then training takes as many as every task of the split
            has left, others each time, and held-out tasks have all that are left.
        split: "train", "validation" or "test".
        parts: the shares of each mode's tasks in the three, or the lists of their tasks
            `{"train": [...], "validation": [...], "test": [...]}`.
        seed: seed of the division by shares.
        classes: number of classes N; by default one more than the largest label.

    Attributes:
        modes: names of the modes, sorted.
        tasks: the labels of this split's tasks by mode.

    Raises:
        ValueError: for values that are not finite, lengths that differ, labels that are not
            numbered from 0, a task of two modes or in two parts, or one with too few points.

    >>> rng = np.random.default_rng(0)
    >>> user = np.repeat([f"user {i}" for i in range(20)], 30)
    >>> x = rng.normal(size=(600, 3))
    >>> y = np.sin(x).sum(axis=1)
    >>> tasks = ArrayTasks(x, y, user, support=(3, 8), queries=10)
    >>> tasks.sample(4, seed=0).query_x.shape
    (4, 10, 3)
    >>> len(tasks.part("test").held_out().tasks)
    3
    """

    def __init__(
        self,
        x: ArrayLike,
        y: ArrayLike,
        task: ArrayLike,
        mode: ArrayLike | Mapping | None = None,
        *,
        support: int | tuple[int, int] = 5,
        queries: int | None = None,
        split: str = "train",
        parts: Sequence[float] | Mapping[str, Sequence] = SHARES,
        seed: int = 0,
        classes: int | None = None,
    ):
        task = columns.labels("task", task)
        self._x = columns.inputs("x", x, task)
        self._y = columns.targets("y", y, task, classes)
        self._rows = {}
        for row, label in enumerate(task):
            self._rows.setdefault(label, []).append(row)
        self._rows = {label: np.array(rows) for label, rows in self._rows.items()}
        self._low, self._high = _support(support)
        self.support = support if self._low < self._high else self._low
        self.queries = None if queries is None else whole_number("queries", queries)
        self.seed = whole_number("seed", seed, None)
        self._parts = parts
        self._mode_of = columns.modes(mode, task)
        self.modes = tuple(sorted(set(self._mode_of.values())))
        self._choose(split)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        task: str,
        inputs: str | Sequence[str],
        targets: str | Sequence[str],
        mode: str | Mapping | None = None,
        **settings,
    ) -> "ArrayTasks":
        """Makes tasks of the columns of a pandas or Polars frame.

        Args:
            frame: a frame with a row for each point.
            task: name of the column of tasks.
            inputs: names of the columns of x.
            targets: names of the columns of y; one alone may hold class labels.
            mode: name of the column of modes, or `{task: mode}`, or None.
            **settings: see `ArrayTasks`.

        Raises:
            ValueError: for columns that are missing, or given for two things, and see
                `ArrayTasks`.
        """
        inputs, targets = ([c] if isinstance(c, str) else list(c) for c in (inputs, targets))
        if twice := sorted({c for c in [*inputs, *targets] if [*inputs, *targets].count(c) > 1}):
            raise ValueError(f"column {twice[0]!r} is given twice among inputs and targets.")
        named = mode is not None and not isinstance(mode, Mapping)
        if task in targets or (named and mode in targets):
            raise ValueError("a column of targets cannot be that of tasks or modes too.")
        label = columns.labels(f"column {task!r}", columns.column(frame, task))
        x = columns.joined(frame, "inputs", inputs, label)
        y = columns.joined(frame, "targets", targets, label)
        if named:
            mode = columns.column(frame, mode)
        return cls(x, y, label, mode, **settings)

    @classmethod
    def from_tasks(
        cls,
        tasks: Mapping[Any, tuple[ArrayLike, ArrayLike]] | Sequence[tuple[ArrayLike, ArrayLike]],
        mode: Sequence | Mapping | None = None,
        **settings,
    ) -> "ArrayTasks":
        """Makes tasks of one pair (x, y) for each task.

        Args:
            tasks: `{task: (x, y)}`, or a list of (x, y), whose tasks are numbered from 0.
            mode: name of each task's mode, or `{task: mode}`, or None.
            **settings: see `ArrayTasks`.

        Raises:
            ValueError: see `ArrayTasks`.
        """
        if not isinstance(tasks, (Mapping, list, tuple)):
            raise ValueError(
                f"tasks is a {type(tasks).__name__}; expected {{task: (x, y)}} or a list of (x, y)."
            )
        pairs = dict(tasks) if isinstance(tasks, Mapping) else dict(enumerate(tasks))
        x, y, label = columns.concatenated(pairs)
        if mode is not None and not isinstance(mode, Mapping):
            mode = columns.by_task(pairs, mode)
        return cls(x, y, label, mode, **settings)

    def part(self, split: str) -> "ArrayTasks":
        """Returns the tasks of another split, with the same settings."""
        other = copy.copy(self)
        other._choose(split)
        return other

    def _choose(self, split):
        self.split = check_split(split)
        of_mode = {mode: [] for mode in self.modes}
        for label, mode in self._mode_of.items():
            of_mode[mode].append(label)
        if isinstance(self._parts, Mapping):
            chosen = getattr(divided(self._rows, self._parts, "task"), split)
            chosen = sorted(chosen, key=repr)  # a list in any order is the same split
            found = {m: [t for t in chosen if self._mode_of[t] == m] for m in self.modes}
        else:
            found = {
                mode: getattr(divided(of_mode[mode], self._parts, "task", self.seed), split)
                for mode in self.modes
            }
        self.tasks = {mode: tuple(labels) for mode, labels in found.items()}
        for mode, labels in self.tasks.items():
            if not labels:
                raise ValueError(
                    f"mode {mode!r} has {len(of_mode[mode])} tasks, and none is in the {split} "
                    "split: give that a larger share, or list some of them in `parts`."
                )
        sizes = {label: len(self._rows[label]) for labels in found.values() for label in labels}
        needed = self._high + (self.queries or 1)
        smallest = min(sizes, key=sizes.get)
        if sizes[smallest] < needed:
            short = sum(size < needed for size in sizes.values())
            raise ValueError(
                f"task {smallest!r} has {sizes[smallest]} points; support={self.support} and "
                f"queries={self.queries} need {needed} of each task, and {short} of the "
                f"{len(sizes)} tasks have fewer. Take fewer points, or leave such tasks out."
            )
        self._least = sizes[smallest]

    def sample(self, tasks: int, seed: int, step: int = 0) -> Episodes:
        """Draws the batch of `step`.

        Args:
            tasks: number of tasks T. Where it is no multiple of the number of modes M, the modes
                take turns in having one task more, so that M batches are balanced exactly.
            seed: seed of the sequence of batches.
            step: position in that sequence.

        Returns:
            `Episodes` `[T, K or Q, ...]`, ordered by mode. A task is there twice only where a
            mode has fewer tasks than the batch takes of it.
        """
        return self._sample(tasks, seed, step)

    def _sample(self, tasks, seed, step, shard=None):
        tasks = whole_number("tasks", tasks)
        seed, step = whole_number("seed", seed, None), whole_number("step", step, 0)
        part, parts = check_shard(shard, tasks)
        support = self._draw_support("support", seed, step)
        queries = self._least - support if self.queries is None else self.queries
        counts = np.bincount(balanced_modes(tasks, len(self.modes), step))
        rows = []
        for mode, count in zip(self.modes, counts.tolist(), strict=False):
            rng = generator(mode, "train", seed, step)
            labels = self.tasks[mode]
            rounds = [rng.permutation(len(labels)) for _ in range(-(-count // len(labels)))]
            for index in np.concatenate([[], *rounds])[:count].astype(int):
                points = rng.permutation(self._rows[labels[index]])
                rows.append(points[: support + queries])
        numbers = np.repeat(np.arange(len(counts)), counts)
        origin = np.array([seed, step, *(shard or ())], np.int64)
        return self._episodes(rows[part::parts], support, numbers[part::parts], origin)

    def dataset(
        self, tasks: int, seed: int, start: int = 0, shard: tuple[int, int] | None = None
    ) -> tf.data.Dataset:
        """Returns the endless sequence of batches from step `start` on, for `learner.fit`.

        Args:
            tasks: number of tasks T of a batch.
            seed: seed of the sequence.
            start: first step; resuming at step n needs nothing but `start=n`.
            shard: (i, n) for the tasks i, i + n, i + 2n, ... of each batch alone, in which modes
                are as balanced as in all; for host i of n, see `distribution`.
        """
        fixed = self._low == self._high
        return dataset_of(lambda step: self._sample(tasks, seed, step, shard), start, fixed)

    def held_out(self, tasks_per_mode: int | None = None, seed: int = 7) -> GivenTasks:
        """Draws the fixed tasks of an evaluation.

        Those of as many points stand together, so that no point is added to any. The attribute
        `tasks` of what is returned has their labels in order.

        Args:
            tasks_per_mode: tasks of each mode; None for all of this split.
            seed: seed of the choice of tasks and of their support points.

        Raises:
            ValueError: when a mode has fewer tasks.
        """
        seed, groups = whole_number("seed", seed, None), {}
        for number, mode in enumerate(self.modes):
            labels = self.tasks[mode]
            if tasks_per_mode is not None:
                count = whole_number("tasks_per_mode", tasks_per_mode)
                if count > len(labels):
                    raise ValueError(
                        f"tasks_per_mode={count}: mode {mode!r} has {len(labels)} tasks in its "
                        f"{self.split} split; ask for as many, or for None to take all."
                    )
                chosen = generator(mode, "tasks", seed).permutation(len(labels))[:count]
                labels = [labels[index] for index in sorted(chosen)]
            for label in labels:
                support = self._draw_support(mode, "held out", seed, repr(label))
                rows = generator(mode, "points", seed, repr(label)).permutation(self._rows[label])
                if self.queries is not None:
                    rows = rows[: support + self.queries]
                groups.setdefault((support, len(rows)), []).append((label, rows, number))
        batches, names = [], []
        for (support, _), group in sorted(groups.items()):
            labels, rows, modes = zip(*group, strict=True)
            batches.append(self._episodes(rows, support, modes))
            names += labels
        return GivenTasks(batches, self.modes, names)

    def _draw_support(self, *key):
        if self._low == self._high:
            return self._low
        return int(generator("support", *key).integers(self._low, self._high, endpoint=True))

    def _episodes(self, rows, support, modes, origin=None):
        rows = np.stack(rows)
        parts = rows[:, :support], rows[:, support:]
        x, y = ([array[part] for part in parts] for array in (self._x, self._y))
        return Episodes(x[0], y[0], x[1], y[1], np.array(modes, np.int32), origin)

    def config(self) -> dict:
        """Returns the settings as plain values."""
        return {
            "modes": list(self.modes),
            "tasks": {mode: len(labels) for mode, labels in self.tasks.items()},
            "support": [self._low, self._high],
            "queries": self.queries,
            "split": self.split,
            "seed": self.seed,
        }

    def digest(self) -> str:
        """Returns a hexadecimal digest of the distribution: its settings, tasks and values."""
        sha = hashlib.sha256(json.dumps(self.config()).encode())
        for labels in self.tasks.values():
            for label in labels:
                rows = self._rows[label]
                sha.update(repr(label).encode())
                for array in (self._x[rows], self._y[rows]):
                    sha.update(str((array.dtype, array.shape)).encode())
                    sha.update(array.tobytes())
        return sha.hexdigest()


def _support(support):
    """Returns the least and the most support points."""
    pair = support if isinstance(support, tuple | list) else (support, support)
    if len(pair) != 2:
        raise ValueError(f"support={support!r}: expected a number, or the least and the most.")
    low, high = (whole_number("support", number) for number in pair)
    if low > high:
        raise ValueError(f"support={support!r}: the least is larger than the most.")
    return low, high
