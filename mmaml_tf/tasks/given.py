"""Held-out tasks that a user has at hand, as batches of `Episodes` of any sizes."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from mmaml_tf.arguments import whole_number
from mmaml_tf.episodes import Episodes, check_episodes
from mmaml_tf.tasks.held_out import check_known

# Tasks of the batches an evaluation works on at once.
_TASKS_AT_ONCE = 250


class GivenTasks:
    """Tasks in batches, each of which has its own numbers of tasks, support and query points.

    Args:
        batches: `Episodes`, a list of them, or a finite tf.data.Dataset of them.
        modes: names of the modes that `Episodes.mode` indexes; by default their numbers.
        tasks: names of all tasks in order, if they have any.

    Attributes:
        tasks: as given.

    Raises:
        ValueError: for anything else, an endless dataset, or batches of which some have modes.
    """

    def __init__(self, batches, modes: Sequence[str] = (), tasks: Sequence | None = None):
        self._names = tuple(modes)
        self._known = None
        self.tasks = tasks
        if isinstance(batches, tf.data.Dataset):
            self._batches, first = batches, batches.element_spec
            _check(first)
            if int(batches.cardinality()) == tf.data.INFINITE_CARDINALITY:
                raise ValueError(
                    "the dataset is endless; evaluate some of its batches, dataset.take(n)."
                )
        else:
            batches = [batches] if isinstance(batches, Episodes) else batches
            self._batches = [_arrays(episodes) for episodes in batches]
            if not self._batches:
                raise ValueError("there are no tasks to evaluate: the list of Episodes is empty.")
            first = self._batches[0]
        # A dataset tells of nothing by a type of its own.
        self._with_modes = not isinstance(first.mode, type(None) | tf.NoneTensorSpec)

    @property
    def mode(self) -> np.ndarray:
        """The mode `[N]` of each task; 0 where none is known."""
        return self._pass()[0]

    @property
    def modes(self) -> tuple[str, ...]:
        """The names of the modes."""
        if not self._with_modes:
            return ("tasks",)
        return self._names or tuple(f"mode {i}" for i in range(1 + self.mode.max()))

    def digest(self) -> str:
        """Returns a hexadecimal digest of the tasks, whatever batches they come in."""
        return self._pass()[1]

    def batches(self, batch_size: int | None = None) -> Iterator[tuple[Episodes, dict]]:
        """Yields (`Episodes` of at most `batch_size` tasks, their targets), in order."""
        size = _TASKS_AT_ONCE if batch_size is None else whole_number("batch_size", batch_size)
        modes, sha = [], hashlib.sha256()
        for episodes in self._batches:
            arrays = _arrays(episodes)
            modes.append(self._modes_of(arrays))
            _update(sha, arrays, modes[-1])
            for start in range(0, len(modes[-1]), size):
                rows = slice(start, start + size)
                part = Episodes(*(None if a is None else a[rows] for a in arrays[:5]))
                yield part, {"loss": part.query_y}
        if not modes:
            raise ValueError("there are no tasks to evaluate: the dataset is empty.")
        self._known = np.concatenate(modes), sha.hexdigest()

    def only(self, modes: Sequence[str]) -> "GivenTasks":
        """Returns the tasks of some modes, renumbered in the order given."""
        modes = check_known(modes, self.modes)
        numbers = np.full(len(self.modes), -1, np.int32)
        numbers[[self.modes.index(mode) for mode in modes]] = np.arange(len(modes))
        chosen = []
        for episodes, _ in self.batches():
            mode = numbers[episodes.mode if self._with_modes else 0]
            rows = np.flatnonzero(mode >= 0)
            if len(rows):
                arrays = [array[rows] for array in episodes[:4]]
                chosen.append(Episodes(*arrays, mode[rows]))
        kept = np.flatnonzero(numbers[self.mode] >= 0)
        tasks = None if self.tasks is None else [self.tasks[i] for i in kept]
        return GivenTasks(chosen, modes, tasks)

    def _pass(self):
        if self._known is None:
            for _ in self.batches():
                pass
        return self._known

    def _modes_of(self, episodes):
        """Returns the modes of a batch, checked; 0 where it has none."""
        mode, tasks = episodes.mode, len(episodes.support_x)
        if tasks == 0:
            raise ValueError("a batch of Episodes has no tasks; leave it out.")
        if (mode is not None) != self._with_modes:
            raise ValueError("some Episodes have modes and others have none; give all or none.")
        if mode is None:
            return np.zeros(tasks, np.int32)
        if mode.shape != (tasks,) or mode.dtype.kind not in "iu":
            raise ValueError(
                f"mode has shape {mode.shape} and type {mode.dtype}; expected one integer for each "
                f"of the {tasks} tasks."
            )
        if mode.min() < 0 or (self._names and mode.max() >= len(self._names)):
            names = f", which number {self._names}" if self._names else ""
            raise ValueError(f"mode is {mode.tolist()}; expected indices from 0{names}.")
        return mode.astype(np.int32)


class FirstTasks:
    """The first tasks of each mode of a held-out set, or all of a mode that has fewer.

    Args:
        held_out: held-out tasks.
        tasks_per_mode: how many of each mode, at least 1.
    """

    def __init__(self, held_out, tasks_per_mode: int):
        self._all = held_out
        self._count = whole_number("tasks_per_mode", tasks_per_mode)

    @property
    def modes(self) -> tuple[str, ...]:
        """The names of the modes."""
        return self._all.modes

    @property
    def mode(self) -> np.ndarray:
        """The mode of each task."""
        return self._all.mode[_numbers(self._all.mode, {}) < self._count]

    def batches(self, batch_size: int | None = None) -> Iterator[tuple[Episodes, dict]]:
        """Yields (`Episodes` of at most `batch_size` tasks, their targets), in order."""
        seen = {}
        for episodes, targets in self._all.batches(batch_size):
            mode = np.zeros(len(episodes[0])) if episodes.mode is None else episodes.mode
            rows = np.flatnonzero(_numbers(mode, seen) < self._count)
            if len(rows):
                part = Episodes(*(None if a is None else a[rows] for a in episodes[:5]))
                yield part, {name: target[rows] for name, target in targets.items()}

    def digest(self) -> str:
        """Returns a hexadecimal digest of the tasks."""
        whole = self._all.digest()
        if len(self.mode) == len(self._all.mode):
            return whole
        return hashlib.sha256(f"{whole} {self._count}".encode()).hexdigest()


def _numbers(mode, seen: dict) -> np.ndarray:
    """Returns the number of each task among those of its mode, and counts on in `seen`."""
    found = []
    for index in np.asarray(mode).tolist():
        found.append(seen.get(index, 0))
        seen[index] = found[-1] + 1
    return np.array(found)


def _arrays(episodes) -> Episodes:
    """Returns episodes as arrays, checked."""
    if isinstance(episodes, Episodes):
        episodes = Episodes(*(None if a is None else np.asarray(a) for a in episodes))
    _check(episodes)
    return episodes


def _check(episodes):
    blind = isinstance(episodes, Episodes) and episodes.query_y is None
    check_episodes(episodes._replace(query_y=episodes.query_x) if blind else episodes)
    if blind:
        raise ValueError("the Episodes have no query targets; an evaluation needs query_y.")


def _update(sha, arrays: Iterable[np.ndarray], mode):
    """Adds tasks to a digest, one after the other, so that it is the same in other batches."""
    for task, number in enumerate(mode):
        for array in (*(array[task] for array in arrays[:4]), number):
            sha.update(str((array.dtype, array.shape)).encode())
            sha.update(np.ascontiguousarray(array).tobytes())
