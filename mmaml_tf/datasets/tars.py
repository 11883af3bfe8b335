"""Reading the files of a tar, compressed or not."""

import io
import lzma
import posixpath
import struct
import tarfile
import zlib

from mmaml_tf.datasets.errors import DatasetError
from mmaml_tf.datasets.tree import Archive

# An archive may always unpack to this much, however well it is compressed.
_SMALL = 1 << 20
_DAMAGE = (
    OSError,
    EOFError,
    UnicodeDecodeError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    RecursionError,  # of tarfile, from a long chain of extended headers
)


class Tar(Archive):
    """A tar as a tree. Links, special and sparse files and bombs are refused.

    Args:
        path, keep, limits: see `archives.open_tree`.
        unpack: makes a stream of the tar of the open file.
    """

    def __init__(self, path, keep, limits, unpack):
        self._unpack = unpack
        super().__init__(path, keep, limits)

    def _scan(self, keep):
        for name, member, archive in self._members():
            counts = self._add(name, None if member.isdir() else member.size)
            if counts and not member.isdir() and posixpath.basename(name) in keep:
                yield name, self._content(archive, member)

    def read(self, wanted):
        """Yields (path, content) of the wanted files that are there."""
        wanted = set(wanted) & set(self._sizes)
        if not wanted:
            return
        for name, member, archive in self._members():
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
                stream = _Bounded(self._unpack(file), self)
                with tarfile.open(fileobj=stream, mode="r|", tarinfo=_TarInfo) as archive:
                    while member := archive.next():
                        # A sparse file claims zeros that no byte of the archive stands for.
                        if member.issparse() or not (member.isreg() or member.isdir()):
                            raise self._refuse(
                                member.name,
                                "is a link or a special file (tar --dereference packs the files)",
                            )
                        yield self._inside(member.name), member, archive
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
