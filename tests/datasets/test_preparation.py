"""Prepared images are complete or absent, made once, and independent of the threads."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import official_data
import pytest

from mmaml_tf.datasets import DatasetError, FolderDataset, PreparedImages, prepare
from mmaml_tf.datasets import preparation as module


@pytest.fixture
def data(tmp_path):
    official_data.omniglot(tmp_path / "data")
    return tmp_path


def prepared(root, size=16, name="omniglot"):
    return prepare(name, root / "data", root / "out", size, progress=False)


def about(root):
    return json.loads((root / "out" / "omniglot-16.json").read_text())


def test_description(data):
    images = prepared(data)
    described = about(data)
    assert sorted(os.listdir(data / "out")) == ["omniglot-16.json", "omniglot-16.npy"]
    assert described["dataset"] == "omniglot" and described["image_size"] == 16
    assert described["channels"] == 1
    assert described["classes"][0] == ["Anglo-Saxon_Futhorc/character01", 3]
    assert described["sha256"] == hashlib.sha256(images.images.tobytes()).hexdigest()
    archive = data / "data" / "omniglot" / "images_background.zip"
    assert described["sources"]["files"][0] == {
        "name": "images_background.zip",
        "bytes": archive.stat().st_size,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        # A rebuilt archive is used, and known to be one.
        "as_published": False,
    }


def test_a_second_call_does_nothing(data, monkeypatch):
    first = prepared(data)
    stamps = [file.stat().st_mtime_ns for file in (data / "out").iterdir()]
    monkeypatch.setattr(module, "_write", lambda *_: pytest.fail("prepared again"))
    second = prepared(data)
    assert [file.stat().st_mtime_ns for file in (data / "out").iterdir()] == stamps
    assert second.digest == first.digest
    np.testing.assert_array_equal(second.images, first.images)


def test_sizes_are_kept_side_by_side(data):
    assert prepared(data, 16).digest != prepared(data, 20).digest
    assert len(os.listdir(data / "out")) == 4


def test_changed_sources_are_prepared_again(data):
    first = prepared(data)
    archive = data / "data" / "omniglot" / "images_evaluation.zip"
    drawings = {
        f"images_evaluation/ULOG/character01/{i}.png": official_data.drawing(i) for i in range(4)
    }
    official_data.write_zip(archive, drawings)
    second = prepared(data)
    assert second.digest != first.digest
    assert len(second.images_of("ULOG/character01")) == 4


def test_other_code_prepares_again(data, monkeypatch):
    prepared(data)
    monkeypatch.setattr(module, "_code", lambda: "another digest")
    written = []
    write = module._write
    monkeypatch.setattr(module, "_write", lambda *args: written.append(args) or write(*args))
    prepared(data)
    prepared(data)
    assert len(written) == 1
    assert about(data)["code"] == "another digest"


def test_one_changed_byte_of_a_list_is_noticed(tmp_path):
    official_data.cub(tmp_path / "data", "folder")
    prepared(tmp_path, name="cub")
    lists = tmp_path / "data" / "CUB_200_2011" / "images.txt"
    lists.write_text(lists.read_text().replace("A_1.jpg", "C_1.jpg"))
    with pytest.raises(DatasetError, match=r"001\.Gull/C_1\.jpg: is not there"):
        prepared(tmp_path, name="cub")


@pytest.mark.parametrize("damage", ["truncated array", "no array", "damaged json", "old format"])
def test_damaged_results_are_reported_and_made_again(data, damage):
    first = prepared(data)
    array, description = data / "out" / "omniglot-16.npy", data / "out" / "omniglot-16.json"
    if damage == "truncated array":
        array.write_bytes(array.read_bytes()[:-10])
    elif damage == "no array":
        array.unlink()
    elif damage == "damaged json":
        description.write_text(description.read_text()[:-10])
    else:
        description.write_text(description.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(DatasetError, match=r"[Rr]un prepare\('omniglot'"):
        PreparedImages.load(data / "out", "omniglot", 16)
    assert prepared(data).digest == first.digest


def test_verify_checks_every_pixel(data):
    images = prepared(data)
    images.verify()
    array = data / "out" / "omniglot-16.npy"
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(content)
    with pytest.raises(DatasetError, match="have changed since"):
        PreparedImages.load(data / "out", "omniglot", 16).verify()


def test_load_without_prepare(tmp_path):
    with pytest.raises(DatasetError, match=r"omniglot is not prepared.*Run prepare\('omniglot'"):
        PreparedImages.load(tmp_path, "omniglot", 84)


def test_unknown_classes(data):
    with pytest.raises(ValueError, match=r"class 'Klingon' is not among the 4 of omniglot, Anglo"):
        prepared(data).images_of("Klingon")


@pytest.mark.parametrize("size", [0, 2000, 28.0])
def test_image_sizes(data, size):
    with pytest.raises(ValueError, match="image_size="):
        prepared(data, size)


def test_images_that_cannot_be_used_are_listed_by_name(tmp_path):
    official_data.cub(tmp_path / "data", "folder")
    folder = tmp_path / "data" / "CUB_200_2011" / "images"
    whole = (folder / "001.Gull" / "A_1.jpg").read_bytes()
    (folder / "001.Gull" / "A_1.jpg").write_bytes(whole[:-100])
    (folder / "001.Gull" / "B_2.jpg").write_bytes(b"")
    (folder / "002.Tern" / "A_1.jpg").unlink()
    with pytest.raises(DatasetError, match="these images cannot be used") as error:
        prepared(tmp_path, name="cub")
    first, *lines = str(error.value).splitlines()
    assert "cub" in first
    assert sorted(line.strip().split(": ")[0] for line in lines) == [
        "001.Gull/A_1.jpg",
        "001.Gull/B_2.jpg",
        "002.Tern/A_1.jpg",
    ]
    assert os.listdir(tmp_path / "out") == []


def test_at_most_ten_images_are_listed(tmp_path):
    official_data.write_tree(tmp_path / "pets", {f"cats/{i:03d}.png": b"" for i in range(50)})
    with pytest.raises(DatasetError, match="perhaps more") as error:
        prepare(FolderDataset(tmp_path / "pets"), None, tmp_path / "out", progress=False)
    assert len(str(error.value).splitlines()) == 11


def test_a_damaged_member_of_a_zip_is_named(data):
    archive = data / "data" / "omniglot" / "images_evaluation.zip"
    content = bytearray(archive.read_bytes())
    name = b"images_evaluation/Syriac_(Serto)/character01/0001_02.png"
    content[content.index(name) + len(name) + 60] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DatasetError, match=r"character01/0001_02\.png: damaged"):
        prepared(data)


def test_threads_do_not_change_the_result(tmp_path, monkeypatch):
    content = {
        f"c{i % 7}/{i:03d}.png": official_data.encoded(official_data.pixels(i), "PNG")
        for i in range(100)
    }
    official_data.write_tree(tmp_path / "pets", content)
    digests = set()
    for threads in (1, 5):
        monkeypatch.setattr(module.os, "cpu_count", lambda threads=threads: threads)
        monkeypatch.setattr(module, "_CHUNK", threads)
        output = tmp_path / str(threads)
        dataset = FolderDataset(tmp_path / "pets")
        digests.add(prepare(dataset, None, output, 16, progress=False).digest)
    assert len(digests) == 1


def test_an_error_leaves_nothing(data, monkeypatch):
    monkeypatch.setattr(module, "_publish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepared(data)
    assert os.listdir(data / "out") == []


def test_another_process_that_prepares_the_same_is_noticed(data):
    (data / "out").mkdir()
    with (
        module._alone(data / "out" / "omniglot-16.npy.partial"),
        pytest.raises(DatasetError, match="is being written by another process"),
    ):
        prepared(data)
    prepared(data)


def test_the_lock_is_removed(data):
    (data / "out").mkdir()
    lock = data / "out" / "omniglot-16.npy.partial.lock"
    lock.touch()  # of a process that was killed
    prepared(data)
    assert sorted(os.listdir(data / "out")) == ["omniglot-16.json", "omniglot-16.npy"]


def test_errors_of_the_file_system_are_errors_of_the_dataset(data):
    (data / "out").write_text("no folder")
    with pytest.raises(DatasetError, match=r"omniglot cannot be prepared: .*exists"):
        prepared(data)


def test_a_source_that_is_no_plain_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pets.zip")
    with pytest.raises(DatasetError, match=r"pets\.zip is not a plain file"):
        prepare(FolderDataset(tmp_path / "pets.zip"), None, tmp_path / "out", progress=False)


def test_changes_of_hidden_files_prepare_nothing_again(tmp_path, monkeypatch):
    png = official_data.encoded(official_data.pixels(1), "PNG")
    official_data.write_tree(tmp_path / "pets", {"a/0.png": png, "b/0.png": png})
    prepare(FolderDataset(tmp_path / "pets"), None, tmp_path / "out", 8, progress=False)
    official_data.write_tree(tmp_path / "pets", {".DS_Store": b"", "a/.thumbnails/0.png": png})
    monkeypatch.setattr(module, "_write", lambda *_: pytest.fail("prepared again"))
    prepare(FolderDataset(tmp_path / "pets"), None, tmp_path / "out", 8, progress=False)


# The package's own __init__ would load TensorFlow, which the datasets must not need.
PACKAGE = f"""
    import os, signal, sys, types
    package = types.ModuleType("mmaml_tf")
    package.__path__ = [{str(Path(module.__file__).parents[1])!r}]
    sys.modules["mmaml_tf"] = package
