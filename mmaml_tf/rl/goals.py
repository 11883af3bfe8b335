"""Multimodal goal distributions: the tasks of the reinforcement-learning environments.

A task is a goal. A mode is a Gaussian around a centre, and its name is the centre's direction in
degrees: "deg45" lies to the upper right.
"""

import hashlib
import json
import math
import numbers
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from mmaml_tf.arguments import whole_number
from mmaml_tf.episodes import prefetched

_CORNERS = (45, 135, 225, 315)
_HEXAGON = (0, 60, 120, 180, 240, 300)
_PLANAR_SETS = {1: (45,), 2: (225, 45), 4: _CORNERS, 6: _HEXAGON}

# All draws use one generator on every device, so that a seed means the same goals everywhere.
_ALGORITHM = "philox"


class Setting(NamedTuple):
    """The published goals of one environment.

    Attributes:
        env_id: the environment's name in Gymnasium's registry.
        radii: distance of a mode's centre from the origin, by direction in degrees.
        mode_sets: directions of the published mode sets, by number of modes.
        cyclic: sizes of the mode sets whose tasks take the modes in turn; tasks of other sets
            draw theirs at random.
        noise: standard deviation of a goal around its centre, in x and in y.
        height: the goal's z, or None in the plane.
        reach: a goal further than this from the origin is pulled back to this distance.
    """

    env_id: str
    radii: dict[int, float]
    mode_sets: dict[int, tuple[int, ...]]
    cyclic: tuple[int, ...]
    noise: float
    height: float | None = None
    reach: float = math.inf


#: the published settings by the environment's name
SETTINGS = {
    "point_mass": Setting(
        env_id="mmaml_tf/PointMass-v0",
        radii=dict.fromkeys(_CORNERS, 5.0 * math.sqrt(2.0)) | dict.fromkeys(_HEXAGON, 5.0),
        mode_sets=_PLANAR_SETS,
        cyclic=(6,),
        noise=1.0,
    ),
    "reacher": Setting(
        env_id="mmaml_tf/Reacher-v0",
        radii=dict.fromkeys(_CORNERS + _HEXAGON, 0.225 * math.sqrt(2.0)),
        mode_sets=_PLANAR_SETS,
        cyclic=(),
        noise=0.1,
        height=0.03,
        reach=0.3,
    ),
    "ant": Setting(
        env_id="mmaml_tf/Ant-v0",
        radii=dict.fromkeys((180, 120, 60, 0), 4.0),
        mode_sets={1: (180,), 2: (180, 0), 4: (180, 120, 60, 0)},
        cyclic=(4,),
        noise=0.8,
        height=0.03,
    ),
}


class Goals(NamedTuple):
    """The goals of a batch of T tasks.

    Attributes:
        goal: `[T, G]` float32, in the environment's units of length.
        mode: `[T]` int32 index of each task's mode.
        origin: `[2]` int64 (seed, step) the batch was drawn from.
    """

    goal: Any
    mode: Any
    origin: Any


