"""Archives are read whole or refused with the name of archive and member."""

import gzip
import io
import os
import stat
import tarfile
import zipfile

import numpy as np
import official_data
import pytest

from mmaml_tf.datasets.archives import Limits, open_tree
from mmaml_tf.datasets.errors import DatasetError

FILES = {"top/list.txt": b"words", "top/a/1.bin": b"one", "top/a/2.bin": b"two"}


def test_every_form_reads_alike(made):
    files = FILES | {"__MACOSX/top/._list.txt": b"", "top/._a": b"", "top/a/.DS_Store": b""}
    tree = open_tree(made(files), keep=("list.txt",))
    assert tree.names == tuple(sorted(FILES))
    assert tree.text("list.txt") == ("top", "words")
    assert tree.has("list.txt") and not tree.has("1.bin")
    wanted = ["top/a/2.bin", "top/list.txt", "top/absent"]
    assert dict(tree.read(wanted)) == {"top/a/2.bin": b"two", "top/list.txt": b"words"}


def test_text_files_must_be_there_once_and_be_text(made):
    tree = open_tree(made(FILES | {"list.txt": b"", "bad.txt": b"\xff"}), ("list.txt", "bad.txt"))
    with pytest.raises(DatasetError, match=r"holds list\.txt, top/list\.txt list\.txt, exactly"):
        tree.text("list.txt")
    with pytest.raises(DatasetError, match=r"holds no other\.txt"):
        tree.text("other.txt")
    with pytest.raises(DatasetError, match=r"bad\.txt is not a text file"):
        tree.text("bad.txt")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(members=2), "more than 2 members"),
        (Limits(member=4), "'top/list.txt' has 5 bytes, at most 4 allowed"),
        (Limits(total=9), "above the 9 bytes allowed"),
    ],
)
def test_limits(made, limits, message):
    path = made(FILES)
    with pytest.raises(DatasetError, match=message) as error:
        open_tree(path, limits=limits)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/x", "..", "C:/x", "C:\\x", "a\\..\\..\\x", "a/../b/../../x"],
)
@pytest.mark.parametrize("write", [official_data.write_zip, official_data.write_tar])
def test_paths_that_lead_out_are_refused(tmp_path, write, name):
    write(tmp_path / "archive", {"fine": b"", name: b"x"})
    with pytest.raises(DatasetError, match=r"archive: member .* path that leads out"):
        open_tree(tmp_path / "archive")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_special_files_in_tars_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("odd")
    info.type, info.linkname = kind, "fine"
    with tarfile.open(tmp_path / "archive.tgz", "w:gz") as archive:
        archive.addfile(info)
    with pytest.raises(DatasetError, match="'odd' is a link or a special file"):
        open_tree(tmp_path / "archive.tgz")


def test_links_in_zips_are_refused(tmp_path):
    info = zipfile.ZipInfo("odd")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DatasetError, match="'odd' is a link or a special file"):
        open_tree(tmp_path / "archive.zip")


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    with tarfile.open(tmp_path / "archive.tar", "w") as archive:
        for name in ("x", "./x"):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(DatasetError, match="is there twice"):
        open_tree(tmp_path / "archive.tar")


def test_bombs_are_refused_before_they_are_unpacked(tmp_path):
    zeros = bytes(3 << 20)
    official_data.write_zip(tmp_path / "one.zip", {"bomb": zeros})
    with pytest.raises(DatasetError, match=r"one\.zip: member 'bomb' unpacks from"):
        open_tree(tmp_path / "one.zip")
    official_data.write_tar(tmp_path / "many.tgz", {f"bomb{i}": zeros[::8] for i in range(8)})
    with pytest.raises(DatasetError, match=r"many\.tgz unpacks to far more than its own size"):
        open_tree(tmp_path / "many.tgz")
    # Its header alone tells that this one is too large.
    info = tarfile.TarInfo("bomb")
    info.size = 1 << 40
    (tmp_path / "header.tgz").write_bytes(gzip.compress(info.tobuf()))
    with pytest.raises(DatasetError, match="'bomb' has 1,099,511,627,776 bytes"):
        open_tree(tmp_path / "header.tgz")


