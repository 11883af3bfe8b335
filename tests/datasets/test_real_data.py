"""The real datasets, where they are at hand: counts, classes and the versioned class lists."""

import os
import time

import numpy as np
import pytest

from mmaml_tf import datasets
from mmaml_tf.tasks.class_splits import SPLITS, class_split

pytestmark = pytest.mark.skipif(
    not os.environ.get("MMAML_DATA"), reason="MMAML_DATA does not say where the datasets are"
)

CLASSES = {
    "omniglot": 1623,
    "mini_imagenet": 100,
    "fc100": 100,
    "cifar_fs": 100,
    "cub": 200,
    "aircraft": 100,
    "flowers": 102,
}
# Images of the whole dataset; of mini-ImageNet any equal number a class is passed on.
IMAGES = {
    "omniglot": 32460,
    "fc100": 60000,
    "cifar_fs": 60000,
    "cub": 11788,
    "flowers": 8189,
    "aircraft": 10000,
}


@pytest.mark.parametrize("name", CLASSES)
def test_prepared_at_28_pixels(name, tmp_path, record_property):
    reason = datasets.available()[name]
    if reason is not True:
        pytest.skip(reason)
    start = time.perf_counter()
    images = datasets.prepare(name, None, tmp_path, 28, progress=False)
    seconds = time.perf_counter() - start
    record_property("seconds", seconds)
    print(f"\n{name}: {len(images.images)} images prepared in {seconds:.1f} s")
    assert len(images.classes) == CLASSES[name]
    assert len(images.images) == IMAGES.get(name, len(images.images))
    counts = np.diff(images.offsets)
    if name not in ("cub", "flowers"):
        assert len(set(counts)) == 1
    for split in SPLITS[name]:
        assert sorted(class_split(name, split).classes) == list(images.classes)
    # No image is blank, and Omniglot is mostly background.
    sample = images.images[:: max(1, len(images.images) // 500)]
    assert (sample.reshape(len(sample), -1).std(axis=1) > 1).all()
    assert (sample.mean() < 64) == (name == "omniglot")
