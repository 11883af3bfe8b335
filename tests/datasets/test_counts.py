"""Official datasets are whole, or refused with what they have and should have."""

import re

import official_data
import pytest

from mmaml_tf import datasets
from mmaml_tf.datasets import Counts, DatasetError, prepare

# Classes and images as published; of mini-ImageNet, any equal number of each class.
PUBLISHED = {
    "omniglot": {"images_background": (964, 19280), "images_evaluation": (659, 13180)},
    "mini_imagenet": {"train": (64, None), "val": (16, None), "test": (20, None)},
    "fc100": {"cifar-100-python": (100, 60000)},
    "cifar_fs": {"cifar-100-python": (100, 60000)},
    "cub": {"CUB_200_2011": (200, 11788)},
    "aircraft": {"fgvc-aircraft-2013b": (100, 10000)},
    "flowers": {"imagelabels.mat": (102, 8189)},
}
FOUND = {
    "omniglot": "images_background has 3 classes and 9 images",
    "mini_imagenet": "train has 2 classes and 4 images",
    "fc100": "cifar-100-python has 2 classes and 5 images",
    "cifar_fs": "cifar-100-python has 2 classes and 5 images",
    "cub": "CUB_200_2011 has 2 classes and 8 images",
    "aircraft": "fgvc-aircraft-2013b has 3 classes and 9 images",
    "flowers": "imagelabels.mat has 3 classes and 4 images",
}


@pytest.fixture
def incomplete():
    """Leaves the counts as they are, which the other tests do without."""


@pytest.mark.parametrize("name", official_data.MAKERS)
def test_what_is_not_whole_is_refused(name, tmp_path):
    known = datasets.DATASETS[name].counts
    assert {part: counts for part, *counts in known} == {
        part: list(counts) for part, counts in PUBLISHED[name].items()
    }
    official_data.MAKERS[name](tmp_path / "data")
    classes, images = next(iter(PUBLISHED[name].values()))
    expected = f"{FOUND[name]}, {classes} classes and {images or 'as many images of each'}"
    with pytest.raises(DatasetError, match=re.escape(expected)):
        prepare(name, tmp_path / "data", tmp_path / "out", 8, progress=False)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (Counts("all", 2, 8), None),
        (Counts("all", 2, None), None),
        (Counts("all", 2, 9), "all has 2 classes and 8 images, 2 classes and 9 images"),
        (Counts("all", 1, 8), "all has 2 classes and 8 images, 1 classes and 8 images"),
    ],
)
def test_classes_and_images_are_counted(tmp_path, monkeypatch, counts, message):
    official_data.cub(tmp_path)
    monkeypatch.setattr(datasets.DATASETS["cub"], "counts", (counts,), raising=False)
    if message is None:
        assert len(prepare("cub", tmp_path, tmp_path / "out", 8, progress=False).images) == 8
        return
    with pytest.raises(DatasetError, match=message):
        prepare("cub", tmp_path, tmp_path / "out", 8, progress=False)


def test_classes_of_mini_imagenet_have_equally_many_images(tmp_path, monkeypatch):
    official_data.mini_imagenet(tmp_path, "folder")
    counts = tuple(Counts(part, n, None) for part, n in (("train", 2), ("val", 1), ("test", 1)))
    monkeypatch.setattr(datasets.DATASETS["mini_imagenet"], "counts", counts, raising=False)
    prepare("mini_imagenet", tmp_path, tmp_path / "out", 8, progress=False)
    lines = (tmp_path / "mini-imagenet" / "train.csv").read_text().splitlines()
    (tmp_path / "mini-imagenet" / "train.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(DatasetError, match="train has 2 classes and 3 images"):
        prepare("mini_imagenet", tmp_path, tmp_path / "out", 8, progress=False)