def test_sparse_members_are_refused(tmp_path):
    """They read as zeros without limit, which are in no byte of the archive."""
    gnu = tarfile.TarInfo("zeros")
    gnu.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(gnu.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (900 << 20)  # the real size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "gnu.tgz").write_bytes(gzip.compress(bytes(header) + bytes(1024)))
    pax = tarfile.TarInfo("zeros")
    pax.pax_headers = {
        "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "zeros",
        "GNU.sparse.size": str(900 << 20), "GNU.sparse.map": "0,0",
    }  # fmt: skip
    (tmp_path / "pax.tgz").write_bytes(gzip.compress(pax.tobuf(tarfile.PAX_FORMAT) + bytes(1024)))
    for name in ("gnu.tgz", "pax.tgz"):
        with tarfile.open(tmp_path / name) as archive:
            assert archive.getmembers()[0].size == 900 << 20, "not what it should be"
        with pytest.raises(DatasetError, match="'zeros' is a link or a special file"):
            open_tree(tmp_path / name)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_huge_extended_headers_are_refused(tmp_path, kind):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 1 << 32
    (tmp_path / "archive.tar").write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(DatasetError, match="a header of 4,294,967,296 bytes"):
        open_tree(tmp_path / "archive.tar")


@pytest.mark.parametrize(
    "write", [official_data.FORMS[form] for form in ("zip", "tar.gz", "tar.bz2", "tar.xz")]
)
def test_truncated_archives(tmp_path, write):
    noise = np.random.default_rng(0).bytes(50_000)
    path = tmp_path / "archive"
    write(path, {"a": noise, "b": noise})
    content = path.read_bytes()
    for length in (1, 100, len(content) // 2, len(content) - 20, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(DatasetError, match="archive is truncated or damaged"):
            open_tree(path)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tars_that_end_between_members_or_within_a_header(tmp_path, mode):
    path = tmp_path / "archive"
    official_data.write_tar(path, {"a": b"1", "b": b"2", "c": b"3"}, mode)
    pack, unpack = (gzip.compress, gzip.decompress) if mode == "w:gz" else (bytes, bytes)
    content = unpack(path.read_bytes())
    for length in (1024, 1100, 2048, 3000):  # a header and a block of each member
        path.write_bytes(pack(content[:length]))
        with pytest.raises(DatasetError, match="archive is truncated or damaged"):
            open_tree(path)
    damaged = bytearray(content)
    damaged[1024 + 150] ^= 1  # the checksum of the second header
    path.write_bytes(pack(damaged))
    with pytest.raises(DatasetError, match=r"archive is truncated or damaged .*where a member"):
        open_tree(path)


def test_a_tar_that_ends_within_a_list(tmp_path):
    noise = np.random.default_rng(0).bytes(50_000)
    path = tmp_path / "archive"
    official_data.write_tar(path, {"list.txt": noise, "b": b""})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match="archive is truncated or damaged"):
        open_tree(path, keep=("list.txt",))
    path.write_bytes(content)
    tree = open_tree(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match="archive is truncated or damaged"):
        list(tree.read(["list.txt"]))


def test_a_chain_of_extended_headers(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
    link = info.tobuf() + b"y" + bytes(511)
    (tmp_path / "archive.tar").write_bytes(3000 * link + bytes(1024))
    with pytest.raises(DatasetError, match=r"archive\.tar is truncated or damaged"):
        open_tree(tmp_path / "archive.tar")


def test_a_damaged_member_that_lzma_packed(tmp_path):
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", np.random.default_rng(0).bytes(5000))
    content = bytearray(path.read_bytes())
    content[100:120] = bytes(20)
    path.write_bytes(content)
    found = dict(open_tree(path).read(["a"]))
    assert isinstance(found["a"], DatasetError)


def test_a_compression_that_python_lacks(tmp_path):
    """Windows packs large files so."""
    path = tmp_path / "archive.zip"
    official_data.write_zip(path, {"a": b"x"})
    content = bytearray(path.read_bytes())
    for start, method in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        content[content.index(start) + method] = 9  # Deflate64
    path.write_bytes(content)
    found = dict(open_tree(path).read(["a"]))
    assert "cannot be unpacked by Python" in str(found["a"])
    with pytest.raises(DatasetError, match=r"archive\.zip cannot be unpacked by Python"):
        open_tree(path, keep=("a",))


def test_altered_bytes_are_noticed(tmp_path):
    noise = np.random.default_rng(0).bytes(50_000)
    for write in (official_data.write_zip, official_data.write_tar):
        path = tmp_path / write.__name__
        write(path, {"a": noise, "b": b"fine"})
        content = bytearray(path.read_bytes())
        content[30_000] ^= 1
        path.write_bytes(content)
    # A zip has a checksum for each member: only that one is lost.
    found = dict(open_tree(tmp_path / "write_zip").read(["a", "b"]))
    assert isinstance(found["a"], DatasetError) and found["b"] == b"fine"
    with pytest.raises(DatasetError, match="write_tar is truncated or damaged"):
        open_tree(tmp_path / "write_tar")


def test_encrypted_zips_are_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", "x")
    content = bytearray(buffer.getvalue())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "archive.zip").write_bytes(content)
    with pytest.raises(DatasetError, match="'a' is encrypted"):
        open_tree(tmp_path / "archive.zip")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<html>\n<b>not found</b></html>" * 100, "an HTML page that begins with '<html> <b>not"),
        (b"version https://git-lfs\noid 1", "a text that begins with 'version https://git-lfs oid"),
        ("Fehler: größer".encode()[:-2], "a text that begins with 'Fehler: grö"),
        (b"", "an empty file"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive"),
        (b"Rar!\x1a\x07\1\0", "a RAR archive"),
        (b"\x28\xb5\x2f\xfd\4", "compressed with Zstandard"),
        (b"\x89PNG\r\n\x1a\n" * 99, r"begins with the bytes b'\x89PNG\r\n\x1a\n'"),
    ],
)
def test_what_is_no_archive_is_called_what_it_is(tmp_path, content, what):
    (tmp_path / "page.tgz").write_bytes(content)
    with pytest.raises(DatasetError) as error:
        open_tree(tmp_path / "page.tgz")
    assert "page.tgz is no folder and no archive" in str(error.value)
    assert what in str(error.value)