"""
SCRIPT = """
    from mmaml_tf.datasets import preparation
    from mmaml_tf.datasets import DATASETS, prepare
    assert not {{"tensorflow", "keras"}} & set(sys.modules)
    count = 0
    def killed(*paths, replace=os.replace):
        global count
        if count == {after}:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        replace(*paths)
    os.replace = killed
    type(DATASETS["omniglot"]).counts = ()  # of a small one
    prepare("omniglot", {data!r}, {out!r}, 16, progress=False)
"""


@pytest.mark.parametrize("after", [0, 1])
def test_a_kill_leaves_nothing_that_could_be_taken_for_complete(data, after):
    out = data / "out"
    script = PACKAGE + SCRIPT.format(after=after, data=str(data / "data"), out=str(out))
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True)
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()
    assert (out / "omniglot-16.npy").exists() == bool(after)
    assert not (out / "omniglot-16.json").exists()
    with pytest.raises(DatasetError, match="is not prepared"):
        PreparedImages.load(out, "omniglot", 16)
    prepared(data).verify()
    assert len(os.listdir(out)) == 2


def test_locks_need_no_fcntl(data):
    """Windows has none."""
    png = official_data.encoded(official_data.pixels(1), "PNG")
    official_data.write_tree(data / "pets", {"a/0.png": png, "b/0.png": png})
    script = """
    sys.modules["fcntl"] = None
    from mmaml_tf.datasets import FolderDataset, prepare
    prepare(FolderDataset("pets"), None, "out", 8, progress=False)
    """
    script = textwrap.dedent(PACKAGE + script)
    subprocess.run([sys.executable, "-c", script], cwd=data, check=True)
    assert sorted(os.listdir(data / "out")) == ["pets-8.json", "pets-8.npy"]