class GoalModes:
    """The modes of an environment's goals.

    Args:
        environment: "point_mass", "reacher" or "ant".
        modes: number of modes of a published set (1, 2 or 4, or 6 in the plane), or names, such
            as ("deg45", "deg225").

    Attributes:
        modes: names of the M modes.
        centres: `[M, 2]` float64, in the environment's units of length.
        setting: the published `Setting`.
        goal_size: number of coordinates G of a goal: 2 in the plane, 3 in space.
        cyclic: whether tasks take the modes in turn instead of at random.

    Raises:
        ValueError: for an unknown environment, number of modes or mode, or repeated modes.
    """

    def __init__(self, environment: str, modes: int | Sequence[str]):
        if environment not in SETTINGS:
            raise ValueError(
                f"environment={environment!r} is unknown; choose one of {tuple(SETTINGS)}."
            )
        self.environment = environment
        self.setting = SETTINGS[environment]
        directions = self._directions(modes)
        self.modes = tuple(f"deg{direction}" for direction in directions)
        sets = self.setting.mode_sets
        self.cyclic = any(directions == sets[count] for count in self.setting.cyclic)
        self.goal_size = 2 if self.setting.height is None else 3
        radii = np.array([self.setting.radii[direction] for direction in directions])
        angles = np.radians(directions)
        self.centres = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def draw(self, rng: np.random.Generator, tasks: int) -> np.ndarray:
        """Draws goals of modes chosen uniformly at random.

        Args:
            rng: source of randomness.
            tasks: number of goals T.

        Returns:
            `[T, G]` float64.
        """
        tasks = whole_number("tasks", tasks)
        mode = rng.integers(len(self.modes), size=tasks)
        return self.place(self.centres[mode], rng.standard_normal((tasks, 2)), np)

    def place(self, centres, normal, numpy):
        """Adds noise to centres and makes goals of them.

        Args:
            centres: `[T, 2]`.
            normal: `[T, 2]` standard normal values.
            numpy: the module that computes: `numpy`, or `tf.experimental.numpy` for tensors.

        Returns:
            `[T, G]` goals.
        """
        goals = centres + self.setting.noise * normal
        if self.setting.height is not None:
            height = numpy.full_like(goals[:, :1], self.setting.height)
            goals = numpy.concatenate([goals, height], axis=1)
        norm = numpy.sqrt(numpy.sum(goals**2, axis=1, keepdims=True))
        return goals * numpy.minimum(self.setting.reach / norm, numpy.ones_like(norm))

    def _directions(self, modes) -> tuple[int, ...]:
        known = {f"deg{direction}": direction for direction in self.setting.radii}
        sets = self.setting.mode_sets
        whole = isinstance(modes, numbers.Integral) and not isinstance(modes, bool)
        if whole and modes in sets:
            return sets[modes]
        several = isinstance(modes, Sequence | np.ndarray) and not isinstance(modes, str)
        names = tuple(modes) if several else (modes,)
        strings = all(isinstance(name, str) for name in names)
        if not (names and strings and set(names) <= set(known) and len(set(names)) == len(names)):
            raise ValueError(
                f"modes={modes!r} of {self.environment!r}: give a number of modes among "
                f"{tuple(sets)}, or different names among {tuple(known)}."
            )
        return tuple(known[name] for name in names)


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

    def dataset(self, tasks: int, seed: int, start: int = 0) -> tf.data.Dataset:
        """Returns the endless sequence of batches from step `start` on.

        Args:
            tasks: number of tasks T of a batch, at least 1.
            seed: seed of the sequence.
            start: first step; resuming at step n needs nothing but `start=n`.

        Raises:
            ValueError: for fewer than one task, or numbers that are not whole.
        """
        tasks, seed = whole_number("tasks", tasks), whole_number("seed", seed, None)
        steps = tf.data.Dataset.range(whole_number("start", start, 0), tf.int64.max)
        return prefetched(steps.map(lambda step: self._sample(tasks, seed, step)), 4)

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

    @property
    def tasks(self) -> int:
        """The number of tasks N."""
        return len(self.goals.mode)

    def batches(self, batch: int) -> Iterator[Goals]:
        """Yields the tasks in order, as `Goals` of at most `batch` tasks.

        Raises:
            ValueError: for a batch of fewer than one task.
        """
        batch = whole_number("batch", batch)
        for start in range(0, self.tasks, batch):
            part = slice(start, start + batch)
            yield Goals(self.goals.goal[part], self.goals.mode[part], self.goals.origin)

    def digest(self) -> str:
        """Returns a hexadecimal SHA-256 digest of all goals and their modes."""
        sha = hashlib.sha256(repr(self.modes).encode())
        for array in (self.goals.goal, self.goals.mode):
            sha.update(str((array.dtype, array.shape)).encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()


def _origin(seed, step):
    return tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64)])


def _stream(origin, name):
    """Returns the stateless seed of one kind of draw, apart from every other task set's."""
    key = tf.stack([origin[0], tf.constant(0x676F616C, tf.int64)])
    key = tf.random.fold_in(key, origin[1], alg=_ALGORITHM)
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1
    return tf.random.fold_in(key, number, alg=_ALGORITHM)
