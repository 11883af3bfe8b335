"""The files of a folder or an archive, seen alike; the modules beside this one read each kind."""

import posixpath
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from mmaml_tf.datasets.errors import DatasetError

# Folders that systems and file servers keep for themselves.
_SYSTEM = (
    "__macosx", "__pycache__", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin",
    "system volume information", "lost+found",
)  # fmt: skip
# Absolute, on a drive of Windows too, or above the archive.
_OUTSIDE = re.compile(r"/|[A-Za-z]:/|\.\.(/|$)")


class Limits(NamedTuple):
    """What a folder or an archive may hold.

    Attributes:
        members: number of files and folders.
        member: unpacked bytes of one file.
        total: unpacked bytes of all files.
        ratio: unpacked bytes for each byte of the archive.
    """

    members: int = 2_000_000
    member: int = 1 << 30
    total: int = 64 << 30
    ratio: int = 200


LIMITS = Limits()


def is_hidden(name: str) -> bool:
    """Tells whether a file or folder is left out for its name.

    These are names with a leading dot, such as ".ipynb_checkpoints", and those which systems give
    to folders of their own, such as "__MACOSX" and "$RECYCLE.BIN".
    """
    return name.startswith(".") or name.lower() in _SYSTEM


class Tree:
    """The files of a folder or of an archive, without hidden ones; `open_tree` makes it.

    Attributes:
        path: the folder or archive.
        names: its files' paths with "/" between the parts, sorted.
        folders: its folders' paths likewise; empty ones too.
    """

    def __init__(self, path: Path, keep: Collection[str], limits: Limits):
        self.path = path
        self._limits = limits
        self._sizes = {}
        self._folders = set()
        self._total = 0
        self._seen = 0
        self._kept = dict(self._scan(frozenset(keep)))
        self.names = tuple(sorted(self._sizes))
        self.folders = tuple(sorted(self._folders | set(map(posixpath.dirname, self.names)) - {""}))

    def text(self, name: str) -> tuple[str, str]:
        """Returns the folder and the content of the one file with this name, a kept one.

        Raises:
            DatasetError: when there is none or more than one.
        """
        found = [member for member in self._kept if posixpath.basename(member) == name]
        if len(found) != 1:
            raise DatasetError(
                f"{self.path} holds {', '.join(sorted(found)) or 'no'} {name}, exactly one is "
                "expected: is this the distribution as published?"
            )
        content = self._kept[found[0]]
        try:
            return posixpath.dirname(found[0]), content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DatasetError(f"{self.path}: {found[0]} is not a text file ({error}).") from error

    def has(self, name: str) -> bool:
        """Tells whether a file with this name was kept."""
        return any(posixpath.basename(member) == name for member in self._kept)

    def read(self, wanted: Collection[str]) -> Iterator[tuple[str, bytes | DatasetError]]:
        """Yields (path, content) of the wanted files that are there, in any order.

        The content is an error where that file alone is damaged.
        """
        raise NotImplementedError

    def _scan(self, keep):
        """Lists all files with `_add`; yields (path, content) of those with a name in `keep`."""
        raise NotImplementedError

    def _add(self, name, size):
        """Checks a file or, where size is None, a folder; tells whether it counts."""
        self._seen += 1
        if self._seen > self._limits.members:
            raise DatasetError(f"{self.path} holds more than {self._limits.members:,} members.")
        if name == "." and size is None:
            return False  # the folder that everything lies in
        if name == "." or name in self._sizes or (size is not None and name in self._folders):
            raise self._refuse(name, "is there twice")
        if (size or 0) > self._limits.member:
            raise self._refuse(name, f"has {size:,} bytes, at most {self._limits.member:,} allowed")
        self._total += size or 0
        if self._total > self._limits.total:
            raise self._refuse(
                name, f"brings the unpacked size above the {self._limits.total:,} bytes allowed"
            )
        if any(map(is_hidden, name.split("/"))):
            return False
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = name.encode(errors="surrogateescape")
            raise DatasetError(
                f"{self.path}: the name {shown!r} is not UTF-8. Rename it, or move it away."
            ) from None
        if size is None:
            self._folders.add(name)
        else:
            self._sizes[name] = size
        return True

    def _refuse(self, member, why):
        return DatasetError(
            f"{self.path}: member {member!r} {why}. Refused: remove it, or get the files from "
            "their official source."
        )


class Archive(Tree):
    """A tree in one file. Nothing of it is unpacked to disk, and none of it is trusted."""

    def _inside(self, name):
        """Returns a member's path, normalised; some tools of Windows write backslashes."""
        normal = posixpath.normpath(name.replace("\\", "/"))
        if _OUTSIDE.match(normal) or "\0" in name:
            raise self._refuse(name, "has a path that leads out of the archive")
        return normal

    def _damaged(self, error):
        return DatasetError(
            f"{self.path} is truncated or damaged ({type(error).__name__}: {error}): get it again."
        )
