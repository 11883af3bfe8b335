"""What a dataset's loader tells: which files it needs, its classes, and its images."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmaml_tf.datasets.archives import DatasetError
from mmaml_tf.datasets.downloads import download


class Part(NamedTuple):
    """One file or folder of the official distribution.

    Attributes:
        places: where it may be, relative to the data directory; a download goes to the first.
        url: where it can be downloaded from, or "".
        checksum: the published one, "md5:..." or "sha256:...".
    """

    places: Sequence[str]
    url: str = ""
    checksum: str = ""


class Listing(NamedTuple):
    """The images of a dataset.

    Attributes:
        images: (class, key) of each image; keys order the images of a class.
        read: yields (key, encoded bytes or an array `[H, W, 3]`) of all images, in any order.
    """

    images: Sequence[tuple[str, str]]
    read: Callable[[], Iterator[tuple[str, bytes | np.ndarray]]]


class Dataset:
    """A loader: subclasses say where the files are and list the images in them.

    Attributes:
        name: name of the mode.
        title: its usual name.
        layouts: alternative sets of parts, each enough by itself.
        channels: 3, or 1 for gray images.
        licence: why it cannot be downloaded from here, if so.
    """

    name: str
    title: str
    layouts: Sequence[Sequence[Part]]
    channels = 3
    licence = ""

    def listing(self, paths: Sequence[Path]) -> Listing:
        """Lists the images, given the paths of one layout's parts.

        Raises:
            DatasetError: when the files are damaged or not the official distribution's.
        """
        raise NotImplementedError

    def adjust(self, image: Image.Image) -> Image.Image:
        """Prepares a decoded image before it is resized."""
        return image

    def locate(self, data_directory: Path) -> list[Path] | None:
        """Returns the paths of the first layout that is complete, or None."""
        for layout in self.layouts:
            found = [_first_existing(data_directory, part) for part in layout]
            if all(found):
                return found
        return None

    def missing(self, data_directory: Path) -> str:
        """Returns a message that says which files to put where."""
        ways = []
        for layout in self.layouts:
            lines = [f"  - {data_directory / part.places[0]}" for part in layout]
            ways.append("\n".join(lines))
        may = all(part.url for part in self.layouts[0])
        hint = "or let them be downloaded (download=True)" if may else self.licence
        return (
            f"{self.title} ({self.name}) is not in {data_directory}. Put there, as published,\n"
            + "\nor\n".join(ways)
            + f"\n{hint}."
        )

    def fetch(self, data_directory: Path, progress: bool = True) -> list[Path]:
        """Downloads what is missing of the first layout and returns the paths.

        Raises:
            DatasetError: when it may not be downloaded, or the download fails.
        """
        paths = []
        for part in self.layouts[0]:
            path = _first_existing(data_directory, part)
            if path is None:
                if not part.url:
                    raise DatasetError(self.missing(data_directory))
                path = data_directory / part.places[0]
                download(part.url, path, part.checksum, progress)
            paths.append(path)
        return paths


def sources_digest(paths: Sequence[Path]) -> str:
    """Returns a digest of files and folders that is quick to compute.

    It covers names and sizes of all files, and the first and last megabyte of a file that is a
    part by itself; not the contents of a folder's files.
    """
    sha = hashlib.sha256()
    for path in paths:
        sha.update(f"part {path.name}\n".encode())
        if path.is_dir():
            entries = []
            for folder, _, files in os.walk(path):
                for file in files:
                    full = Path(folder, file)
                    entries.append(f"{full.relative_to(path).as_posix()} {full.stat().st_size}\n")
            sha.update("".join(sorted(entries)).encode())
            continue
        size = path.stat().st_size
        sha.update(f"{size}\n".encode())
        with open(path, "rb") as file:
            sha.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            sha.update(file.read())
    return sha.hexdigest()


def root_of(names: Sequence[str], ending: str, source: Path) -> str:
    """Returns what stands before `ending` in the one name that ends so."""
    found = [name for name in names if f"/{name}".endswith(f"/{ending}")]
    if not found:
        raise DatasetError(f"{source} has no {ending}; it is not the official distribution.")
    return min(found, key=len).removesuffix(ending)


def _first_existing(directory, part):
    return next((directory / p for p in part.places if (directory / p).exists()), None)
