"""Files of a folder, a zip or a tar archive, read one by one without unpacking to disk.

Archives come from the network, so nothing in them is trusted: a member that points outside, is
no plain file, or unpacks to more than can be meant is an error that names it.
"""

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath

_MOST_MEMBERS = 2_000_000
_MOST_BYTES = 64 << 30
_MOST_MEMBER_BYTES = 4 << 30
# Images and text compress by far less; only a member of some size is judged by it.
_MOST_RATIO = 200
_RATIO_COUNTS_FROM = 10 << 20


class DatasetError(Exception):
    """A dataset is missing or damaged; the message says what is expected and what to do."""


class Files:
    """The plain files of a folder or an archive, by their names with forward slashes."""

    def __init__(self, path: Path):
        self.path = path

    def scan(self, wanted: Callable[[str], bool]) -> tuple[list[str], dict[str, bytes]]:
        """Returns all names, sorted, and the contents of those that are wanted.

        Raises:
            DatasetError: for an archive that is damaged or unsafe.
        """
        raise NotImplementedError

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yields the names and contents of these files, in any order."""
        raise NotImplementedError


class Folder(Files):
    """The files of a folder; links in it are followed, being the user's own."""

    def scan(self, wanted):
        """See `Files.scan`."""
        names = []
        for folder, _, files in os.walk(self.path):
            inside = Path(folder).relative_to(self.path)
            names += [(inside / file).as_posix() for file in files]
        names.sort()
        return names, dict(self.read([name for name in names if wanted(name)]))

    def read(self, names):
        """See `Files.read`."""
        for name in names:
            yield name, (self.path / name).read_bytes()


class Zip(Files):
    """The files of a zip archive."""

    def scan(self, wanted):
        """See `Files.scan`."""
        with _readable(self.path), zipfile.ZipFile(self.path) as archive:
            check = _Check(self.path)
            members = [m for m in archive.infolist() if not m.is_dir()]
            for member in members:
                kind = stat.S_IFMT(member.external_attr >> 16)
                plain = kind in (0, stat.S_IFREG)
                check(member.filename, plain, member.file_size, member.compress_size)
        names = sorted(member.filename for member in members)
        return names, dict(self.read([name for name in names if wanted(name)]))

    def read(self, names):
        """See `Files.read`."""
        with _readable(self.path), zipfile.ZipFile(self.path) as archive:
            for name in names:
                with archive.open(name) as file:
                    # zipfile stops at the size that the directory of the archive states.
                    yield name, file.read()


class Tar(Files):
    """The files of a tar archive, compressed or not, read front to back."""

    def scan(self, wanted):
        """See `Files.scan`."""
        names, contents = [], {}
        for member, file in self._members():
            names.append(member.name)
            if wanted(member.name):
                contents[member.name] = file.read()
        return sorted(names), contents

    def read(self, names):
        """See `Files.read`."""
        names = set(names)
        for member, file in self._members():
            if member.name in names:
                yield member.name, file.read()

    def _members(self):
        with _readable(self.path), tarfile.open(self.path, "r|*") as archive:
            check = _Check(self.path)
            for member in archive:
                if member.isdir():
                    continue
                member.name = member.name.removeprefix("./")
                check(member.name, member.isreg(), member.size)
                yield member, archive.extractfile(member)


def open_files(path: Path) -> Files:
    """Returns the files of a folder, a .zip, or a .tar, .tar.gz or .tgz archive."""
    if path.is_dir():
        return Folder(path)
    return Zip(path) if path.suffix == ".zip" else Tar(path)


class _Check:
    """Refuses what no archive of images holds."""

    def __init__(self, path):
        self.path = path
        self.members = self.bytes = 0

    def __call__(self, name, plain, size, compressed=None):
        self.members += 1
        self.bytes += size
        parts = PurePosixPath(name.replace("\\", "/"))
        outside = parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]
        inflated = compressed is not None and size > _RATIO_COUNTS_FROM
        for wrong, what in (
            (outside, "points outside the archive"),
            (not plain, "is a link or a special file"),
            (size > _MOST_MEMBER_BYTES, f"unpacks to {size} bytes"),
            (inflated and size > _MOST_RATIO * max(compressed, 1), f"unpacks to {size} bytes"),
            (self.bytes > _MOST_BYTES, f"brings the archive to {self.bytes} bytes"),
            (self.members > _MOST_MEMBERS, "is one of too many"),
        ):
            if wrong:
                raise DatasetError(
                    f"{self.path}: member {name!r} {what}; this is no archive of the official "
                    "distribution. Get it again from its publisher."
                )


class _readable:  # noqa: N801 (a context manager)
    """Turns the errors of damaged archives into DatasetError."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        pass

    def __exit__(self, kind, error, trace):
        damaged = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, KeyError)
        if isinstance(error, damaged):
            raise DatasetError(
                f"{self.path} cannot be read ({error}); it is incomplete or damaged. Get it again."
            ) from error
