"""What is installed is complete, and says what is not installed."""

import subprocess
import sys
import zipfile

import pytest
from repository import ROOT

from mmaml_tf.extras import TF_AGENTS, absent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the files that git knows."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    names = _tracked("mmaml_tf", "pyproject.toml", "README.md", "LICENSE")
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (path,) = folder.glob("*.whl")
    return path


def _tracked(*paths):
    listed = subprocess.run(
        ["git", "ls-files", "-z", *paths], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def _pip(*arguments):
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet"]
    subprocess.run(command, check=True)


def test_the_wheel_has_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("mmaml_tf/")}
    assert packed == set(_tracked("mmaml_tf"))


def test_the_installed_command_gives_its_help_without_tensorflow(wheel, tmp_path):
    _pip("install", "--no-deps", "--target", tmp_path, wheel)
    help_ = subprocess.run(
        [sys.executable, tmp_path / "bin/mmaml", "--help"],
        env={"PYTHONPATH": str(tmp_path), "PYTHONVERBOSE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert help_.returncode == 0, help_.stderr[-2000:]
    assert "usage: mmaml" in help_.stdout
    assert "import 'mmaml_tf'" in help_.stderr
    assert "import 'tensorflow'" not in help_.stderr
    assert str(tmp_path) in help_.stderr


def test_what_is_absent_is_named_with_its_command():
    assert absent("images", "numpy", "json") == ""
    assert absent("images", "numpy", "no_such_package") == (
        "no_such_package not installed; install the extra `images`: pip install 'mmaml_tf[images]'"
    )
    assert absent("rl", "no_such_package", command=TF_AGENTS).endswith(
        "pip install --no-deps tf-agents==0.19.0"
    )
