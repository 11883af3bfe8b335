"""The images of one mode of image tasks, and which of its classes are for what."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mmaml_tf.tasks.class_splits import SHARES, ClassSplit, class_split, divided

if TYPE_CHECKING:
    from mmaml_tf.datasets import PreparedImages

#: modes whose classes are rotated by a random quarter turn, a new one in each task
ROTATED = ("omniglot",)


class ImageMode(NamedTuple):
    """The images of one mode.

    Attributes:
        name: name of the mode.
        images: `[n, H, W, C]` bytes with C 1 or 3, those of a class together.
        offsets: `{class: (start, stop)}`, where the images of each class are.
        split: which classes are for training, validation and test.
        rotated: whether each class of a task is turned by a random multiple of 90°.
        digest: digest of the images.
    """

    name: str
    images: np.ndarray
    offsets: dict[str, tuple[int, int]]
    split: ClassSplit
    rotated: bool = False
    digest: str = ""

    @classmethod
    def of(cls, images: "PreparedImages", split: str | ClassSplit | None = None) -> "ImageMode":
        """Makes a mode of a prepared dataset.

        Args:
            images: what `mmaml_tf.datasets.prepare` returned.
            split: a `ClassSplit`, or the name of one; by default the published protocol's.
        """
        if not isinstance(split, ClassSplit):
            split = class_split(images.name, split)
        ranges = itertools.pairwise(images.offsets.tolist())
        offsets = dict(zip(images.classes, ranges, strict=True))
        rotated = images.name in ROTATED
        return cls(images.name, images.images, offsets, split, rotated, images.digest)

    @classmethod
    def from_arrays(
        cls,
        name: str,
        x: ArrayLike,
        y: ArrayLike,
        split: ClassSplit | Mapping[str, Sequence] | Sequence[float] = SHARES,
        *,
        rotated: bool = False,
        seed: int = 0,
    ) -> "ImageMode":
        """Makes a mode of images in memory.

        Args:
            name: name of the mode.
            x: images `[n, H, W, C]` with C 1 or 3: uint8 from 0 to 255, or floats from 0 to 1,
                which are kept as bytes.
            y: `[n]` the class of each image, as strings or whole numbers.
            split: a `ClassSplit`, or the lists of its classes `{"train": [...], "validation":
                [...], "test": [...]}`, or the shares of the classes in each of the three.
            rotated: whether each class of a task is turned by a random multiple of 90°.
            seed: seed of the division by shares.

        Raises:
            ValueError: for other shapes, types or values, or a split that does not fit.

        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.random((60, 8, 8, 3)), np.repeat(["cat", "dog", "fox", "owl"], 15)
        >>> mode = ImageMode.from_arrays("animals", x, y, (0.5, 0, 0.5))
        >>> [len(part) for part in mode.split[:3]]
        [2, 0, 2]
        """
        if not isinstance(name, str) or not name:
            raise ValueError(f"name={name!r}: expected the name of a mode.")
        x, y = np.asarray(x), np.asarray(y)
        if x.ndim != 4 or x.shape[3] not in (1, 3) or 0 in x.shape:
            raise ValueError(
                f"mode {name!r}: x has shape {x.shape}; expected images [n, H, W, C] with 1 or 3 "
                "channels. Gray images without channels become x[..., None]."
            )
        if y.dtype == object and all(isinstance(label, str) for label in y.ravel()):
            y = y.astype(str)
        if y.shape != x.shape[:1] or y.dtype.kind not in "iuU":
            raise ValueError(
                f"mode {name!r}: y has shape {y.shape} and type {y.dtype}; expected the class of "
                f"each of the {len(x)} images in x, as strings or whole numbers."
            )
        images = _bytes(name, x)[np.argsort(y, kind="stable")]
        labels, counts = np.unique(y, return_counts=True)
        classes = [str(label) for label in labels.tolist()]
        ends = [0, *np.cumsum(counts).tolist()]
        offsets = dict(zip(classes, itertools.pairwise(ends), strict=True))
        if isinstance(split, ClassSplit):
            split = {part: getattr(split, part) for part in split._fields[:3]}
        if isinstance(split, Mapping):
            split = {part: _names(listed) for part, listed in split.items()}
        split = divided(classes, split, "class", seed)
        sha = hashlib.sha256(repr((offsets, images.shape)).encode())
        sha.update(np.ascontiguousarray(images))
        return cls(name, images, offsets, split, bool(rotated), sha.hexdigest())


def _names(classes):
    """Returns the names of classes that may be numbers."""
    return classes if isinstance(classes, str) else [str(label) for label in classes]


def _bytes(name, x):
    """Returns images as bytes; raises ValueError for values that are none."""
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind != "f":
        raise ValueError(
            f"mode {name!r}: x has type {x.dtype}; expected uint8 from 0 to 255, or floats from 0 "
            "to 1."
        )
    if not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(
            f"mode {name!r}: x has values from {x.min():g} to {x.max():g}; expected floats from 0 "
            "to 1. Divide by 255, or convert to uint8."
        )
    return np.rint(x * 255).astype(np.uint8)
