"""Which files of a folder or an archive are images, and which classes they make.

One rule for `FolderDataset` and the command `classify`:

- A file is an image by its suffix, whatever its case. A file that looks like an image of a format
  that cannot be read, such as .heic, is an error; all others are listed as left out.
- A class is the path of a folder that holds images, such as "ant" or, of nested folders,
  "insects/ant". Each folder holds images, or folders that do.
- What is hidden is no part of this, see `tree.is_hidden`.
"""

import posixpath
from typing import NamedTuple

from mmaml_tf.datasets.archives import open_tree
from mmaml_tf.datasets.arguments import some
from mmaml_tf.datasets.errors import DatasetError
from mmaml_tf.datasets.tree import Tree

#: suffixes of the files that are taken for images
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif",
    ".tiff", ".mpo", ".avif", ".jp2", ".j2k", ".pbm", ".pgm", ".ppm", ".pnm",
)  # fmt: skip
# Images all the same, of cameras and of programs to draw with.
_UNREADABLE = (
    ".heic", ".heif", ".hif", ".jxl", ".jxr", ".jpx", ".raw", ".dng", ".cr2", ".cr3",
    ".nef", ".arw", ".orf", ".rw2", ".raf", ".svg", ".eps", ".psd", ".xcf", ".ai", ".tga", ".ico",
    ".pcx", ".exr", ".hdr", ".pfm", ".dcm",
)  # fmt: skip


class ImageFiles(NamedTuple):
    """The image files of a folder or an archive.

    Attributes:
        tree: reads them.
        names: their paths, sorted.
        others: paths of the files that are no images.
    """

    tree: Tree
    names: tuple[str, ...]
    others: tuple[str, ...]

    def left_out(self) -> str:
        """Says which files are no images; empty when all are."""
        if not self.others:
            return ""
        return f"{self.tree.path}: left out, for they are no images: {some(self.others)}."


def list_images(path) -> ImageFiles:
    """Lists the images of a folder, a zip or a tar, at any depth.

    Raises:
        DatasetError: when it cannot be read, holds images of a format that cannot, or a folder
            without images.
    """
    tree = open_tree(path)
    if unreadable := [name for name in tree.names if name.lower().endswith(_UNREADABLE)]:
        raise DatasetError(
            f"{path} has images of a format that cannot be read: {some(unreadable)}. Convert them "
            "to JPEG or PNG, or move them away."
        )
    names = tuple(name for name in tree.names if name.lower().endswith(SUFFIXES))
    above = {parent for name in names for parent in _parents(name)}
    if empty := [name for name in tree.folders if name not in above]:
        raise DatasetError(
            f"{path}/{empty[0]} has no images (.jpg, .png and the like); add some, or move it away."
        )
    return ImageFiles(tree, names, tuple(sorted(set(tree.names) - set(names))))


def by_class(files: ImageFiles) -> dict[str, list[str]]:
    """Returns the images of each class.

    Raises:
        DatasetError: when an image is in no folder, or beside folders of images.
    """
    path, classes = files.tree.path, {}
    for name in files.names:
        folder = posixpath.dirname(name)
        if not folder:
            raise DatasetError(f"{path}/{name} is in no class folder; move it into one, or away.")
        classes.setdefault(folder, []).append(name)
    above = {parent for name in classes for parent in _parents(name)}
    if mixed := sorted(above & set(classes)):
        raise DatasetError(
            f"{path}/{mixed[0]} has images beside folders of images: is it one class, or several? "
            "Put all images of a class into one folder."
        )
    return classes


def _parents(path):
    """Yields the folders that a file or a folder lies in."""
    while path := posixpath.dirname(path):
        yield path
