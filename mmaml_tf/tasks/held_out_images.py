"""Held-out tasks of images, which are drawn anew whenever they are needed."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmaml_tf.arguments import whole_number
from mmaml_tf.episodes import Episodes

if TYPE_CHECKING:
    from mmaml_tf.tasks.images import ImageTasks

# Pixels of the batches an evaluation works on at once.
_PIXELS_AT_ONCE = 2_000_000


class HeldOutImages:
    """A fixed set of tasks, drawn from the seed whenever it is needed.

    Attributes:
        tasks: the `ImageTasks` they come from.
        modes: names of the modes.
        mode: `[N]` mode of each task; the tasks of a mode are together.
    """

    def __init__(self, tasks: "ImageTasks", tasks_per_mode: int, seed: int):
        self.tasks = tasks
        self.tasks_per_mode = whole_number("tasks_per_mode", tasks_per_mode)
        self.seed = whole_number("seed", seed, None)
        self.modes = tasks.modes
        self._digest = None
        self.mode = np.repeat(np.arange(len(self.modes), dtype=np.int32), self.tasks_per_mode)

    def batches(self, batch_size: int | None = None) -> Iterator[tuple[Episodes, dict]]:
        """Yields (`Episodes` of at most `batch_size` tasks, targets by name), in order."""
        size = None if batch_size is None else whole_number("batch_size", batch_size)
        for name in self.modes:
            images = self.tasks.ways_of(name) * (self.tasks.support + self.tasks.queries)
            pixels = images * math.prod(self.tasks.image_shape[:2])
            at_once = size or max(1, _PIXELS_AT_ONCE // pixels)
            # Even batches, since a learner is traced for each size.
            per_batch = math.ceil(self.tasks_per_mode / math.ceil(self.tasks_per_mode / at_once))
            for start in range(0, self.tasks_per_mode, per_batch):
                stop = min(start + per_batch, self.tasks_per_mode)
                draws = [(name, self._draw(name, i)) for i in range(start, stop)]
                episodes = self.tasks._episodes(draws)
                yield episodes, {"labels": episodes.query_y}

    def _draw(self, mode, index):
        return self.tasks._draw(mode, self.seed, "held out", 0, index)

    def only(self, modes: Sequence[str]) -> "HeldOutImages":
        """Returns the tasks of some modes, which are the same whatever the others are."""
        return HeldOutImages(self.tasks.only(modes), self.tasks_per_mode, self.seed)

    def digest(self) -> str:
        """Returns a hexadecimal digest of the tasks: the images' digest and all draws."""
        if self._digest is None:  # it takes as long as drawing all tasks
            sha = hashlib.sha256(self.tasks.digest().encode())
            for name in self.modes:
                for index in range(self.tasks_per_mode):
                    draw = self._draw(name, index)
                    for array in (draw.rows, draw.turns, *draw.order):
                        sha.update(array.astype("<i8").tobytes())
            self._digest = sha.hexdigest()
        return self._digest
