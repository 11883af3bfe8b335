"""Few-shot regression: tasks that are one-dimensional functions of several `families`."""

import hashlib
import json
import math
from collections.abc import Sequence

import tensorflow as tf
from numpy.typing import ArrayLike

from mmaml_tf.arguments import whole_number
from mmaml_tf.episodes import Episodes, prefetched
from mmaml_tf.names import checked
from mmaml_tf.tasks.drawing import check_shard
from mmaml_tf.tasks.families import ALGORITHM, FAMILIES, MODE_SETS, Draw, family_text
from mmaml_tf.tasks.held_out import HeldOut


class FunctionTasks:
    """Mixtures of function families with exactly balanced batches.

    x is uniform in `x_range`; Gaussian noise is added to the targets of support and query alike.
    Every batch is a function of (seed, step).

    Args:
        modes: names of registered families.
        support: support points K of a task, at least 1.
        queries: query points Q of a task, at least 1.
        noise: standard deviation of the noise on y.
        x_range: bounds of x.

    Raises:
        ValueError: for unknown or repeated modes, too few points, negative noise or an empty
            range.
    """

    @checked(still={"query": "queries"})
    def __init__(
        self,
        modes: Sequence[str] = MODE_SETS[2],
        support: int = 5,
        queries: int = 5,
        noise: float = 0.3,
        x_range: tuple[float, float] = (-5.0, 5.0),
    ):
        modes = (modes,) if isinstance(modes, str) else tuple(modes)
        unknown = [mode for mode in modes if mode not in FAMILIES]
        if unknown or not modes or len(set(modes)) < len(modes):
            raise ValueError(
                f"modes={modes}: give different families among {tuple(FAMILIES)}, or add one "
                "with register_family(name)."
            )
        self.modes = modes
        self.support = whole_number("support", support)
        self.queries = whole_number("queries", queries)
        (self.noise,) = _finite("noise", [noise], "a standard deviation, finite and not negative")
        self.x_range = _finite("x_range", x_range, "two finite bounds, the lower one first")
        if self.noise < 0:
            raise ValueError(f"noise={noise}: a standard deviation is not negative.")
        if len(self.x_range) != 2 or not self.x_range[0] < self.x_range[1]:
            raise ValueError(f"x_range={x_range}: the lower bound must be below the upper one.")
        self._graphs = {}

    def sample(self, tasks: int, seed: int, step: int = 0) -> Episodes:
        """Draws the batch of `step`: an equal number of tasks of each mode.

        Args:
            tasks: number of tasks T, a multiple of the number of modes.
            seed: seed of the sequence of batches.
            step: position in that sequence.

        Returns:
            `Episodes` with x and y of shape `[T, K or Q, 1]`, ordered by mode.

        Raises:
            ValueError: when T is not a positive multiple of the number of modes.
        """
        tasks = self._tasks_per_mode(tasks)
        seed, step = whole_number("seed", seed, None), whole_number("step", step, 0)
        return self._draw(tasks, seed, step)[0]

    def dataset(
        self, tasks: int, seed: int, start: int = 0, shard: tuple[int, int] | None = None
    ) -> tf.data.Dataset:
        """Returns the endless sequence of batches from step `start` on, for `learner.fit`.

        Args:
            tasks: number of tasks T of a batch, a multiple of the number of modes.
            seed: seed of the sequence.
            start: first step; resuming at step n needs nothing but `start=n`.
            shard: (i, n) for the tasks i, i + n, i + 2n, ... of each batch alone, in which modes
                are as balanced as in all; for host i of n, see `distribution`.
        """
        draw = self._graph(self._tasks_per_mode(tasks))
        part, parts = check_shard(shard, tasks)
        seed = whole_number("seed", seed, None)
        steps = tf.data.Dataset.range(whole_number("start", start, 0), tf.int64.max)

        def batch(step):
            episodes = draw(tf.constant(seed, tf.int64), step)
            if shard is None:
                return episodes
            own = [array[part::parts] for array in episodes[:-1]]
            return Episodes(*own, tf.concat([episodes.origin, shard], axis=0))

        return prefetched(steps.map(batch), 4)

    def held_out(self, tasks_per_mode: int = 1000, seed: int = 7) -> HeldOut:
        """Draws the fixed tasks of an evaluation.

        Args:
            tasks_per_mode: tasks of each mode, at least 1.
            seed: the evaluation's own seed; its tasks differ from every training batch's.
        """
        tasks_per_mode = whole_number("tasks_per_mode", tasks_per_mode)
        seed = whole_number("seed", seed, None)
        # No training sequence has a negative step, so no training batch is among these tasks.
        episodes, clean, _ = self._draw(tasks_per_mode, seed, -1)
        episodes = Episodes(*(a.numpy() for a in episodes))
        targets = {"noisy": episodes.query_y, "noise_free": clean.numpy()}
        return HeldOut(episodes, targets, self.modes)

    def examples(self, tasks_per_mode: int, seed: int, grid: ArrayLike) -> Episodes:
        """Draws tasks together with their noise-free curves, for pictures.

        Args:
            tasks_per_mode: tasks of each mode.
            seed: seed of the tasks.
            grid: `[P]` values of x.

        Returns:
            `Episodes` of T tasks whose queries are the grid and their noise-free values.
        """
        tasks_per_mode = whole_number("tasks_per_mode", tasks_per_mode)
        seed = whole_number("seed", seed, None)
        episodes, _, curves = self._draw(tasks_per_mode, seed, -1, grid)
        grid = tf.reshape(tf.constant(grid, tf.float32), [1, -1, 1])
        query_x = tf.tile(grid, [len(curves), 1, 1])
        return Episodes(*(a.numpy() for a in episodes._replace(query_x=query_x, query_y=curves)))

    def config(self) -> dict:
        """Returns the constructor arguments as plain values."""
        return {
            "modes": list(self.modes),
            "support": self.support,
            "queries": self.queries,
            "noise": self.noise,
            "x_range": list(self.x_range),
        }

    def digest(self) -> str:
        """Returns a hexadecimal digest of the distribution: its settings and families' code.

        Raises:
            ValueError: for a family that holds what has no text of its own, see `callables`.
        """
        families = [family_text(mode, FAMILIES[mode]) for mode in self.modes]
        text = json.dumps([self.config(), families], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _tasks_per_mode(self, tasks):
        tasks = whole_number("tasks", tasks)
        if tasks % len(self.modes):
            raise ValueError(
                f"tasks={tasks}: a balanced batch of {len(self.modes)} modes needs a multiple of "
                f"{len(self.modes)}."
            )
        return tasks // len(self.modes)

    def _graph(self, per_mode):
        """Returns the episodes as a graph of (seed, step), traced once for all datasets."""
        if per_mode not in self._graphs:
            numbers = [tf.TensorSpec([], tf.int64)] * 2

            def draw(seed, step):
                return self._draw(per_mode, seed, step)[0]

            self._graphs[per_mode] = tf.function(draw, numbers, autograph=False)
        return self._graphs[per_mode]

    def _draw(self, per_mode, seed, step, grid=(0.0,)):
        """Returns episodes, their noise-free query targets, and the functions on a grid."""
        # Of one type however it is given: the type takes part in what is drawn.
        step = tf.cast(step, tf.int64)
        key = tf.random.fold_in(_key(seed), step, alg=ALGORITHM)
        points = self.support + self.queries
        grid = tf.reshape(tf.constant(grid, tf.float32), [1, -1, 1])
        parts = []
        for index, mode in enumerate(self.modes):
            # The stream belongs to the family's name: a task set of other modes leaves it alone.
            draw = Draw(tf.random.fold_in(key, _stable_hash(mode), alg=ALGORITHM), per_mode)
            function = FAMILIES[mode](draw)
            x = draw(*self.x_range, points)
            clean = function(x)
            y = clean + self.noise * draw.normal(points)
            parts.append((x, y, clean, function(grid), tf.fill([per_mode], index)))
        x, y, clean, curves, mode = (tf.concat(part, axis=0) for part in zip(*parts, strict=True))
        k = self.support
        origin = tf.stack([tf.cast(seed, tf.int64), step])
        episodes = Episodes(x[:, :k], y[:, :k], x[:, k:], y[:, k:], mode, origin)
        return episodes, clean[:, k:], curves


def _finite(name, values, expected):
    """Returns numbers of the user's as floats; raises ValueError where they are none."""
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name}={values!r}: expected {expected}.")
    return numbers


def _key(seed):
    return tf.stack([tf.cast(seed, tf.int64), tf.constant(0x6D6D616D6C, tf.int64)])


def _stable_hash(name):
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1
