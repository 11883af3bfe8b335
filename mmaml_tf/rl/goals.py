"""Goals: the tasks of the reinforcement-learning environments, drawn from their modes."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from mmaml_tf.arguments import whole_number
from mmaml_tf.checks import as_tensor
from mmaml_tf.episodes import prefetched
from mmaml_tf.rl.goal_modes import GoalModes
from mmaml_tf.tasks.drawing import check_shard

# All draws use one generator on every device, so that a seed means the same goals everywhere.
_ALGORITHM = "philox"


class Goals(NamedTuple):
    """The goals of a batch of T tasks.

    Attributes:
        goal: `[T, G]` float32, in the environment's units of length.
        mode: `[T]` int32 index of each task's mode, or None where it is not known.
        origin: `[2]` int64 (seed, step) the batch was drawn from, or `[4]` (seed, step, i, n) for
            part i of n of a larger one, or None. What is sampled for these goals is a function of
            it.
    """

    goal: Any
    mode: Any = None
    origin: Any = None


def check_goals(goal: ArrayLike, name: str = "goal") -> np.ndarray:
    """Returns goals as an array `[T, G]`.

    Args:
        goal: what the user gave.
        name: its name there, for messages.

    Raises:
        ValueError: unless there are goals, of finite numbers.
    """
    goal = as_tensor(name, goal, "").numpy()
    check_goal_shape(goal.shape, name)
    if len(bad := np.argwhere(~np.isfinite(goal))):
        raise ValueError(
            f"{name} of task {bad[0][0]} is {goal[bad[0][0]].tolist()}; expected finite numbers."
        )
    return goal


def check_goal_shape(shape, name: str = "goal") -> None:
    """Raises ValueError unless it is the shape of goals; sizes may be unknown."""
    if len(shape) != 2 or 0 in tuple(shape):
        raise ValueError(
            f"{name}: found shape {tuple(shape)}, expected [T, G] (tasks, goal size) with at least "
            "one of each."
        )


def check_origin(origin: Any) -> list[int]:
    """Returns (seed, step) of a batch, and what tells parts of it apart, as whole numbers."""
    origin = as_tensor("origin", origin, "").numpy()
    if origin.ndim != 1 or len(origin) < 2 or not np.issubdtype(origin.dtype, np.integer):
        raise ValueError(
            f"origin is {origin.tolist()}; expected two whole numbers (seed, step), or None."
        )
    return origin.tolist()


class GoalTasks:
    """Goals drawn from the modes of an environment (published draws).

    Tasks of the point mass's 6 modes and of the ant's 4 take the modes in turn, here by angle; all
    others draw a mode uniformly at random. Every batch is a function of (seed, step).

    Args:
        environment: "point_mass", "reacher" or "ant".
        modes: number of modes of a published set, or names of modes.

    Attributes:
        environment: as given.
        modes: names of the M modes.
        env_id: the environment's name in Gymnasium's registry.

    Raises:
        ValueError: for an unknown environment, number of modes or mode, or repeated modes.
    """

    def __init__(self, environment: str, modes: int | Sequence[str]):
        self._modes = GoalModes(environment, modes)
        self.environment = environment
        self.modes = self._modes.modes
        self.env_id = self._modes.setting.env_id

    def sample(self, tasks: int, seed: int, step: int = 0) -> Goals:
        """Draws the batch of `step`.

        Args:
            tasks: number of tasks T, at least 1.
            seed: seed of the sequence of batches.
            step: position in that sequence.

        Returns:
            `Goals` of T tasks, as tensors.

        Raises:
            ValueError: for fewer than one task, or numbers that are not whole.
        """
        tasks, seed = whole_number("tasks", tasks), whole_number("seed", seed, None)
        return self._sample(tasks, seed, whole_number("step", step, 0))

    def dataset(
        self, tasks: int, seed: int, start: int = 0, shard: tuple[int, int] | None = None
    ) -> tf.data.Dataset:
        """Returns the endless sequence of batches from step `start` on.

        Args:
            tasks: number of tasks T of a batch, at least 1.
            seed: seed of the sequence.
            start: first step; resuming at step n needs nothing but `start=n`.
            shard: (i, n) for the tasks i, i + n, i + 2n, ... of each batch alone, in which modes
                are as balanced as in all; for host i of n, see `distribution`.

        Raises:
            ValueError: for fewer than one task, numbers that are not whole, or a shard that is
                none.
        """
        tasks, seed = whole_number("tasks", tasks), whole_number("seed", seed, None)
        part, parts = check_shard(shard, tasks)
        steps = tf.data.Dataset.range(whole_number("start", start, 0), tf.int64.max)

        def batch(step):
            goal, mode, origin = self._sample(tasks, seed, step)
            if shard is not None:
                origin = tf.concat([origin, shard], axis=0)
            return Goals(goal[part::parts], mode[part::parts], origin)

        return prefetched(steps.map(batch), 4)

    def held_out(self, tasks_per_mode: int = 100, seed: int = 7) -> "HeldOutGoals":
        """Draws the fixed goals of an evaluation, equally many of each mode.

        A mode's goals do not depend on which other modes are drawn beside it.

        Args:
            tasks_per_mode: tasks of each mode, at least 1.
            seed: the evaluation's own seed; its goals differ from every training batch's.

        Raises:
            ValueError: for fewer than one task per mode.
        """
        tasks_per_mode = whole_number("tasks_per_mode", tasks_per_mode)
        seed = whole_number("seed", seed, None)
        # No training sequence has a negative step, so no training batch holds these goals.
        origin = _origin(seed, -1)
        shape = [tasks_per_mode, 2]
        normal = [
            tf.random.stateless_normal(shape, _stream(origin, name), alg=_ALGORITHM)
            for name in self.modes
        ]
        mode = tf.repeat(tf.range(len(self.modes)), tasks_per_mode)
        goals = self._goals(mode, tf.concat(normal, axis=0), origin)
        return HeldOutGoals(Goals(*(a.numpy() for a in goals)), self.modes, self.env_id)

    def config(self) -> dict:
        """Returns the constructor arguments as plain values."""
        return {"environment": self.environment, "modes": list(self.modes)}

    def digest(self) -> str:
        """Returns a hexadecimal digest of the distribution: its modes and their constants."""
        text = json.dumps([self.config(), self._modes.setting._asdict()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _sample(self, tasks, seed, step):
        origin = _origin(seed, step)
        count = len(self.modes)
        if self._modes.cyclic:
            mode = tf.range(tasks) % count
        else:
            stream = _stream(origin, "mode")
            mode = tf.random.stateless_uniform([tasks], stream, 0, count, tf.int32, alg=_ALGORITHM)
        stream = _stream(origin, "noise")
        normal = tf.random.stateless_normal([tasks, 2], stream, alg=_ALGORITHM)
        return self._goals(mode, normal, origin)

    def _goals(self, mode, normal, origin):
        centres = tf.gather(tf.constant(self._modes.centres, tf.float32), mode)
        goal = self._modes.place(centres, normal, tf.experimental.numpy)
        return Goals(tf.cast(goal, tf.float32), mode, origin)


class HeldOutGoals(NamedTuple):
    """A fixed set of N goals.

    Attributes:
        goals: `Goals` of N tasks, as arrays.
        modes: names of the modes that `goals.mode` indexes.
        env_id: the environment's name in Gymnasium's registry.
    """

    goals: Goals
    modes: tuple[str, ...]
    env_id: str

    @property
    def mode(self) -> np.ndarray:
        """The mode `[N]` of each task."""
        return self.goals.mode

    def batches(self, batch_size: int | None = None) -> Iterator[Goals]:
        """Yields the tasks in order, as `Goals` of at most `batch_size` tasks, by default 40.

        Raises:
            ValueError: for a batch of fewer than one task.
        """
        size = _TASKS_AT_ONCE if batch_size is None else whole_number("batch_size", batch_size)
        for start in range(0, len(self.mode), size):
            part = slice(start, start + size)
            yield Goals(self.goals.goal[part], self.goals.mode[part], self.goals.origin)

    def digest(self) -> str:
        """Returns a hexadecimal SHA-256 digest of all goals and their modes."""
        sha = hashlib.sha256(repr(self.modes).encode())
        for array in (self.goals.goal, self.goals.mode):
            sha.update(str((array.dtype, array.shape)).encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()


# Tasks of the batches an evaluation works on at once.
_TASKS_AT_ONCE = 40


def _origin(seed, step):
    return tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64)])


def _stream(origin, name):
    """Returns the stateless seed of one kind of draw, apart from every other task set's."""
    key = tf.stack([origin[0], tf.constant(0x676F616C, tf.int64)])
    key = tf.random.fold_in(key, origin[1], alg=_ALGORITHM)
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1
    return tf.random.fold_in(key, number, alg=_ALGORITHM)
