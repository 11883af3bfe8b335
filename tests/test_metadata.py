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
