"""From an encoded image to pixels of one size and one number of channels."""

import io
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import Transpose

from mmaml_tf.datasets.errors import DatasetError
from mmaml_tf.datasets.signatures import describe

# Formats outside this list are not opened, whatever the suffix says.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM")
# What turns an image of each EXIF orientation upright.
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
# Below the number from which on Pillow warns of decompression bombs.
_PIXELS = 80_000_000


def decode(
    image: bytes | np.ndarray,
    size: int,
    channels: int,
    adjust: Callable[[Image.Image], Image.Image] = lambda image: image,
) -> np.ndarray:
    """Decodes, turns upright, adjusts and resizes an image.

    A photograph is turned as its EXIF orientation says. Of an animation or a document of several
    pages, this is the first. What is transparent becomes white.

    Args:
        image: encoded bytes, or uint8 pixels `[H, W]` or `[H, W, 3]`.
        size: height and width of the result; the image is squashed to it.
        channels: 1 or 3; a gray image has three equal channels.
        adjust: a change to make before the image is resized.

    Returns:
        uint8 `[size, size, channels]`.

    Raises:
        DatasetError: when these are no pixels that can be decoded whole.
    """
    try:
        picture = adjust(_picture(image).convert("L" if channels == 1 else "RGB"))
        if picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    except DatasetError:
        raise
    except Exception as error:
        # Pillow's decoders fail in many ways: OSError, SyntaxError, ValueError, struct.error.
        raise DatasetError(f"{type(error).__name__}: {error}") from error
    return np.asarray(picture).reshape(size, size, channels)


def _picture(image):
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    try:
        picture = Image.open(io.BytesIO(image), formats=_FORMATS)
    except UnidentifiedImageError:
        raise DatasetError(
            f"Pillow cannot identify this image ({describe(image[:200])}): convert it to JPEG or "
            "PNG, or get it again"
        ) from None
    width, height = picture.size
    if width * height > _PIXELS:
        raise DatasetError(f"{width}x{height} pixels, more than {_PIXELS:,}")
    if picture.mode.startswith(("I", "F")):
        # Pillow would cut all values above 255.
        raise DatasetError(f"mode {picture.mode}: convert it to 8 bits a channel")
    picture.load()
    # ImageOps.exif_transpose fails where any other tag is damaged, for it writes all of them anew.
    turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation))
    picture = picture if turn is None else picture.transpose(turn)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture
