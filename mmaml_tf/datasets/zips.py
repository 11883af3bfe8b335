"""Reading the files of a zip."""

import lzma
import posixpath
import stat
import struct
import zipfile
import zlib

from mmaml_tf.datasets.errors import DatasetError
from mmaml_tf.datasets.tree import Archive

# An archive may always unpack to this much, however well it is compressed.
_SMALL = 1 << 20
_UTF8 = 0x800
_DAMAGE = (
    OSError,
    EOFError,
    UnicodeDecodeError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)


class Zip(Archive):
    """A zip as a tree. Links, special files, encrypted ones and bombs are refused."""

    def _scan(self, keep):
        self._members = {}
        try:
            with zipfile.ZipFile(self.path) as archive:
                for info in archive.infolist():
                    name = self._checked(info)
                    if name and posixpath.basename(name) in keep:
                        yield name, archive.read(info)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        except NotImplementedError as error:
            raise DatasetError(f"{self.path} {_unsupported(error)}.") from error

    def _checked(self, info):
        """Returns the path of a file that counts, None for others."""
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise self._refuse(info.filename, "is a link or a special file")
        if info.flag_bits & 1:
            raise self._refuse(info.filename, "is encrypted")
        name = self._inside(_name(info))
        if _name(info).endswith(("/", "\\")):
            self._add(name, None)
            return None
        if info.file_size > max(_SMALL, self._limits.ratio * info.compress_size):
            raise self._refuse(
                name, f"unpacks from {info.compress_size:,} to {info.file_size:,} bytes"
            )
        if not self._add(name, info.file_size):
            return None
        self._members[name] = info
        return name

    def read(self, wanted):
        """Yields (path, content) of the wanted files that are there."""
        with zipfile.ZipFile(self.path) as archive:
            for name in sorted(wanted):
                if name not in self._members:
                    continue
                try:
                    yield name, archive.read(self._members[name])
                except _DAMAGE as error:
                    yield name, DatasetError(f"damaged ({error})")
                except NotImplementedError as error:
                    yield name, DatasetError(_unsupported(error))


def _unsupported(error):
    return f"cannot be unpacked by Python ({error}): unpack it and give the folder"


def _name(info):
    """Returns a member's name: macOS writes UTF-8 without saying so, which zipfile cannot know."""
    if not info.flag_bits & _UTF8:
        try:
            return info.filename.encode("cp437").decode()
        except UnicodeError:
            pass
    return info.filename
