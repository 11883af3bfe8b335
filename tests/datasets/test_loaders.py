"""Every dataset is read from its official form: names, counts, order and pixels."""

import io
import pickle
import shutil

import numpy as np
import official_data
import pytest
from PIL import Image

from mmaml_tf import datasets
from mmaml_tf.datasets import DatasetError, FolderDataset, prepare


def prepared(name, tmp_path, size=16, **options):
    return prepare(name, tmp_path / "data", tmp_path / "out", size, progress=False, **options)


def resized(array, size):
    return np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("form", ["archive", "folder"])
@pytest.mark.parametrize("name", official_data.MAKERS)
def test_classes_and_counts(name, form, tmp_path):
    expected = official_data.MAKERS[name](tmp_path / "data", form)
    assert datasets.available(tmp_path / "data")[name] is True
    images = prepared(name, tmp_path)
    assert images.classes == tuple(sorted(expected))
    assert {c: len(images.images_of(c)) for c in images.classes} == expected
    assert images.images.shape == (sum(expected.values()), 16, 16, images.channels)
    assert images.images.dtype == np.uint8 and not images.images.flags.writeable
    assert images.channels == (1 if name == "omniglot" else 3)


@pytest.mark.parametrize("name", ["omniglot", "fc100", "cifar_fs", "cub", "aircraft", "flowers"])
def test_an_archive_and_its_folder_give_the_same_images(name, tmp_path):
    digests = set()
    for form in ("archive", "folder"):
        official_data.MAKERS[name](tmp_path / form / "data", form)
        digests.add(prepared(name, tmp_path / form).digest)
    assert len(digests) == 1


def test_omniglot_strokes_are_white_on_black(tmp_path):
    official_data.omniglot(tmp_path / "data")
    images = prepared("omniglot", tmp_path, size=105)
    first = images.images_of("Greek/character01")[0]
    page = np.asarray(Image.open(io.BytesIO(official_data.drawing(18))).convert("L"))
    np.testing.assert_array_equal(first[..., 0], 255 - page)


def test_omniglot_needs_alphabets(tmp_path):
    for half in ("images_background", "images_evaluation"):
        official_data.write_zip(tmp_path / "data" / f"{half}.zip", {f"{half}/1.png": b""})
    with pytest.raises(DatasetError, match=r"images_background/1\.png is not in a folder"):
        prepared("omniglot", tmp_path)


def test_fc100_pools_test_and_train_in_true_colours(tmp_path):
    official_data.cifar100(tmp_path / "data")
    images = prepared("fc100", tmp_path, size=32)
    test, train = official_data.cifar("test")[0], official_data.cifar("train")[0]
    np.testing.assert_array_equal(images.images_of("apple"), [test[1], train[0], train[2]])
    np.testing.assert_array_equal(images.images_of("whale"), [test[0], train[1]])


def test_cifar_fs_has_the_images_of_fc100(tmp_path):
    official_data.cifar100(tmp_path / "data" / "fc100")  # one copy of the files is enough
    fs, fc = prepared("cifar_fs", tmp_path, size=32), prepared("fc100", tmp_path, size=32)
    np.testing.assert_array_equal(fs.images, fc.images)
    assert fs.classes == fc.classes and fs.digest != fc.digest


def test_fc100_without_a_part(tmp_path):
    official_data.cifar100(tmp_path / "data", "folder")
    (tmp_path / "data" / "cifar-100-python" / "test").unlink()
    with pytest.raises(DatasetError, match="holds no test: use CIFAR-100's version for Python"):
        prepared("fc100", tmp_path)


def test_mini_imagenet_pixels_of_the_cached_form(tmp_path):
    official_data.mini_imagenet(tmp_path / "data")
    images = prepared("mini_imagenet", tmp_path, size=84)
    np.testing.assert_array_equal(images.images_of("n03")[1], official_data.pixels(3, 84, 84))
    np.testing.assert_array_equal(images.images_of("n02")[0], official_data.pixels(10, 84, 84))


def test_mini_imagenet_images_may_be_in_an_archive(tmp_path):
    official_data.mini_imagenet(tmp_path / "data", "folder")
    first = prepared("mini_imagenet", tmp_path)
    folder = tmp_path / "data" / "mini-imagenet"
    shutil.make_archive(folder / "images", "zip", folder, "images")
    shutil.rmtree(folder / "images")
    assert prepared("mini_imagenet", tmp_path).digest == first.digest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,class\na,b\n", "first row with filename,label"),
        ("filename,label\nn0100000001.jpg\n", "line 2"),
        ("filename,label\nn0100000001.jpg,n01\nn0100000001.jpg,n01\n", "listed twice"),
    ],
)
def test_mini_imagenet_lists_are_checked(tmp_path, content, message):
    official_data.mini_imagenet(tmp_path / "data", "folder")
    (tmp_path / "data" / "mini-imagenet" / "train.csv").write_text(content)
    with pytest.raises(DatasetError, match=message):
        prepared("mini_imagenet", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        [1],
        {"image_data": np.zeros((2, 84, 84, 3), np.uint8)},
        {"image_data": np.zeros((2, 84, 84, 3), np.float32), "class_dict": {}},
        {"image_data": np.zeros((2, 84, 84, 3), np.uint8), "class_dict": {"n01": [2]}},
        {"image_data": np.zeros((2, 84, 84, 3), np.uint8), "class_dict": {"n01": 2}},
    ],
)
def test_mini_imagenet_cached_content_is_checked(tmp_path, content):
    official_data.mini_imagenet(tmp_path / "data")
    path = tmp_path / "data" / "mini-imagenet" / "mini-imagenet-cache-train.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DatasetError, match=r"mini-imagenet-cache-train\.pkl"):
        prepared("mini_imagenet", tmp_path)


