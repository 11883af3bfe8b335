"""Reading the files of a folder."""

import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path

from mmaml_tf.datasets.errors import DatasetError
from mmaml_tf.datasets.tree import Tree, is_hidden


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yields (path with "/", status) of all files and folders below one that are not hidden.

    Links are followed, but for a link to a folder that it lies in itself, which is left out.

    Raises:
        DatasetError: when a folder cannot be read, or a link leads nowhere.
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
            except OSError as error:
                what = f"is a link to {os.readlink(path)}, which " if os.path.islink(path) else ""
                raise DatasetError(
                    f"{path} {what}cannot be read ({error.strerror}): repair it, or move it away."
                ) from error
            if stat.S_ISDIR(status.st_mode):
                if (status.st_dev, status.st_ino) in above:
                    continue
                pending.append((f"{prefix}{entry}/", path, above))
            yield prefix + entry, status


class Folder(Tree):
    """A folder as a tree."""

    def _scan(self, keep):
        for name, status in walk(self.path):
            if stat.S_ISDIR(status.st_mode):
                self._add(name, None)
            elif not stat.S_ISREG(status.st_mode):
                raise self._refuse(name, "is not a plain file")
            elif self._add(name, status.st_size) and posixpath.basename(name) in keep:
                yield name, (self.path / name).read_bytes()

    def read(self, wanted):
        """Yields (path, content) of the wanted files that are there."""
        for name in sorted(set(wanted) & set(self._sizes)):
            try:
                yield name, (self.path / name).read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                yield name, DatasetError(str(error))
