"""Held-out tasks: what an evaluation runs on."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmaml_tf.arguments import whole_number
from mmaml_tf.episodes import Episodes


class HeldOut(NamedTuple):
    """A fixed set of N tasks and the targets that predictions are compared with.

    Attributes:
        episodes: `Episodes` of N tasks, as arrays.
        targets: query targets `[N, Q, ...]` by name; the first is the headline's.
        modes: names of the modes that `episodes.mode` indexes.
    """

    episodes: Episodes
    targets: Mapping[str, np.ndarray]
    modes: tuple[str, ...]

    @property
    def mode(self) -> np.ndarray:
        """The mode `[N]` of each task; 0 where none is known."""
        if self.episodes.mode is None:
            return np.zeros(len(self.episodes.support_x), np.int32)
        return self.episodes.mode

    def batches(self, batch_size: int | None = None) -> Iterator[tuple[Episodes, dict]]:
        """Yields (`Episodes` of at most `batch_size` tasks, their targets), in order."""
        size = _TASKS_AT_ONCE if batch_size is None else whole_number("batch_size", batch_size)
        for start in range(0, len(self.mode), size):
            part = slice(start, start + size)
            episodes = Episodes(*(None if a is None else a[part] for a in self.episodes[:5]))
            yield episodes, {name: target[part] for name, target in self.targets.items()}

    def digest(self) -> str:
        """Returns a hexadecimal SHA-256 digest of all tasks and targets."""
        sha = hashlib.sha256(repr(self.modes).encode())
        for array in (*self.episodes[:4], self.mode, *self.targets.values()):
            sha.update(str((array.dtype, array.shape)).encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()

    def save(self, path) -> None:
        """Writes the tasks to an uncompressed .npz file."""
        arrays = {k: v for k, v in self.episodes._asdict().items() if v is not None}
        targets = {f"target_{name}": array for name, array in self.targets.items()}
        np.savez(path, modes=np.array(self.modes), **arrays, **targets)

    @classmethod
    def load(cls, path) -> "HeldOut":
        """Reads what `save` wrote."""
        with np.load(path) as file:
            arrays = dict(file)
        modes = tuple(str(mode) for mode in arrays.pop("modes"))
        targets = {
            name.removeprefix("target_"): arrays.pop(name)
            for name in list(arrays)
            if name.startswith("target_")
        }
        return cls(Episodes(**arrays), targets, modes)

    def only(self, modes) -> "HeldOut":
        """Returns the tasks of some modes, renumbered in the order given."""
        modes = check_known(modes, self.modes)
        rows = [np.flatnonzero(self.mode == self.modes.index(mode)) for mode in modes]
        mode = np.concatenate([np.full(len(r), i, np.int32) for i, r in enumerate(rows)])
        rows = np.concatenate(rows)
        take = {
            k: v[rows] for k, v in self.episodes._asdict().items() if k not in ("mode", "origin")
        }
        return HeldOut(
            Episodes(**take, mode=mode, origin=self.episodes.origin),
            {name: target[rows] for name, target in self.targets.items()},
            modes,
        )


def check_known(modes: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Returns names of modes; raises ValueError for none, unknown ones, or one given twice."""
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    unknown = [mode for mode in modes if mode not in known]
    if unknown:
        raise ValueError(f"modes {unknown} are not among the held-out tasks' {tuple(known)}.")
    if not modes or len(set(modes)) < len(modes):
        raise ValueError(f"modes={modes}: give at least one, each once.")
    return modes


# Tasks of the batches an evaluation works on at once.
_TASKS_AT_ONCE = 250
