"""Which files of a folder are images and classes; all others are named."""

import io
import os
import warnings

import numpy as np
import official_data
import pytest
from PIL import Image

from mmaml_tf.datasets import DatasetError, FolderDataset, prepare

PNG = official_data.encoded(official_data.pixels(1, 12, 12), "PNG")
TASK = {"ant/0.png": PNG, "ant/1.png": PNG, "bee/0.png": PNG}


@pytest.fixture
def prepared(tmp_path):
    """Returns a function that prepares a folder of files, and what it warns of."""

    def prepared(files, **options):
        official_data.write_tree(tmp_path / "data", TASK | files)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            dataset = FolderDataset(tmp_path / "data", **options)
            images = prepare(dataset, None, tmp_path / "out", 8, progress=False)
        return images, [str(warning.message) for warning in caught]

    return prepared


def test_every_readable_format_and_suffix(prepared):
    kinds = {
        ".jpg": "JPEG", ".JPEG": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".MPO": "MPO",
        ".png": "PNG", ".bmp": "BMP", ".dib": "BMP", ".gif": "GIF", ".webp": "WEBP", ".tif": "TIFF",
        ".TIFF": "TIFF", ".avif": "AVIF", ".jp2": "JPEG2000", ".ppm": "PPM",
    }  # fmt: skip
    files = {
        f"bee/x{suffix}": official_data.encoded(official_data.pixels(2, 12, 12), kind)
        for suffix, kind in kinds.items()
    }
    images, warned = prepared(files | {"bee/a_png.jpg": PNG})
    assert len(images.images_of("bee")) == 2 + len(kinds) and warned == []
    found = images.images_of("bee")[2:].astype(int)
    assert np.abs(found - found[0]).mean(axis=(1, 2, 3)).max() < 30


def test_what_is_no_image_is_left_out_and_named(prepared):
    others = ["README.txt", "ant/labels.csv", "ant/no_suffix", "bee/Thumbs.db"]
    images, warned = prepared(dict.fromkeys(others, PNG) | {"ant/.DS_Store": b""})
    assert images.offsets.tolist() == [0, 2, 3]
    (message,) = warned
    assert message.endswith(f"left out, for they are no images: {', '.join(others)}.")
    _, (message,) = prepared({f"ant/{i}.txt": b"" for i in range(10)})
    assert message.endswith("README.txt, ant/0.txt, ant/1.txt, ant/2.txt, ant/3.txt and 9 more.")


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".jxl", ".svg", ".CR2", ".psd"])
def test_images_that_cannot_be_read_are_refused(prepared, suffix):
    with pytest.raises(DatasetError, match=f"ant/x{suffix}.*Convert them to JPEG or PNG"):
        prepared({f"ant/x{suffix}": b"x"})


def test_hidden_folders_are_no_classes(prepared):
    hidden = [".ipynb_checkpoints/a.png", "ant/.ipynb_checkpoints/0.png", "@eaDir/x.png"]
    images, warned = prepared(dict.fromkeys(hidden, PNG))
    assert images.classes == ("ant", "bee") and warned == []


def test_a_nested_folder_is_a_class_by_its_path(prepared):
    images, _ = prepared({"flies/house/0.png": PNG, "flies/fruit/0.png": PNG})
    assert images.classes == ("ant", "bee", "flies/fruit", "flies/house")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"bee/more/0.png": PNG}, "data/bee has images beside folders of images"),
        ({"notes/a.txt": b""}, "data/notes has no images"),
        ({"x.png": PNG}, r"data/x\.png is in no class folder"),
        ({"bee/caf\udce9.png": PNG}, r"the name b'bee/caf\\xe9\.png' is not UTF-8"),
    ],
)
def test_what_is_no_dataset(prepared, tmp_path, files, message):
    with pytest.raises(DatasetError, match=message):
        prepared(files)
    assert os.listdir(tmp_path / "out") == []


def test_an_empty_class_folder_is_named(prepared, tmp_path):
    (tmp_path / "data" / "cat").mkdir(parents=True)
    with pytest.raises(DatasetError, match="data/cat has no images"):
        prepared({})


@pytest.mark.parametrize("kind", ["pipe", "pipe.png"])
def test_a_pipe_is_refused_and_not_waited_for(prepared, tmp_path, kind):
    (tmp_path / "data" / "ant").mkdir(parents=True)
    os.mkfifo(tmp_path / "data" / "ant" / kind)
    with pytest.raises(DatasetError, match=f"'ant/{kind}' is not a plain file"):
        prepared({})


def test_photographs_are_turned_upright(prepared):
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8] = 255
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top is at the left
    Image.fromarray(np.rot90(upright)).save(turned, "JPEG", exif=exif, quality=100)
    images, _ = prepared({"ant/turned.jpg": turned.getvalue()})
    image = images.images_of("ant")[2].astype(int)
    assert image[0].min() > 200 and image[-1].max() < 55


@pytest.mark.parametrize(
    ("path", "name"),
    [("pets", "pets"), ("pets.zip", "pets"), ("pets.tar.gz", "pets"), ("pets.TGZ", "pets")],
)
def test_the_name_is_that_of_the_folder_or_the_archive(tmp_path, monkeypatch, path, name):
    assert FolderDataset(tmp_path / path).name == FolderDataset(str(tmp_path / path)).name == name
    monkeypatch.setenv("HOME", str(tmp_path))
    assert FolderDataset(f"~/{path}").path == tmp_path / path


def test_numpy_integers_are_numbers_and_true_is_not(prepared, tmp_path):
    assert prepared({}, channels=np.int64(1))[0].images.shape == (3, 8, 8, 1)
    dataset = FolderDataset(tmp_path / "data", "again")
    images = prepare(dataset, None, str(tmp_path / "out"), np.int64(8), progress=False)
    assert images.images.shape == (3, 8, 8, 3)
    for size in (True, 8.0, "8", None):
        with pytest.raises(ValueError, match="image_size="):
            prepare(dataset, None, tmp_path / "out", size)
    for channels in (True, 2, "3"):
        with pytest.raises(ValueError, match="channels="):
            FolderDataset(tmp_path, "pets", channels)
