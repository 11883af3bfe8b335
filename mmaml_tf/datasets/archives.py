"""Reading the files of a folder, zip or tar alike, trusting none of them.

Nothing is unpacked to disk. Members with paths that lead out of the archive, links, special files
and members that unpack to more than `Limits` allows are refused before they are read.
"""

import gzip
import io
import lzma
import os
import posixpath
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from mmaml_tf.datasets.errors import DatasetError

# What macOS adds to archives: neither images nor lists.
_CLUTTER = ("__MACOSX", ".DS_Store", "._")
# An archive may always unpack to this much, however well it is compressed.
_SMALL = 1 << 20
_DAMAGE = (
    OSError,
    EOFError,
    UnicodeDecodeError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    RecursionError,  # of tarfile, from a long chain of extended headers
)
# A drive of Windows.
_DRIVE = re.compile("[A-Za-z]:")


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


class Tree:
    """The files of a folder or of an archive; `open_tree` makes the one that fits.

    Attributes:
        path: the folder or archive.
        names: its files' paths with "/" between the parts, sorted.
    """

    def __init__(self, path: Path, keep: Collection[str], limits: Limits):
        self.path = path
        self._limits = limits
        self._sizes = {}
        self._total = 0
        self._seen = 0
        self._kept = dict(self._scan(frozenset(keep)))
        self.names = tuple(sorted(self._sizes))

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
            return posixpath.dirname(found[0]), content.decode()
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
        """Checks a file; returns its normalised path, or None if it is clutter."""
        self._count()
        normal = posixpath.normpath(name)
        outside = normal.startswith(("/", "../")) or normal in ("..", ".")
        if outside or "\\" in name or "\0" in name or _DRIVE.match(normal):
            raise self._refuse(name, "has a path that leads out of the archive")
        if normal in self._sizes:
            raise self._refuse(name, "is there twice")
        if size > self._limits.member:
            raise self._refuse(name, f"has {size:,} bytes, at most {self._limits.member:,} allowed")
        self._total += size
        if self._total > self._limits.total:
            raise self._refuse(
                name, f"brings the unpacked size above the {self._limits.total:,} bytes allowed"
            )
        if any(part.startswith(_CLUTTER) for part in normal.split("/")):
            return None
        self._sizes[normal] = size
        return normal

    def _count(self):
        self._seen += 1
        if self._seen > self._limits.members:
            raise DatasetError(f"{self.path} holds more than {self._limits.members:,} members.")

    def _refuse(self, member, why):
        return DatasetError(
            f"{self.path}: member {member!r} {why}. Refused: get the archive from its official "
            "source."
        )

    def _damaged(self, error):
        return DatasetError(
            f"{self.path} is truncated or damaged ({type(error).__name__}: {error}): get it again."
        )


class _Folder(Tree):
    def _scan(self, keep):
        for folder, _, files in os.walk(self.path, followlinks=True):
            for file in files:
                path = Path(folder, file)
                name = path.relative_to(self.path).as_posix()
                try:
                    status = path.stat()
                except OSError as error:
                    raise DatasetError(f"{path} cannot be read ({error}).") from error
                if not stat.S_ISREG(status.st_mode):
                    raise self._refuse(name, "is not a plain file")
                if self._add(name, status.st_size) and file in keep:
                    yield name, path.read_bytes()

    def read(self, wanted):
        for name in sorted(wanted):
            try:
                yield name, (self.path / name).read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                yield name, DatasetError(str(error))