def test_what_is_not_there_or_no_plain_file(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.zip is no folder that can be read: No such file"):
        open_tree(tmp_path / "a.zip")
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(
        DatasetError, match=r"a\.zip is no folder and no archive: it is not a plain"
    ):
        open_tree(tmp_path / "a.zip")
    for path in ("", None, 3, b"a.zip"):
        with pytest.raises(ValueError, match="a str or a Path is expected"):
            open_tree(path)


def test_zips_of_windows_have_backslashes(tmp_path):
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a\\", "a\\b\\1.bin", "c/2.bin"):
            archive.writestr(name, "x")
    tree = open_tree(path)
    assert tree.names == ("a/b/1.bin", "c/2.bin") and tree.folders == ("a", "a/b", "c")
    assert dict(tree.read(tree.names)) == dict.fromkeys(tree.names, b"x")


def test_zips_of_macos_do_not_say_that_names_are_utf8(tmp_path):
    path = tmp_path / "archive.zip"
    official_data.write_zip(path, {"café/1.bin": b"x", "a/2.bin": b"y"})
    content = bytearray(path.read_bytes())
    for start, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(start) + flags + 1] &= ~8
    path.write_bytes(content)
    tree = open_tree(path)
    assert tree.names == ("a/2.bin", "café/1.bin")
    assert dict(tree.read(["café/1.bin"])) == {"café/1.bin": b"x"}