def test_cub_gray_photographs_become_colour(tmp_path):
    official_data.cub(tmp_path / "data")
    image = prepared("cub", tmp_path).images_of("002.Tern")[0].astype(int)
    assert np.ptp(image, axis=2).max() == 0
    assert image.std() > 10


def test_aircraft_banner_is_cut_off(tmp_path):
    official_data.aircraft(tmp_path / "data")
    image = prepared("aircraft", tmp_path, size=40).images_of("707-320")[0].astype(int)
    expected = resized(official_data.pixels(1000001, 60, 50)[:40], 40)
    assert np.abs(image[:-4] - expected[:-4]).mean() < 3
    assert image[-4:].mean() < 245


def test_aircraft_by_trainval_and_test_lists(tmp_path):
    expected = official_data.aircraft(tmp_path / "data", lists=("trainval", "test"))
    images = prepared("aircraft", tmp_path)
    assert {c: len(images.images_of(c)) for c in images.classes} == expected


def test_aircraft_lists_are_checked(tmp_path):
    official_data.aircraft(tmp_path / "data", "folder")
    folder = tmp_path / "data" / "fgvc-aircraft-2013b" / "data"
    (folder / "images_variant_val.txt").write_text("1000001 Zeppelin\n")
    with pytest.raises(DatasetError, match=r"images_variant_val\.txt has the line '1000001 Zepp"):
        prepared("aircraft", tmp_path)
    (folder / "images_variant_val.txt").unlink()
    with pytest.raises(DatasetError, match=r"no images_variant_val\.txt"):
        prepared("aircraft", tmp_path)


def test_flowers_labels_are_checked(tmp_path):
    official_data.flowers(tmp_path / "data")
    path = tmp_path / "data" / "flowers-102" / "imagelabels.mat"
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(DatasetError, match=r"imagelabels\.mat is not a MATLAB file"):
        prepared("flowers", tmp_path)


def test_a_folder_of_class_folders(tmp_path):
    files = {
        "cats/b.png": official_data.encoded(official_data.pixels(1), "PNG"),
        "cats/a.JPG": official_data.encoded(official_data.pixels(2)),
        "cats/notes.txt": b"",
        "dogs/small/c.bmp": official_data.encoded(official_data.pixels(3), "BMP"),
    }
    official_data.write_tree(tmp_path / "pets", files)
    images = prepare(FolderDataset(tmp_path / "pets"), None, tmp_path / "out", 20, progress=False)
    assert images.name == "pets" and images.classes == ("cats", "dogs/small")
    assert images.offsets.tolist() == [0, 2, 3] and images.offsets.dtype == np.int64
    np.testing.assert_array_equal(images.images_of("cats")[1], resized(official_data.pixels(1), 20))
    gray = FolderDataset(tmp_path / "pets", "gray_pets", channels=1)
    assert prepare(gray, None, tmp_path / "out", 20, progress=False).images.shape == (3, 20, 20, 1)


def test_a_folder_is_checked(tmp_path):
    dataset = FolderDataset(tmp_path / "pets")
    with pytest.raises(DatasetError, match=r"pets is not there.*one folder a class"):
        prepare(dataset, None, tmp_path / "out", progress=False)
    official_data.write_tree(tmp_path / "pets", {"readme.md": b""})
    with pytest.raises(DatasetError, match="no images in"):
        prepare(dataset, None, tmp_path / "out", progress=False)
    official_data.write_tree(tmp_path / "pets", {"stray.png": b""})
    with pytest.raises(DatasetError, match=r"stray\.png is in no class folder"):
        prepare(dataset, None, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="name='my pets'"):
        FolderDataset(tmp_path / "my pets")
    with pytest.raises(ValueError, match="channels=4"):
        FolderDataset(tmp_path, "pets", channels=4)


def test_registered_datasets_are_known_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.registry, "DATASETS", dict(datasets.DATASETS))
    files = {"cats/b.png": official_data.encoded(official_data.pixels(1), "PNG")}
    official_data.write_tree(tmp_path / "pets", files)
    datasets.register(FolderDataset(tmp_path / "pets"))
    assert datasets.available(tmp_path)["pets"] is True
    assert prepared("pets", tmp_path).classes == ("cats",)
    with pytest.raises(ValueError, match=r"dataset='birds': omniglot, .*FolderDataset"):
        prepared("birds", tmp_path)


def test_missing_files_are_named_with_their_place(tmp_path):
    found = datasets.available(tmp_path)
    assert set(found) == set(official_data.MAKERS)
    for name, reason in found.items():
        assert reason == datasets.missing(name, tmp_path) != ""
        with pytest.raises(DatasetError) as error:
            prepare(name, tmp_path, tmp_path / "out")
        assert str(error.value) == reason
    assert str(tmp_path / "omniglot" / "images_background.zip") in found["omniglot"]
    assert "download=True" in found["omniglot"]
    assert str(tmp_path / "mini-imagenet" / "train.csv") in found["mini_imagenet"]
    assert "mini-imagenet-cache-val.pkl" in found["mini_imagenet"]


def test_mini_imagenet_is_never_downloaded(tmp_path):
    with pytest.raises(DatasetError, match=r"train\.csv.*ImageNet's terms") as error:
        prepare("mini_imagenet", tmp_path, tmp_path / "out", download=True)
    assert "download=True" not in str(error.value)


def test_the_data_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("MMAML_DATA", raising=False)
    assert str(datasets.data_directory()) == "data"
    monkeypatch.setenv("MMAML_DATA", str(tmp_path))
    assert datasets.data_directory() == tmp_path
    assert str(datasets.data_directory("here")) == "here"