class _Zip(Tree):
    def _scan(self, keep):
        self._members = {}
        try:
            with zipfile.ZipFile(self.path) as archive:
                for info in archive.infolist():
                    mode = info.external_attr >> 16
                    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                        raise self._refuse(info.filename, "is a link or a special file")
                    if info.flag_bits & 1:
                        raise self._refuse(info.filename, "is encrypted")
                    if info.is_dir():
                        self._count()
                        continue
                    if info.file_size > max(_SMALL, self._limits.ratio * info.compress_size):
                        raise self._refuse(
                            info.filename,
                            f"unpacks from {info.compress_size:,} to {info.file_size:,} bytes",
                        )
                    name = self._add(info.filename, info.file_size)
                    if name:
                        self._members[name] = info
                    if name and posixpath.basename(name) in keep:
                        yield name, archive.read(info)
        except (*_DAMAGE, NotImplementedError) as error:
            raise self._damaged(error) from error

    def read(self, wanted):
        with zipfile.ZipFile(self.path) as archive:
            for name in sorted(wanted):
                if name not in self._members:
                    continue
                try:
                    yield name, archive.read(self._members[name])
                except (*_DAMAGE, NotImplementedError) as error:
                    yield name, DatasetError(f"damaged ({error})")


class _Tar(Tree):
    def _scan(self, keep):
        for member, archive in self._members():
            if member.isdir():
                self._count()
                continue
            name = self._add(member.name, member.size)
            if name and posixpath.basename(name) in keep:
                yield name, self._content(archive, member)

    def read(self, wanted):
        wanted = set(wanted) & set(self._sizes)
        if not wanted:
            return
        for member, archive in self._members():
            name = posixpath.normpath(member.name)
            if name in wanted:
                wanted.remove(name)
                yield name, self._content(archive, member)
            # The rest of a compressed archive would have to be unpacked only to be passed over.
            if not wanted:
                return

    def _content(self, archive, member):
        try:
            return archive.extractfile(member).read()
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def _members(self):
        """Yields the members one after the other: a compressed tar has no other access."""
        try:
            with open(self.path, "rb") as file:
                compressed = file.read(2) == b"\x1f\x8b"
                file.seek(0)
                unpacked = gzip.GzipFile(fileobj=file) if compressed else file
                stream = _Bounded(unpacked, self)
                with tarfile.open(fileobj=stream, mode="r|", tarinfo=_TarInfo) as archive:
                    while member := archive.next():
                        # A sparse file claims zeros that no byte of the archive stands for.
                        if member.issparse() or not (member.isreg() or member.isdir()):
                            raise self._refuse(member.name, "is a link or a special file")
                        yield member, archive
                        # tarfile keeps every member it passed.
                        archive.members.clear()
                # The checksum of a gzip comes at its very end.
                while stream.read(_SMALL):
                    pass
        except _DAMAGE as error:
            raise self._damaged(error) from error


class _Bounded(io.RawIOBase):
    """A stream that refuses to unpack to more than the limits."""

    def __init__(self, stream, tree):
        self._stream = stream
        self._tree = tree
        limits = tree._limits
        by_ratio = max(_SMALL, limits.ratio * tree.path.stat().st_size)
        # Each member may add headers and padding to its own size.
        self._left = min(by_ratio, limits.total + 4096 * (limits.members + 2))

    def read(self, size=-1):
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise DatasetError(
                f"{self._tree.path} unpacks to far more than its own size. Refused: get the "
                "archive from its official source."
            )
        return data


class _TarInfo(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf, encoding, errors):
        """Refuses what tarfile accepts: the lack of an end, and huge extended headers.

        It takes a header that is damaged or missing for the end of the archive, and reads an
        extended one into memory at once.
        """
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} where a member or the end should be") from error
        plain = member.type in tarfile.REGULAR_TYPES
        if not plain and member.size > _SMALL:
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        return member


def open_tree(path, keep: Collection[str] = (), limits: Limits = LIMITS) -> Tree:
    """Lists the files of a folder, a zip, a tar or a gzipped tar.

    Args:
        path: the folder or archive.
        keep: names of small files whose content `Tree.text` is asked for.
        limits: what it may hold.

    Raises:
        DatasetError: when it is damaged or holds anything that is refused.
    """
    path = Path(path)
    if path.is_dir():
        return _Folder(path, keep, limits)
    with open(path, "rb") as file:
        zipped = file.read(2) == b"PK"
    return (_Zip if zipped else _Tar)(path, keep, limits)
