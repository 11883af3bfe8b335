"""What is stated in several files is the same in all of them."""

import tomllib

import yaml
from repository import ROOT

import mmaml_tf as mm


def test_the_version_and_the_licence():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == str(citation["version"]) == mm.__version__
    assert citation["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_type_checkers_find_the_annotations():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    files = [path for pattern in data["mmaml_tf"] for path in (ROOT / "mmaml_tf").glob(pattern)]
    assert ROOT / "mmaml_tf/py.typed" in files
