"""CIFAR-100 for few-shot learning: its training and test images pooled, 600 of each of 100 classes.

FC100 and CIFAR-FS are the same images; they differ in which classes are for what.
"""

import io
import posixpath

import numpy as np

from mmaml_tf.datasets.archives import open_tree
from mmaml_tf.datasets.dataset import Contents, Counts, ImageDataset, Needed
from mmaml_tf.datasets.errors import DatasetError
from mmaml_tf.datasets.pickles import load_pickle, named, text

_PARTS = ("train", "test")


class _CIFAR100(ImageDataset):
    folders = ("cifar100", "fc100", "cifar_fs", ".")
    layouts = (
        (
            Needed(
                ("cifar-100-python.tar.gz", "cifar-100-python"),
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                "eb9058c3a382ffc7106e4002c42a8d85",
            ),
        ),
    )
    counts = (Counts("cifar-100-python", 100, 60000),)

    def read(self, paths):
        """Reads both pickles: 184 MB."""
        tree = open_tree(paths[0])
        pickles = _pickles(tree)
        names = named(pickles["meta"], "fine_label_names", name=f"{tree.path}: meta")[0]
        classes, pixels = {}, {}
        for part in _PARTS:
            where = f"{tree.path}: {part}"
            data, labels = named(pickles.pop(part), "data", "fine_labels", name=where)
            if getattr(data, "shape", None) != (len(labels), 3072) or data.dtype != np.uint8:
                raise DatasetError(f"{where}: data are not uint8 [{len(labels)}, 3072].")
            pixels[part] = data.reshape(-1, 3, 32, 32)
            for row, label in enumerate(labels):
                if label not in range(len(names)):
                    raise DatasetError(f"{where}: row {row} has label {label}, of {len(names)}.")
                classes.setdefault(text(names[label]), []).append(f"{part}/{row:05d}")

        def images():
            for part in _PARTS:
                for row, image in enumerate(pixels[part]):
                    yield f"{part}/{row:05d}", np.ascontiguousarray(image.transpose(1, 2, 0))

        return Contents(classes, images)


class FC100(_CIFAR100):
    """CIFAR-100, divided by superclass (Oreshkin et al. 2018); a class is a fine label.

    Files: `cifar-100-python.tar.gz` (the version for Python) or its folder.
    """

    name = "fc100"


class CIFARFS(_CIFAR100):
    """CIFAR-100, divided at random into 64, 16 and 20 classes (Bertinetto et al. 2019).

    A class is a fine label. The files are those of `FC100`.
    """

    name = "cifar_fs"


def _pickles(tree):
    """Loads train, test and meta, each of which must be there once."""
    members = {name: posixpath.basename(name) for name in tree.names}
    members = {name: part for name, part in members.items() if part in (*_PARTS, "meta")}
    found = {}
    for name, content in tree.read(members):
        if isinstance(content, DatasetError):
            raise DatasetError(f"{tree.path}: {name} is {content}.")
        found[members[name]] = load_pickle(io.BytesIO(content), f"{tree.path}: {name}")
    if absent := {*_PARTS, "meta"} - set(found):
        raise DatasetError(
            f"{tree.path} holds no {', '.join(sorted(absent))}: use CIFAR-100's version for Python."
        )
    return found
