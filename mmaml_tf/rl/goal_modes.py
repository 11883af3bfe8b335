"""The modes of goals, and what is published about them for each environment.

A mode is a Gaussian around a centre, and its name is the centre's direction in degrees: "deg45"
lies to the upper right.
"""

import math
import numbers
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from mmaml_tf.arguments import whole_number

_CORNERS = (45, 135, 225, 315)
_HEXAGON = (0, 60, 120, 180, 240, 300)
_PLANAR_SETS = {1: (45,), 2: (225, 45), 4: _CORNERS, 6: _HEXAGON}


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

    def place(self, centres: Any, normal: Any, numpy: ModuleType) -> Any:
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
