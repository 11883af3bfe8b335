"""Any folder of class folders as a dataset."""

from mmaml_tf.datasets.archives import DatasetError, open_files
from mmaml_tf.datasets.dataset import Dataset, Listing, Part

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")


class FolderDataset(Dataset):
    """Images in one folder (or archive) with a folder for each class.

    Args:
        name: name of the mode.
        place: the folder, relative to the data directory or absolute.
        channels: 3, or 1 to make the images gray.
    """

    def __init__(self, name: str, place: str, channels: int = 3):
        self.name = self.title = name
        self.layouts = ((Part((str(place),)),),)
        self.channels = channels
        self.licence = "It is a folder of your own, with one folder of images for each class"

    def listing(self, paths):
        """See `Dataset.listing`."""
        (path,) = paths
        files = open_files(path)
        names, _ = files.scan(lambda name: False)
        names = [name for name in names if name.lower().endswith(_ENDINGS) and "/" in name]
        if not names:
            raise DatasetError(f"{path} has no images in class folders (class/image.png).")
        images = [(name.rsplit("/", 1)[0], name) for name in names]
        return Listing(images, lambda: files.read(names))
