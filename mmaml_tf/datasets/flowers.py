"""VGG Flowers-102: 102 classes, 8,189 photographs."""

import io
import posixpath
import re

import numpy as np

from mmaml_tf.datasets.archives import open_tree
from mmaml_tf.datasets.dataset import Contents, Counts, ImageDataset, Needed
from mmaml_tf.datasets.errors import DatasetError

_SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_NAME = "image_{:05d}.jpg"


class Flowers(ImageDataset):
    """A class is its label and name, such as "001.pink primrose".

    Files: `102flowers.tgz` or its folder `jpg`, and `imagelabels.mat`.
    """

    name = "flowers"
    folders = ("flowers-102", "flowers", ".")
    layouts = (
        (
            Needed(
                ("102flowers.tgz", "jpg"),
                f"{_SITE}102flowers.tgz",
                "52808999861908f626f3c1f4e79d11fa",
            ),
            Needed(
                ("imagelabels.mat",),
                f"{_SITE}imagelabels.mat",
                "e0620be6f572b9609742df49c70aed4d",
            ),
        ),
    )
    counts = (Counts("imagelabels.mat", 102, 8189),)

    def read(self, paths):
        """Lists the images that have a label: the n-th label is that of image n."""
        # The official files know the classes by number only; the class lists have the names.
        from mmaml_tf.tasks.class_splits import class_split

        names = sorted(class_split("flowers").classes)
        tree, labels = open_tree(paths[0]), _labels(paths[1])
        classes = {}
        for number, label in enumerate(labels, start=1):
            if not 1 <= label <= len(names):
                raise DatasetError(f"{paths[1]}: label {label} of image {number}, 1 to 102 known.")
            classes.setdefault(names[label - 1], []).append(_NAME.format(number))
        members = {name: posixpath.basename(name) for name in tree.names}
        members = {n: key for n, key in members.items() if re.fullmatch(r"image_\d+\.jpg", key)}

        def images():
            for name, content in tree.read(members):
                yield members[name], content

        return Contents(classes, images)


def _labels(path):
    from scipy.io import loadmat

    try:
        labels = np.asarray(loadmat(io.BytesIO(path.read_bytes()))["labels"]).ravel()
        return [int(label) for label in labels]
    except Exception as error:
        # A damaged file can fail in any way.
        raise DatasetError(
            f"{path} is not a MATLAB file with labels ({type(error).__name__}: {error}): get it "
            "again."
        ) from error
