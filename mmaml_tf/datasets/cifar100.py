"""CIFAR-100 (Krizhevsky 2009), whose superclasses make the splits of FC100."""

import numpy as np

from mmaml_tf.datasets import pickles
from mmaml_tf.datasets.archives import DatasetError, open_files
from mmaml_tf.datasets.dataset import Dataset, Listing, Part, root_of


class FC100(Dataset):
    """Reads `cifar-100-python.tar.gz` or its folder; training and test images are pooled.

    A class is a fine label by name, with 600 images in their true colours.
    """

    name = "fc100"
    title = "CIFAR-100 (FC100)"
    layouts = (
        (
            Part(
                ("cifar-100-python.tar.gz", "cifar-100-python", "cifar100/cifar-100-python.tar.gz"),
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                "md5:eb9058c3a382ffc7106e4002c42a8d85",
            ),
        ),
    )

    def listing(self, paths):
        """See `Dataset.listing`."""
        (path,) = paths
        wanted = ("meta", "train", "test")
        names, contents = open_files(path).scan(lambda name: name.split("/")[-1] in wanted)
        root = root_of(names, "meta", path)
        parts = {}
        for part in wanted:
            if root + part not in contents:
                raise DatasetError(f"{path} has no file {part!r}.")
            parts[part] = pickles.loads(contents[root + part], f"{path}: {part}")
        try:
            parts = {part: {_text(k): v for k, v in parts[part].items()} for part in wanted}
            classes = [_text(name) for name in parts["meta"]["fine_label_names"]]
            images, arrays = [], {}
            for part in ("train", "test"):
                pixels = np.asarray(parts[part]["data"], np.uint8).reshape(-1, 3, 32, 32)
                labels = parts[part]["fine_labels"]
                for row, (label, image) in enumerate(zip(labels, pixels, strict=True)):
                    key = f"{part}/{row:05d}"
                    images.append((classes[label], key))
                    arrays[key] = image.transpose(1, 2, 0)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise DatasetError(f"{path} is not CIFAR-100's python version ({error!r}).") from None
        return Listing(images, lambda: iter(arrays.items()))


def _text(value):
    return value.decode() if isinstance(value, bytes) else value
