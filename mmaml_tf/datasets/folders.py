"""Reading the files of a folder."""

import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path

from mmaml_tf.datasets.errors import DatasetError
from mmaml_tf.datasets.tree import Tree, is_hidden


def walk(root: Path) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yields (path with "/", status) of all files and folders below one that are not hidden.

    Links are followed, but for a link to a folder that it lies in itself, which is left out. The
    status is None where a link leads nowhere.

    Raises:
        DatasetError: when a folder cannot be read.
    """
    pending = [("", root, frozenset())]
    while pending:
        prefix, folder, above = pending.pop()
        try:
            status = os.stat(folder)
            entries = sorted(os.listdir(folder))
        except OSError as error:
            raise DatasetError(f"{folder} cannot be read ({error.strerror}).") from error
        above |= {(status.st_dev, status.st_ino)}
        for entry in filter(lambda entry: not is_hidden(entry), entries):
            path = os.path.join(folder, entry)
            try:
                status = os.stat(path)
            except OSError:
                status = None
            if status and stat.S_ISDIR(status.st_mode):
                if (status.st_dev, status.st_ino) in above:
                    continue
                pending.append((f"{prefix}{entry}/", path, above))
            yield prefix + entry, status


class Folder(Tree):
    """A folder as a tree."""

    def _scan(self, keep):
        self._broken = set()
        for name, status in walk(self.path):
            if status is None:
                self._broken.add(name)
                self._add(name, 0)
            elif stat.S_ISDIR(status.st_mode):
                self._add(name, None)
            elif not stat.S_ISREG(status.st_mode):
                raise self._refuse(name, "is not a plain file")
            elif self._add(name, status.st_size) and posixpath.basename(name) in keep:
                yield name, self._content(name)

    def read(self, wanted):
        """Yields (path, content) of the wanted files that are there."""
        for name in sorted(set(wanted) & set(self._sizes)):
            try:
                yield name, self._content(name)
            except FileNotFoundError:
                continue
            except (OSError, DatasetError) as error:
                yield name, DatasetError(str(error))

    def _content(self, name):
        path = self.path / name
        if name in self._broken:
            leads = f"is a link to {os.readlink(path)}" if path.is_symlink() else "is a file"
            raise DatasetError(f"{leads} that cannot be read: repair it, or move it away")
        return path.read_bytes()
