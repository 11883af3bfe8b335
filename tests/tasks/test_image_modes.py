"""Modes of images in memory."""

import doctest

import numpy as np
import pytest

from mmaml_tf.datasets import PreparedImages
from mmaml_tf.tasks import ClassSplit, ImageMode, ImageTasks, class_split, image_modes
from mmaml_tf.tasks.class_splits import SPLITS

NAMES = ("cat", "dog", "fox", "owl")


def arrays(kind=np.uint8, channels=3, shuffled=True):
    """Images whose bytes are 10 times the number of their class, and its name."""
    labels = np.repeat(np.arange(4), 6)
    if shuffled:
        np.random.default_rng(0).shuffle(labels)
    x = np.broadcast_to((10 * labels)[:, None, None, None], (24, 5, 5, channels))
    x = x.astype(np.uint8)
    return (x if kind == np.uint8 else (x / 255).astype(kind)), np.array(NAMES)[labels]


def made(x=None, y=None, split=(0.5, 0, 0.5), **kwargs):
    default = arrays()
    x, y = default[0] if x is None else x, default[1] if y is None else y
    return ImageMode.from_arrays("animals", x, y, split, **kwargs)


def test_the_examples_run():
    found = doctest.testmod(image_modes)
    assert found.attempted and not found.failed


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_images_keep_their_class(kind):
    mode = made(*arrays(kind))
    assert mode.images.dtype == np.uint8
    for number, name in enumerate(NAMES):
        start, stop = mode.offsets[name]
        assert stop - start == 6 and np.all(mode.images[start:stop] == 10 * number)
    batch = ImageTasks([mode], ways=2, support=2, queries=3).sample(2, seed=0)
    values = np.rint(batch.query_x[..., 0, 0, 0] * 25.5)
    train = {NAMES.index(name) for name in mode.split.train}
    assert set(values.ravel().astype(int)) == train and len(train) == 2


def test_labels_may_be_numbers_and_objects():
    x, y = arrays()
    numbers = np.array([NAMES.index(name) for name in y])
    lists = {"train": [0, 1], "test": [2, 3]}
    mode = made(x, numbers, lists)
    assert mode.split[:3] == (("0", "1"), (), ("2", "3"))
    assert made(x, numbers, ClassSplit.of(["0", "1"], test=["2", "3"])).digest == mode.digest
    assert made(x, y.astype(object)).offsets.keys() == set(NAMES)


def test_the_split_is_a_function_of_the_seed_and_the_names():
    x, y = arrays()
    splits = {made(x, y, seed=seed).split for seed in range(8)}
    assert len(splits) > 1
    assert made(x[::-1], y[::-1]).split == made(x, y).split
    for split in splits:
        assert sorted(split.classes) == sorted(NAMES) and len(split.train) == 2


def test_the_digest_follows_images_and_classes():
    x, y = arrays()
    other = x.copy()
    other[3, 2, 2, 1] += 1
    digests = {mode.digest for mode in (made(), made(other), made(x, np.char.upper(y)))}
    assert len(digests) == 3
    assert made(x.astype(np.float32) / 255).digest == made().digest


@pytest.mark.parametrize("name", SPLITS)
def test_every_prepared_dataset_is_a_mode(name):
    classes = tuple(sorted(class_split(name).classes))
    images = np.zeros((2 * len(classes), 5, 5, 3), np.uint8)
    offsets = np.arange(0, 2 * len(classes) + 1, 2)
    mode = ImageMode.of(PreparedImages(name, images, classes, offsets, 5, 3, "digest", "sha256"))
    assert mode.name == name and mode.rotated == (name == "omniglot")
    for part in ("train", "validation", "test"):
        tasks = ImageTasks([mode], ways=5, support=1, queries=1, split=part)
        assert tasks.sample(2, seed=0).query_x.shape == (2, 5, 5, 5, 3)


X, Y = arrays()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": X[..., 0]}, r"x has shape \(24, 5, 5\); expected images \[n, H, W, C\].*Gray"),
        ({"x": np.concatenate([X, X], -1)}, "with 1 or 3 channels"),
        ({"x": X[:0], "y": Y[:0]}, "x has shape"),
        ({"x": X.astype(np.int64)}, "x has type int64; expected uint8"),
        ({"x": X.astype(np.float32)}, "values from 0 to 30; .*Divide by 255"),
        ({"x": np.full(X.shape, np.nan)}, "values from nan"),
        ({"x": X / 255 - 0.5}, "values from -0.5"),
        ({"y": Y[:-1]}, r"y has shape \(23,\) .* each of the 24 images"),
        ({"y": np.eye(4)[[0] * 24]}, r"y has shape \(24, 4\)"),
        ({"y": np.zeros(24)}, "type float64; .*strings or whole numbers"),
        ({"y": [None] * 24}, "type object"),
        ({"split": (0.5, 0.6, 0.5)}, "three shares .* that sum to 1"),
        ({"split": (1.5, -0.5, 0)}, "three shares"),
        ({"split": "train"}, "three shares"),
        ({"split": {"train": ["cat"]}}, "the split misses class 'dog' and 2 more: list"),
        (
            {"split": {"train": NAMES, "test": ["elk"]}},
            "the split lists class 'elk': it has no data",
        ),
        ({"split": {"train": NAMES, "test": ["cat"]}}, "class 'cat' is listed under train and"),
        ({"split": {"train": NAMES, "val": []}}, r"parts \['val'\]; expected some of"),
        ({"split": {"train": "cat"}}, "the train split is a string"),
        ({"seed": 0.5}, "seed=0.5"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        made(**change)


def test_a_mode_has_a_name():
    with pytest.raises(ValueError, match="name=''"):
        ImageMode.from_arrays("", *arrays())


def test_classes_with_too_few_images_are_named():
    with pytest.raises(ValueError, match=r"mode 'animals', class '.*' has 6 images"):
        ImageTasks([made()], ways=2, support=3, queries=4)
