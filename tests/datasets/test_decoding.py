"""Images of every kind become pixels of the right mode; others are refused."""

import io
import struct
import zlib

import numpy as np
import official_data
import pytest
from PIL import Image

from mmaml_tf.datasets.decoding import decode
from mmaml_tf.datasets.errors import DatasetError


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_gray_images_get_three_equal_channels():
    gray = official_data.pixels(1, gray=True)
    image = decode(official_data.encoded(gray, "PNG"), 40, 3)
    assert image.shape == (40, 40, 3)
    assert np.ptp(image, axis=2).max() == 0


def test_colour_images_become_gray_where_one_channel_is_asked_for():
    assert decode(official_data.pixels(1), 28, 1).shape == (28, 28, 1)


def test_palettes_are_looked_up():
    image = Image.fromarray(official_data.pixels(1)).quantize(16)
    expected = np.asarray(image.convert("RGB").resize((20, 20), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(decode(saved(image), 20, 3), expected)


def test_cmyk_photographs_become_rgb():
    array = official_data.pixels(1)
    image = decode(saved(Image.fromarray(array).convert("CMYK"), "JPEG", quality=95), 40, 3)
    expected = Image.fromarray(array).resize((40, 40), Image.Resampling.LANCZOS)
    assert np.abs(image.astype(int) - np.asarray(expected)).mean() < 4


def test_what_is_transparent_becomes_white():
    array = np.zeros((20, 20, 4), np.uint8)
    array[:10, :, 3] = 255
    image = decode(saved(Image.fromarray(array)), 20, 3)
    assert image[:10].max() == 0 and image[10:].min() == 255
    palette = Image.fromarray(np.zeros((20, 20, 3), np.uint8)).quantize(4)
    assert decode(saved(palette), 20, 3).max() == 0
    assert decode(saved(palette, transparency=b"\0\0\0\0"), 20, 3).min() == 255


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_picture_of_several(kind):
    first, *others = [Image.fromarray(official_data.pixels(i, 20, 20)) for i in range(3)]
    content = saved(first, kind, save_all=True, append_images=others)
    expected = decode(saved(first, kind), 20, 3).astype(int)
    assert np.abs(decode(content, 20, 3) - expected).mean() < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(orientation, kind):
    picture = Image.fromarray(official_data.pixels(1, 20, 20))
    steps = {
        2: ["FLIP_LEFT_RIGHT"], 3: ["ROTATE_180"], 4: ["FLIP_TOP_BOTTOM"], 5: ["TRANSPOSE"],
        6: ["ROTATE_90"], 7: ["TRANSVERSE"], 8: ["ROTATE_270"],
    }.get(orientation, [])  # fmt: skip
    stored = picture
    for step in steps:
        stored = stored.transpose(Image.Transpose[step])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(saved(stored, kind, exif=exif, quality=95), 20, 3).astype(int)
    assert np.abs(image - np.asarray(picture)).mean() < 12  # compressed


@pytest.mark.parametrize("damage", ["the maker's tag", "all of it"])
def test_a_damaged_exif_leaves_the_image_readable(damage):
    picture = Image.fromarray(official_data.pixels(1, 20, 20))
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    stored = picture.transpose(Image.Transpose.ROTATE_90)
    content = bytearray(saved(stored, "JPEG", exif=exif, quality=95))
    tags = content.index(b"Exif") + 6
    if damage == "all of it":
        content[tags : tags + 40] = b"x" * 40
        picture = stored
    else:
        content[tags + 11] = 0  # the tag that names the maker becomes one of numbers
    image = decode(bytes(content), 20, 3).astype(int)
    assert np.abs(image - np.asarray(picture)).mean() < 12


def test_an_image_of_the_right_size_is_left_alone():
    array = official_data.pixels(1, 20, 20)
    np.testing.assert_array_equal(decode(array, 20, 3), array)
    np.testing.assert_array_equal(decode(official_data.encoded(array, "PNG"), 20, 3), array)


def huge_png():
    """A PNG that claims 100,000 x 100,000 pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"cannot identify .*an empty file"),
        (b"<html>not found</html>", r"cannot identify .*an HTML page that begins with '<html>not"),
        (b"\0\0\0\x18ftypheic" + bytes(9), r"cannot identify .*a HEIC image.*convert it to JPEG"),
        (official_data.encoded(official_data.pixels(1))[:-100], "truncated"),
        (official_data.encoded(official_data.pixels(1), "PNG")[:-300], "truncated"),
        (saved(Image.fromarray(official_data.pixels(1)), "EPS"), "cannot identify"),
        (saved(Image.fromarray(np.zeros((5, 5), np.uint16))), "8 bits"),
        (huge_png(), "pixels"),
    ],
)
def test_what_cannot_be_decoded_is_an_error(content, message):
    with pytest.raises(DatasetError, match=message):
        decode(content, 20, 3)
