"""Random changes of training images: flips, crops and colours."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from mmaml_tf.arguments import flag, real_number, whole_number
from mmaml_tf.tasks.image_modes import ImageMode


class Changes(NamedTuple):
    """What changes in images of any leading shape.

    Attributes:
        mirrored: `[...]` whether left and right are exchanged.
        corner: `[..., 2]` row and column of the crop in the padded image.
        factors: `[..., 3]` factors of brightness, contrast and saturation.
    """

    mirrored: np.ndarray
    corner: np.ndarray
    factors: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Changes every image at random, independently of the others.

    An image is mirrored or not, padded with black, cropped to its size and changed in colour.
    With its grey value g, and the mean m of the image's grey values, a pixel x becomes

        b (m + c (g + s (x - g) - m)),

    where the factors of brightness b, contrast c and saturation s are uniform around 1. Values
    are clipped to the range once, at the end, so that the order of the three does not matter.
    Saturation leaves grey images as they are.

    Args:
        flip: whether half of the images are mirrored.
        padding: pixels added on every side before the crop; fewer than an image is high and wide.
        brightness: at most 1; b is from 1 - brightness to 1 + brightness.
        contrast: the same for c.
        saturation: the same for s.

    Raises:
        ValueError: for other values, or if nothing would change.

    These are the settings of Lee et al. (2019, MetaOptNet) for images of 84 pixels:

    >>> settings = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
    >>> augmentation = Augmentation(flip=True, padding=8, **settings)
    """

    flip: bool = False
    padding: int = 0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self):
        share = functools.partial(real_number, high=1.0)
        checks = {"flip": flag, "padding": functools.partial(whole_number, least=0)}
        checks |= dict.fromkeys(_COLOURS, share)
        for name, check in checks.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        if not any(asdict(self).values()):
            raise ValueError("this Augmentation changes nothing; give flip=True, for example.")

    def config(self) -> dict:
        """Returns the settings as plain values."""
        return asdict(self)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Changes:
        """Draws the changes of images of this leading shape."""
        spread = np.array([getattr(self, name) for name in _COLOURS])
        return Changes(
            rng.random(shape) < self.flip / 2,
            rng.integers(2 * self.padding, size=(*shape, 2), endpoint=True),
            rng.uniform(1 - spread, 1 + spread, (*shape, 3)),
        )

    def apply(self, images: np.ndarray, changes: Changes) -> np.ndarray:
        """Returns changed images.

        Args:
            images: bytes `[..., H, W, C]` with C 1 or 3.
            changes: what `draw` returned for them.

        Returns:
            Bytes of the same shape.
        """
        flat = images.reshape(-1, *images.shape[-3:])
        mirrored, corner = changes.mirrored.reshape(-1), changes.corner.reshape(-1, 2)
        factors = changes.factors.reshape(-1, 3)
        changed = np.empty_like(flat)
        for start in range(0, len(flat), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            some = _moved(flat[part], mirrored[part], corner[part] - self.padding)
            if any(getattr(self, name) for name in _COLOURS):
                some = _coloured(some, factors[part])
            changed[part] = some
        return changed.reshape(images.shape)


def by_mode(augmentation, modes: Sequence[ImageMode]) -> dict[str, Augmentation]:
    """Returns the augmentation of each mode that has one.

    Args:
        augmentation: one for all modes, `{mode: Augmentation}`, or None.
        modes: the modes.

    Raises:
        ValueError: for anything else, unknown modes, or an augmentation that does not fit.
    """
    if augmentation is None:
        return {}
    if not isinstance(augmentation, Mapping):
        augmentation = {mode.name: augmentation for mode in modes}
    chosen = dict(augmentation)
    if wrong := [value for value in chosen.values() if not isinstance(value, Augmentation)]:
        raise ValueError(
            f"augmentation holds {wrong[0]!r}; expected an Augmentation, or {{mode: Augmentation}}."
        )
    shapes = {mode.name: mode.images.shape for mode in modes}
    if unknown := [name for name in chosen if name not in shapes]:
        raise ValueError(
            f"augmentation names the mode {unknown[0]!r}; the modes are {', '.join(shapes)}."
        )
    for name, value in chosen.items():
        height, width = shapes[name][1:3]
        if value.padding >= min(height, width):
            raise ValueError(
                f"padding={value.padding}: the images of mode {name!r} have {height} by {width} "
                "pixels; pad by fewer."
            )
    saturated = [name for name, value in chosen.items() if value.saturation]
    if saturated and all(shapes[name][3] == 1 for name in saturated):
        raise ValueError(
            f"saturation={chosen[saturated[0]].saturation}: the images of {', '.join(saturated)} "
            "are grey and have none to change; leave it out."
        )
    return chosen


def _moved(images, mirrored, corner):
    """Returns images `[n, H, W, C]` mirrored and cropped; corners `[n, 2]` may lie outside."""
    moved = np.zeros_like(images)
    height, width = images.shape[1:3]
    for out, image, mirror, (row, column) in zip(
        moved, images, mirrored, corner.tolist(), strict=True
    ):
        image = image[:, ::-1] if mirror else image
        inside = image[max(0, row) : height + row, max(0, column) : width + column]
        top, left = max(0, -row), max(0, -column)
        out[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return moved


def _coloured(images, factors):
    """Returns images `[n, H, W, C]` in other colours, see `Augmentation`."""
    b, c, s = factors.T[..., None, None, None]
    weights = _GREY[: images.shape[3]] / _GREY[: images.shape[3]].sum()
    x = images.astype(np.float32)
    # Sums of bytes are exact in any order, so that the same images come out everywhere.
    sums = x.sum(axis=1).astype(np.float64).sum(axis=1)
    m = (sums * weights).sum(axis=1)[:, None, None, None] / np.prod(images.shape[1:3])
    grey = np.zeros((*x.shape[:3], 1), np.float32)
    for channel, weight in enumerate(weights.astype(np.float32)):
        grey[..., 0] += x[..., channel] * weight
    x *= (b * c * s).astype(np.float32)
    grey *= (b * c * (1 - s)).astype(np.float32)
    grey += (b * (1 - c) * m).astype(np.float32)
    x += grey
    return np.clip(np.rint(x, out=x), 0, 255, out=x).astype(np.uint8)


_COLOURS = ("brightness", "contrast", "saturation")
#: how much red, green and blue count in a grey value (ITU-R BT.601)
_GREY = np.array([0.299, 0.587, 0.114])
# Images that are changed at once: they fit a cache.
_AT_ONCE = 16
