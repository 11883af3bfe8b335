"""The stages of a cell without data leave empty outputs, and import nothing heavy for it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from repository import ROOT

STAGE = """
import runpy, sys
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
heavy = {"tensorflow", "keras", "mlflow", "mmaml_tf"}
print(sorted(heavy & set(sys.modules)))
"""
TRAIN, EVALUATE, EXPORT = (
    ["pipelines.train", "classification"],
    ["pipelines.evaluate_images"],
    ["pipelines.export", "classification"],
)


@pytest.fixture
def project(tmp_path):
    """A directory where mode set 2 and that of one member have no modes."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    modes = tmp_path / "models/smoke/classification/modes"
    modes.mkdir(parents=True)
    for name in ("2", "fc100"):
        (modes / f"{name}.json").write_text(json.dumps({"modes": {}}))
    return tmp_path


def run(project, stage, cell):
    """Runs a stage; returns what it said, and checks that it ended with nothing heavy imported."""
    command = [sys.executable, "-c", STAGE, *stage, "--scale", "smoke", "--seed", "0"]
    done = subprocess.run(
        [*command, "--cell", cell],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *said, imported = done.stdout.splitlines()
    assert imported == "[]"
    return said


@pytest.mark.parametrize("cell", ["film-2-5w1s", "single-fc100-20w1s"])
def test_training(project, cell):
    assert run(project, TRAIN, cell) == [f"{cell}-0 is left out: none of its modes has data."]
    with np.load(project / f"models/smoke/classification/{cell}-0.npz") as weights:
        assert weights.files == []
    history = project / f"results/smoke/classification/history/{cell}-0.csv"
    assert history.read_bytes() == b"step\r\n"
    assert not (project / "checkpoints").exists()


def test_evaluation(project):
    cell = "protonet-2-5w5s"
    assert run(project, EVALUATE, cell) == [f"{cell}-0 is left out: none of its modes has data."]
    with np.load(project / f"models/smoke/classification/evaluation/{cell}-0.npz") as arrays:
        assert arrays.files == []
    with np.load(project / f"results/smoke/classification/scores/{cell}-0.npz") as scores:
        assert scores.files == []
    metrics = project / f"results/smoke/classification/metrics/{cell}-0.json"
    assert metrics.read_text() == '{"cell": "protonet-2-5w5s", "left_out": true}\n'


def test_export_leaves_nothing_of_an_earlier_model(project):
    exported = project / "models/smoke/classification/export/film-2-5w1s-0"
    exported.mkdir(parents=True)
    (exported / "model.keras").write_bytes(b"of a time when there were images")
    run(project, EXPORT, "film-2-5w1s")
    (left,) = exported.iterdir()
    assert left.name == "left_out.txt"
    assert left.read_text() == "None of its modes has data.\n"
