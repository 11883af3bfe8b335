"""What a dataset is: where its official files lie, which images each class has, how to read them.

A dataset of one's own subclasses `ImageDataset`; a folder of class folders needs no class at all,
see `folder.FolderDataset`.
"""

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmaml_tf.datasets.downloads import download
from mmaml_tf.datasets.errors import DatasetError


class Needed(NamedTuple):
    """One file that a dataset needs.

    Attributes:
        names: accepted names, the archive as distributed first, then its unpacked folder.
        url: where the first of them may be downloaded, if it may.
        md5: the published checksum of that download.
    """

    names: tuple[str, ...]
    url: str = ""
    md5: str = ""


class Counts(NamedTuple):
    """What a part of a dataset holds when it is complete.

    Attributes:
        part: its name.
        classes: number of classes.
        images: number of images; None: any, the same for each class.
    """

    part: str
    classes: int
    images: int | None


class Contents(NamedTuple):
    """What the files of a dataset hold.

    Attributes:
        classes: keys of the images of every class; sorted keys give the order of the images.
        images: returns an iterator of (key, image) over these images in any order. An image is
            its encoded bytes, a uint8 array `[H, W]` or `[H, W, 3]`, or the `DatasetError` that
            says why it cannot be read.
        parts: names of the classes of each part in `ImageDataset.counts`; None: there is one
            part, which has all.
    """

    classes: dict[str, list[str]]
    images: Callable[[], Iterator[tuple[str, bytes | np.ndarray | DatasetError]]]
    parts: dict[str, Collection[str]] | None = None


class ImageDataset:
    """Base of all datasets.

    Attributes:
        name: its name, also as a mode; letters, digits, "-" and "_".
        channels: 1 or 3.
        folders: where its files are sought, below the data directory.
        layouts: sets of files, each of which is enough.
        counts: what its parts hold when they are complete, which `prepare` checks; none where
            any number will do.
        terms: why the files may not be downloaded, where they may not.
    """

    name = ""
    channels = 3
    folders: tuple[str, ...] = ("",)
    layouts: tuple[tuple[Needed, ...], ...] = ()
    counts: tuple[Counts, ...] = ()
    terms = ""

    def read(self, paths: tuple[Path, ...]) -> Contents:
        """Lists the images in files that `locate` found, in the order of the layout."""
        raise NotImplementedError

    def adjust(self, image: Image.Image) -> Image.Image:
        """Changes a decoded image before it is resized; by default not at all."""
        return image

    def locate(self, data_dir) -> tuple[Path, ...] | None:
        """Returns the paths of the first layout that is complete, None if none is."""
        for folder in self.folders:
            for layout in self.layouts:
                paths = tuple(_first(Path(data_dir) / folder, needed.names) for needed in layout)
                if all(paths):
                    return paths
        return None

    def missing(self, data_dir) -> str:
        """Says which files go where, and whether they can be downloaded."""
        folder = Path(data_dir) / self.folders[0]
        layouts = [
            ", ".join(" or ".join(str(folder / name) for name in needed.names) for needed in layout)
            for layout in self.layouts
        ]
        text = f"{self.name}: its files are not there. Put in place {'; or instead '.join(layouts)}"
        if others := [str(Path(data_dir) / other) for other in self.folders[1:]]:
            text += f" (the folder may also be {' or '.join(others)})"
        if self.downloads:
            return f"{text}. Or give download=True to get them from {self.downloads[0].url}."
        return f"{text}. {self.terms or 'They cannot be downloaded by this package.'}"

    @property
    def downloads(self) -> tuple[Needed, ...]:
        """The files of the layout that can be downloaded; empty when there is none."""
        for layout in self.layouts:
            if all(needed.url for needed in layout):
                return layout
        return ()

    def fetch(self, data_dir, progress: bool = True) -> None:
        """Downloads the files that are not there yet.

        Raises:
            DatasetError: when this dataset may not be downloaded, or a download fails.
        """
        if not self.downloads:
            raise DatasetError(self.missing(data_dir))
        folder = Path(data_dir) / self.folders[0]
        for needed in self.downloads:
            if not _first(folder, needed.names):
                download(needed.url, folder / needed.names[0], md5=needed.md5, progress=progress)


def check_name(name: str) -> str:
    """Returns a dataset's name if it can be part of a file name."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(
            f"name={name!r}: use letters, digits, '-' and '_', as in name='my_images'."
        )
    return name


def _first(folder, names):
    return next((folder / name for name in names if (folder / name).exists()), None)
