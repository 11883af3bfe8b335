"""Few-shot classification: N-way K-shot episodes of images from several datasets.

A mode is a dataset: an `ImageMode` with its images, its classes of each split, and whether
classes are rotated. To add one, give any folder of class folders to `mmaml_tf.datasets`, or
arrays to `ImageMode.from_arrays`.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmaml_tf.arguments import whole_number
from mmaml_tf.episodes import Episodes
from mmaml_tf.tasks.augmentation import Augmentation, Changes, by_mode
from mmaml_tf.tasks.drawing import (
    balanced_modes,
    check_shard,
    check_split,
    dataset_of,
    generator,
)
from mmaml_tf.tasks.held_out import check_known
from mmaml_tf.tasks.held_out_images import HeldOutImages
from mmaml_tf.tasks.image_modes import ImageMode


class _Draw(NamedTuple):
    """One task as positions in its mode's array, each class one row: `[N, K + Q]`."""

    rows: np.ndarray
    turns: np.ndarray  # `[N]` quarter turns of the classes
    order: tuple[np.ndarray, np.ndarray]  # the order of support and query points
    changes: Changes | None  # of the images, `[N, K + Q]`


class ImageTasks:
    """Mixtures of image datasets, with modes balanced in each batch.

    In a task, classes and images are drawn without replacement, the order of the classes gives
    their labels, and no query image is a support image. Every batch is a function of
    (seed, step).

    Args:
        modes: the `ImageMode`s, all of one image size.
        ways: classes N of a task.
        support: support images K of a class.
        queries: query images of a class.
        split: "train", "validation" or "test".
        channels: 3, or 1 if all modes are gray; gray images are repeated.
        fewer_ways: lets a mode with fewer than N classes have tasks of all its classes, in
            evaluation; a learner for such tasks needs `fewer_ways=True` too. Without it such a
            mode is an error.
        augmentation: random changes of the training images, new ones for each image of each task:
            an `Augmentation`, or `{mode: Augmentation}` for some modes. A mirrored character may
            be another one, so leave Omniglot out of flips. Held-out tasks have images as they
            are, unless `held_out` is given an augmentation.

    Raises:
        ValueError: for modes that do not fit together, an unknown split, too few classes, too
            few images in a class, or an augmentation that does not fit.
    """

    def __init__(
        self,
        modes: Sequence[ImageMode],
        ways: int = 5,
        support: int = 1,
        queries: int = 15,
        split: str = "train",
        channels: int = 3,
        fewer_ways: bool = False,
        augmentation: Augmentation | Mapping[str, Augmentation] | None = None,
    ):
        modes = [modes] if isinstance(modes, ImageMode) else list(modes)
        if other := [mode for mode in modes if not isinstance(mode, ImageMode)]:
            raise ValueError(f"modes holds {other[0]!r}; expected ImageModes.")
        self._sources = {mode.name: mode for mode in modes}
        if not modes or len(self._sources) < len(modes):
            names = [mode.name for mode in modes]
            raise ValueError(f"modes are {names}; give at least one, each of another name.")
        sizes = {mode.name: mode.images.shape[1:3] for mode in modes}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"the modes have images of different sizes: {sizes}.")
        least = max(mode.images.shape[3] for mode in modes)
        if whole_number("channels", channels) not in (1, 3) or channels < least:
            raise ValueError(f"channels={channels}: expected 3, or 1 if all images are gray.")
        self.modes = tuple(self._sources)
        self.ways = whole_number("ways", ways, 2)
        self.support = whole_number("support", support)
        self.queries = whole_number("queries", queries)
        self.split = check_split(split)
        self.channels = int(channels)
        self.fewer_ways = fewer_ways
        self.image_shape = (*modes[0].images.shape[1:3], self.channels)
        self._ranges = {name: self._class_ranges(mode) for name, mode in self._sources.items()}
        self._augmentation = by_mode(augmentation, modes)
        if augmentation is not None and self.split != "train":
            raise ValueError(
                f"augmentation is for training, and split={split!r}: leave it out, or give it to "
                "held_out to evaluate on changed images."
            )

    def _class_ranges(self, mode):
        """Returns where the images of the split's classes are, `[classes, 2]`."""
        classes = getattr(mode.split, self.split)
        unknown = [name for name in classes if name not in mode.offsets]
        if unknown:
            raise ValueError(
                f"mode {mode.name!r}: its {self.split} split names {len(unknown)} classes that its "
                f"images do not have, for example {unknown[0]!r}."
            )
        if len(classes) < self.ways and not (self.fewer_ways and len(classes) >= 2):
            raise ValueError(
                f"mode {mode.name!r} has {len(classes)} classes in its {self.split} split, too few "
                f"for {self.ways}-way tasks; take fewer ways, or fewer_ways=True for tasks of all "
                "its classes."
            )
        ranges = np.array([mode.offsets[name] for name in classes])
        counts, needed = ranges[:, 1] - ranges[:, 0], self.support + self.queries
        if counts.min() < needed:
            raise ValueError(
                f"mode {mode.name!r}, class {classes[counts.argmin()]!r} has {counts.min()} "
                f"images; {self.support} support and {self.queries} query images need {needed}."
            )
        return ranges

    def ways_of(self, mode: str) -> int:
        """Returns the classes of a task of this mode: N, or fewer if it has fewer."""
        return min(self.ways, len(self._ranges[mode]))

    def sample(self, tasks: int, seed: int, step: int = 0) -> Episodes:
        """Draws the batch of `step`.

        Args:
            tasks: number of tasks T. Where it is no multiple of the number of modes M, the modes
                take turns in having one task more, so that M batches are balanced exactly.
            seed: seed of the sequence of batches.
            step: position in that sequence.

        Returns:
            `Episodes` with images `[T, N·K or N·Q, H, W, C]` in [0, 1] and labels as int32,
            ordered by mode.

        Raises:
            ValueError: when T is not positive, or a mode has fewer ways than the others.
        """
        return self._sample(tasks, seed, step)

    def _sample(self, tasks, seed, step, shard=None):
        tasks = whole_number("tasks", tasks)
        seed, step = whole_number("seed", seed, None), whole_number("step", step, 0)
        part, parts = check_shard(shard, tasks)
        fewer = [mode for mode in self.modes if self.ways_of(mode) < self.ways]
        if fewer:
            raise ValueError(
                f"modes {fewer} have tasks of fewer than {self.ways} classes, which do not fit in "
                "one batch with others; evaluate them instead (held_out), or leave them out."
            )
        positions = list(enumerate(balanced_modes(tasks, len(self.modes), step)))
        draws = [
            (self.modes[index], self._draw(self.modes[index], seed, "train", step, position))
            for position, index in positions[part::parts]
        ]
        return self._episodes(draws, np.array([seed, step, *(shard or ())], np.int64))

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
        return dataset_of(lambda step: self._sample(tasks, seed, step, shard), start, fixed=True)

    def held_out(
        self,
        tasks_per_mode: int = 1000,
        seed: int = 7,
        augmentation: Augmentation | Mapping[str, Augmentation] | None = None,
    ) -> HeldOutImages:
        """Draws the fixed tasks of an evaluation.

        Args:
            tasks_per_mode: tasks of each mode, at least 1.
            seed: the evaluation's own seed; its tasks differ from every training batch's.
            augmentation: changes of these tasks' images, in the form that `ImageTasks` takes.
        """
        tasks = copy.copy(self)
        tasks._augmentation = by_mode(augmentation, self._sources.values())
        return HeldOutImages(tasks, tasks_per_mode, seed)

    def only(self, modes: Sequence[str]) -> "ImageTasks":
        """Returns tasks of some modes, with the same settings."""
        modes = check_known(modes, self.modes)
        tasks = copy.copy(self)
        tasks.modes = modes
        tasks._sources = {mode: self._sources[mode] for mode in modes}
        tasks._augmentation = {m: a for m, a in self._augmentation.items() if m in modes}
        return tasks

    def config(self) -> dict:
        """Returns the settings as plain values."""
        settings = {
            "modes": list(self.modes),
            "ways": {mode: self.ways_of(mode) for mode in self.modes},
            "support": self.support,
            "queries": self.queries,
            "split": self.split,
            "image_shape": list(self.image_shape),
        }
        if self._augmentation:
            settings["augmentation"] = {m: a.config() for m, a in self._augmentation.items()}
        return settings

    def digest(self) -> str:
        """Returns a hexadecimal digest of the distribution: its settings, classes and images."""
        sources = self._sources.values()
        classes = [getattr(source.split, self.split) for source in sources]
        digests = [(source.digest, source.rotated) for source in sources]
        text = json.dumps([self.config(), classes, digests])
        return hashlib.sha256(text.encode()).hexdigest()

    def _draw(self, mode, seed, purpose, step, position):
        """Draws one task; a function of its arguments and the mode's classes alone."""
        key = (mode, purpose, seed, step, position)
        rng = generator(*key)
        ranges, ways = self._ranges[mode], self.ways_of(mode)
        chosen = ranges[rng.choice(len(ranges), ways, replace=False)]
        points = self.support + self.queries
        rows = [start + rng.choice(stop - start, points, replace=False) for start, stop in chosen]
        turns = rng.integers(4, size=ways) if self._sources[mode].rotated else np.zeros(ways, int)
        order = tuple(rng.permutation(ways * n) for n in (self.support, self.queries))
        changes = None
        if mode in self._augmentation:
            rng = generator(*key, "augmentation")
            changes = self._augmentation[mode].draw(rng, (ways, points))
        return _Draw(np.stack(rows), turns, order, changes)

    def _episodes(self, draws, origin=None):
        """Returns the episodes of draws `[(mode, draw)]` of equal size."""
        ways = len(draws[0][1].rows)
        halves = []
        for points in (self.support, self.queries):
            x = np.empty((len(draws), ways * points, *self.image_shape), np.float32)
            halves.append((x, np.empty(x.shape[:2], np.int32)))
        for task, (mode, draw) in enumerate(draws):
            images = self._images(mode, draw)
            parts = images[:, : self.support], images[:, self.support :]
            for (x, y), part, order in zip(halves, parts, draw.order, strict=True):
                _write_floats(x[task], part.reshape(-1, *part.shape[2:])[order])
                y[task] = order // part.shape[1]
        mode = np.array([self.modes.index(mode) for mode, _ in draws], np.int32)
        return Episodes(*halves[0], *halves[1], mode, origin)

    def _images(self, mode, draw):
        """Returns the images of one task as bytes, `[N, K + Q, H, W, C]`."""
        ways, points = draw.rows.shape
        images = self._sources[mode].images[draw.rows.reshape(-1)]
        images = images.reshape(ways, points, *images.shape[1:])
        for turn in (1, 2, 3):
            turned = draw.turns == turn
            images[turned] = np.rot90(images[turned], turn, axes=(2, 3))
        if draw.changes is not None:
            images = self._augmentation[mode].apply(images, draw.changes)
        return images


def _write_floats(out, images):
    """Writes bytes to `out` as numbers in [0, 1]; those of grey images to each of its channels."""
    if images.shape[-1] == out.shape[-1]:
        np.divide(images, np.float32(255), out=out)
        return
    grey = images[..., 0] / np.float32(255)
    for channel in range(out.shape[-1]):  # many times as fast as repeating or broadcasting
        out[..., channel] = grey
