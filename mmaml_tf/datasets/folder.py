"""Any folder of class folders."""

import os
import warnings

from mmaml_tf.arguments import whole_number
from mmaml_tf.datasets import archives
from mmaml_tf.datasets.arguments import user_path
from mmaml_tf.datasets.dataset import Contents, ImageDataset, check_name
from mmaml_tf.datasets.image_files import by_class, list_images


class FolderDataset(ImageDataset):
    """The images in a folder; a class is the path of the folder that holds its images.

    Folders may be nested: images in `my_images/insects/ant/` are of the class "insects/ant". A
    folder must not hold images beside folders of images. A warning names the files that are no
    images; see `image_files` for which are, and for what is hidden.

    Args:
        path: the folder, or a zip or tar of one.
        name: name of the dataset; by default the folder's, or the archive's without its suffix.
        channels: 1 or 3.
    """

    def __init__(self, path, name: str | None = None, channels: int = 3):
        self.path = user_path(path)
        self.name = check_name(_stem(self.path) if name is None else name)
        self.channels = whole_number("channels", channels)
        if self.channels not in (1, 3):
            raise ValueError(f"channels={channels!r}: 1 (gray) or 3 (colour) are possible.")

    def locate(self, data_dir=None):
        """Returns the folder, wherever the data directory is."""
        return (self.path,) if self.path.exists() else None

    def missing(self, data_dir=None):
        """Says that the folder is not there."""
        return f"{self.name}: {self.path} is not there. Give a folder with one folder a class."

    def read(self, paths):
        """Lists all files with an image's suffix."""
        files = list_images(paths[0])
        if message := files.left_out():
            warnings.warn(message, stacklevel=2)
        return Contents(by_class(files), lambda: files.tree.read(files.names))


def _stem(path):
    name = os.path.basename(os.path.abspath(path))
    suffixes = [s for s in archives.SUFFIXES if name.lower().endswith(s) and not path.is_dir()]
    return name[: -max(map(len, suffixes), default=0)] if suffixes else name
