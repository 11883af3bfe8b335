"""Opening a folder or an archive, whichever it is, by its content."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Collection

from mmaml_tf.datasets.arguments import user_path
from mmaml_tf.datasets.errors import DatasetError
from mmaml_tf.datasets.folders import Folder
from mmaml_tf.datasets.signatures import describe
from mmaml_tf.datasets.tars import Tar
from mmaml_tf.datasets.tree import LIMITS, Limits, Tree
from mmaml_tf.datasets.zips import Zip

#: suffixes of the archives that are read
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

_ZIP = b"PK"
_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


def open_tree(path, keep: Collection[str] = (), limits: Limits = LIMITS) -> Tree:
    """Lists the files of a folder, a zip, or a tar, which may be compressed by gzip, bzip2 or xz.

    Nothing is unpacked to disk. Members with paths that lead out of the archive, links in it,
    special files, and members that unpack to more than `Limits` allows are refused before they are
    read. Of a folder, links are followed. Hidden files and folders are left out, see
    `tree.is_hidden`.

    Args:
        path: the folder or archive.
        keep: names of small files whose content `Tree.text` is asked for.
        limits: what it may hold.

    Raises:
        DatasetError: when it is not there, is something else, is damaged or holds anything that is
            refused.
    """
    path = user_path(path)
    if path.is_dir():
        return Folder(path, keep, limits)
    if path.exists() and not path.is_file():
        raise DatasetError(f"{path} is no folder and no archive: it is not a plain file.")
    try:
        with open(path, "rb") as file:
            head = file.read(tarfile.BLOCKSIZE)
    except OSError as error:
        raise DatasetError(f"{path} is no folder that can be read: {error.strerror}.") from error
    for start, unpack in _COMPRESSED.items():
        if _starts(head, start):
            return Tar(path, keep, limits, unpack)
    if _starts(head, _ZIP):
        return Zip(path, keep, limits)
    if _is_tar(head):
        return Tar(path, keep, limits, lambda file: file)
    raise DatasetError(
        f"{path} is no folder and no archive that can be read ({', '.join(SUFFIXES)}): it is "
        f"{describe(head)}. Get it again, or unpack it and give the folder."
    )


def _starts(head, start):
    """Tells whether a file begins so, or would if it were not cut off at once."""
    return head.startswith(start) or (0 < len(head) < len(start) and start.startswith(head))


def _is_tar(head):
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:
        return True  # one without members
    except tarfile.HeaderError:
        return head[257:262] == b"ustar"
    return True
