"""VGG Flowers-102 (Nilsback and Zisserman 2008)."""

import io
import re

import scipy.io

from mmaml_tf.datasets.archives import DatasetError, open_files
from mmaml_tf.datasets.dataset import Dataset, Listing, Part
from mmaml_tf.tasks.class_splits import class_split

_URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"


class Flowers(Dataset):
    """Reads `102flowers.tgz` or its folder `jpg`, and `imagelabels.mat`.

    A class is "NNN.name", the label's number and the flower's name.
    """

    name = "flowers"
    title = "VGG Flowers-102"
    layouts = (
        (
            Part(
                ("flowers-102/102flowers.tgz", "flowers-102/jpg", "102flowers.tgz"),
                f"{_URL}102flowers.tgz",
                "md5:52808999861908f626f3c1f4e79d11fa",
            ),
            Part(
                ("flowers-102/imagelabels.mat", "imagelabels.mat"),
                f"{_URL}imagelabels.mat",
                "md5:e0620be6f572b9609742df49c70aed4d",
            ),
        ),
    )

    def listing(self, paths):
        """See `Dataset.listing`."""
        archive, labels_path = paths
        try:
            labels = scipy.io.loadmat(io.BytesIO(labels_path.read_bytes()))["labels"].reshape(-1)
        except (KeyError, ValueError, TypeError, OSError, NotImplementedError) as error:
            raise DatasetError(f"{labels_path} has no labels ({error!r}).") from None
        split = class_split(self.name)
        classes = {int(name[:3]): name for part in split[:3] for name in part}
        if set(labels.tolist()) - set(classes):
            raise DatasetError(f"{labels_path} has labels beyond 1 to {len(classes)}.")
        files = open_files(archive)
        names, _ = files.scan(lambda name: False)
        stored = {}
        for name in names:
            if match := re.search(r"(?:^|/)image_(\d{5})\.jpg$", name):
                stored[int(match[1])] = name
        absent = [i for i in range(1, len(labels) + 1) if i not in stored]
        if absent:
            shown = ", ".join(f"image_{i:05d}.jpg" for i in absent[:10])
            raise DatasetError(f"{archive} lacks {len(absent)} images that have labels: {shown}.")
        images = [(classes[int(label)], stored[i]) for i, label in enumerate(labels, start=1)]
        return Listing(images, lambda: files.read([key for _, key in images]))
