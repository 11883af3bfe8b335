"""Any folder of class folders."""

import posixpath
from pathlib import Path

from mmaml_tf.datasets.archives import open_tree
from mmaml_tf.datasets.dataset import Contents, ImageDataset, check_name
from mmaml_tf.datasets.decoding import SUFFIXES
from mmaml_tf.datasets.errors import DatasetError


class FolderDataset(ImageDataset):
    """The images in a folder; a class is the path of the folder that holds its images.

    Args:
        path: the folder (or a zip or tar of one).
        name: name of the dataset; the folder's by default.
        channels: 1 or 3.
    """

    def __init__(self, path, name: str | None = None, channels: int = 3):
        self.path = Path(path)
        self.name = check_name(self.path.name if name is None else name)
        if channels not in (1, 3):
            raise ValueError(f"channels={channels!r}: 1 (gray) or 3 (colour) are possible.")
        self.channels = channels

    def locate(self, data_dir=None):
        """Returns the folder, wherever the data directory is."""
        return (self.path,) if self.path.exists() else None

    def missing(self, data_dir=None):
        """Says that the folder is not there."""
        return f"{self.name}: {self.path} is not there. Give a folder with one folder a class."

    def read(self, paths):
        """Lists all files with an image's suffix."""
        tree = open_tree(paths[0])
        names = [name for name in tree.names if name.lower().endswith(SUFFIXES)]
        classes = {}
        for name in names:
            if "/" not in name:
                raise DatasetError(
                    f"{tree.path}: {name} is in no class folder. Move it into one, or away."
                )
            classes.setdefault(posixpath.dirname(name), []).append(name)
        return Contents(classes, lambda: tree.read(names))
