"""Names, links and hidden files of folders; archives have the same names."""

import os

import official_data
import pytest

from mmaml_tf.datasets.archives import open_tree
from mmaml_tf.datasets.errors import DatasetError

FILES = {"top/list.txt": b"words", "top/a/1.bin": b"one", "top/a/2.bin": b"two"}


def test_special_files_in_folders_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DatasetError, match="'pipe' is not a plain file"):
        open_tree(tmp_path)


def test_names_with_colons_and_quotes(made):
    names = ("B: boats/1", "C:x/1", "q\"uo'te/1", "new\nline/1", f"{'long' * 60}/1")
    tree = open_tree(made(dict.fromkeys(names, b"x")))
    assert tree.names == tuple(sorted(names))
    assert dict(tree.read(names)) == dict.fromkeys(names, b"x")


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_names_that_are_not_utf8_are_refused(tmp_path, form):
    name = os.fsdecode(b"caf\xe9/1")
    official_data.FORMS[form](tmp_path / "data", {name: b"x"})
    with pytest.raises(DatasetError, match=r"data: the name b'caf.xe9.* is not UTF-8"):
        open_tree(tmp_path / "data")


def test_what_is_hidden_is_left_out(made):
    hidden = (
        ".git/a", ".ipynb_checkpoints/a", ".Trash-1000/a", "__MACOSX/a", "@eaDir/a", "top/._1.bin",
        "$RECYCLE.BIN/a", "System Volume Information/a", "top/.DS_Store", "top/a/.x/y/z",
    )  # fmt: skip
    tree = open_tree(made(FILES | dict.fromkeys(hidden, b"")))
    assert tree.names == tuple(sorted(FILES))
    assert not [name for name in tree.folders if name not in ("top", "top/a")]


def test_hidden_folders_are_not_looked_into(tmp_path):
    (tmp_path / ".cache").mkdir()
    os.mkfifo(tmp_path / ".cache" / "pipe")
    assert open_tree(tmp_path).names == ()


def test_links_in_folders_are_followed_but_not_round_in_circles(tmp_path):
    official_data.write_tree(tmp_path, {"data/a/1": b"1", "data/b/2": b"2", "else/3": b"3"})
    links = {"self": ".", "a/up": "..", "a/to_b": "../b", "b/to_a": "../a", "c": "../else"}
    for name, target in (links | {"b/1": "../a/1"}).items():
        (tmp_path / "data" / name).symlink_to(target)
    tree = open_tree(tmp_path / "data")
    assert tree.names == ("a/1", "a/to_b/1", "a/to_b/2", "b/1", "b/2", "b/to_a/1", "c/3")
    assert dict(tree.read(["b/1", "c/3"])) == {"b/1": b"1", "c/3": b"3"}


@pytest.mark.parametrize("target", ["gone", "link"])
def test_links_that_lead_nowhere_are_named(tmp_path, target):
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(DatasetError, match=f"link is a link to {target}, which cannot be read"):
        open_tree(tmp_path)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()

    def listdir(path, listdir=os.listdir):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(DatasetError, match=r"locked cannot be read \(Permission denied\)"):
        open_tree(tmp_path)
