"""mini-ImageNet (Vinyals et al. 2016; classes of Ravi and Larochelle 2017)."""

import csv
import io

import numpy as np

from mmaml_tf.datasets import pickles
from mmaml_tf.datasets.archives import DatasetError, open_files
from mmaml_tf.datasets.dataset import Dataset, Listing, Part

_SPLITS = ("train", "val", "test")


class MiniImageNet(Dataset):
    """Reads a folder of images with the lists of Ravi and Larochelle, or the cached pickles.

    A class is a WordNet id. The pickles are those of 84×84 images that are in wide use, one for
    each split, with `image_data` and `class_dict`.
    """

    name = "mini_imagenet"
    title = "mini-ImageNet"
    licence = "ImageNet's terms do not allow it to be downloaded from here"
    layouts = (
        (
            Part(("mini-imagenet/images", "mini-imagenet/images.zip", "mini-imagenet/images.tar")),
            *(Part((f"mini-imagenet/{split}.csv",)) for split in _SPLITS),
        ),
        tuple(
            Part((f"mini-imagenet/{file}", file))
            for file in (f"mini-imagenet-cache-{split}.pkl" for split in _SPLITS)
        ),
    )

    def listing(self, paths):
        """See `Dataset.listing`."""
        return _of_pickles(paths) if len(paths) == len(_SPLITS) else _of_lists(*paths)


def _of_lists(folder, *lists):
    images = []
    for path in lists:
        rows = list(csv.reader(io.StringIO(path.read_text())))
        if not rows or rows[0] != ["filename", "label"]:
            raise DatasetError(f"{path} does not begin with the header filename,label.")
        wrong = next((i for i, row in enumerate(rows, 1) if len(row) != 2), None)
        if wrong:
            raise DatasetError(f"{path} line {wrong}: expected two values, filename,label.")
        images += [(label, filename) for filename, label in rows[1:]]
    files = open_files(folder)
    names, _ = files.scan(lambda name: False)
    stored = {name.rsplit("/", 1)[-1]: name for name in names}
    absent = [key for _, key in images if key not in stored]
    if absent:
        shown = ", ".join(absent[:10])
        raise DatasetError(f"{folder} lacks {len(absent)} images that the lists name: {shown}.")

    def read():
        for name, content in files.read([stored[key] for _, key in images]):
            yield name.rsplit("/", 1)[-1], content

    return Listing(images, read)


def _of_pickles(paths):
    images, arrays = [], {}
    for path in paths:
        content = pickles.loads(path.read_bytes(), str(path))
        try:
            data, rows_of = np.asarray(content["image_data"]), dict(content["class_dict"])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{path} has no image_data and class_dict ({error!r}).") from None
        if data.ndim != 4 or data.dtype != np.uint8 or data.shape[3] != 3:
            raise DatasetError(
                f"{path}: image_data is {data.dtype} of shape {data.shape}; expected bytes "
                "[n, 84, 84, 3]."
            )
        for label, rows in rows_of.items():
            if not all(0 <= row < len(data) for row in rows):
                raise DatasetError(f"{path}: class {label!r} names rows beyond {len(data)}.")
            for row in rows:
                images.append((str(label), f"{path.name}/{int(row):06d}"))
                arrays[images[-1][1]] = data[row]
    return Listing(images, lambda: iter(arrays.items()))
