"""Telling whether the files of a dataset have changed, and recording what they were."""

import hashlib
import json
import os
import stat
from pathlib import Path

from mmaml_tf.datasets.dataset import ImageDataset
from mmaml_tf.datasets.downloads import file_digest
from mmaml_tf.datasets.errors import DatasetError
from mmaml_tf.datasets.folders import walk
from mmaml_tf.datasets.image_files import SUFFIXES

_WHOLE = 256 << 20
_END = 1 << 20


def fingerprint(paths: tuple[Path, ...]) -> str:
    """Returns a digest that is cheap, to be compared on every run.

    It holds names, not where they lie; sizes; and the content of files up to 256 MiB. Of a larger
    file it holds the first and the last MiB, which in zip and gzip include checksums of the rest.
    What is hidden in a folder is left out. Of images in a folder it holds names and sizes only: an
    image exchanged for another of exactly as many bytes goes unnoticed.

    Raises:
        DatasetError: when one cannot be read.
    """
    entries = []
    for path in paths:
        if path.is_dir():
            entries += [[path.name, *entry] for entry in _folder(path)]
        elif not path.is_file():
            raise DatasetError(f"{path} is not a plain file: move it away, or get it again.")
        else:
            entries.append([path.name, path.stat().st_size, _sample(path)])
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def record(dataset: ImageDataset, paths: tuple[Path, ...]) -> list[dict]:
    """Describes the files that the images come from.

    A file is known by its SHA-256, and by whether it has the published checksum; it need not,
    since rebuilt archives are used too.
    """
    published = {n.names[0]: n.md5 for layout in dataset.layouts for n in layout if n.md5}
    records = []
    for path in paths:
        entry = {"name": path.name}
        if path.is_file():
            entry |= {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            if path.name in published:
                entry["as_published"] = file_digest(path, "md5") == published[path.name]
        records.append(entry)
    return records


def _folder(folder):
    for name, status in sorted(walk(folder), key=lambda entry: entry[0]):
        if not stat.S_ISREG(status.st_mode):
            yield name, 0, ""
        else:
            image = name.lower().endswith(SUFFIXES)
            yield name, status.st_size, "" if image else _sample(folder / name)


def _sample(path):
    if path.stat().st_size <= _WHOLE:
        return file_digest(path)
    with open(path, "rb") as file:
        start = file.read(_END)
        file.seek(-_END, os.SEEK_END)
        return hashlib.sha256(start + file.read()).hexdigest()
