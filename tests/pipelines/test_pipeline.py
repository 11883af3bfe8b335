"""The whole pipeline at `smoke` scale in a temporary repository, one cell per recipe."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import mlflow
import numpy as np
import pytest
import yaml
from repository import ROOT, Repository, run

CELLS = ["maml_2", "single_sinusoid", "single_linear", "lstm_2", "film_2"]
ROWS = ["maml_2", "multi_maml_2", "lstm_2", "film_2"]
OTHERS = ("evaluate_multi_maml_3", "evaluate_multi_maml_5")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    def shrink(params):
        params["scale"] = "smoke"
        regression = params["regression"]
        regression |= {"trained": CELLS, "evaluated": ROWS, "exported": ["film_2"]}
        regression["evaluated_alone"] = [row for row in ROWS if row != "multi_maml_2"]
        # These compile faster.
        regression["defaults"] |= {"hidden": [20, 20], "encoder_layers": 1, "inner_steps": 1}

    path = tmp_path_factory.mktemp("clone")
    return Repository(path, "regression", shrink, without=OTHERS)


@pytest.fixture(scope="module")
def reproduced(repository):
    repository.first = repository.stages_run()
    return repository


def test_repro_runs_every_stage_and_writes_the_results(reproduced):
    expected = {"code", "prepare@smoke", "evaluate_multi_maml_2@smoke-multi_maml_2-0"}
    expected |= {f"train@smoke-{cell}-0" for cell in CELLS}
    expected |= {f"evaluate@smoke-{row}-0" for row in ROWS if row != "multi_maml_2"}
    expected |= {"export@smoke-film_2-0", "report_regression@smoke", "page@smoke"}
    assert set(reproduced.first) == expected
    results = reproduced.path / "results/smoke"
    assert (results / "report.html").stat().st_size > 50_000
    assert "MMAML" in (results / "regression/table.md").read_text()
    metrics = json.loads((results / "regression/metrics/film_2-0.json").read_text())
    assert metrics["overall"]["noisy"]["post_adaptation"]["n"] == 40
    exported = reproduced.path / "models/smoke/regression/export/film_2-0"
    assert (exported / "model.keras").exists()
    assert (exported / "saved_model/saved_model.pb").exists()


def test_a_second_repro_does_nothing(reproduced):
    assert reproduced.stages_run() == []


def test_metrics_plots_and_graph_can_be_shown(reproduced):
    assert "film_2-0.json" in run(reproduced, "dvc", "metrics", "show")
    assert "evaluate@smoke-film_2-0" in run(reproduced, "dvc", "dag")
    run(reproduced, "dvc", "plots", "show")


def test_multi_maml_is_the_bank_of_its_single_mode_members(reproduced):
    folder = reproduced.path / "models/smoke/regression/evaluation"
    with np.load(folder / "multi_maml_2-0.npz") as file:
        assert file["losses_noisy"].shape == (11, 40)
        np.testing.assert_array_equal(file["modes"], ["sinusoid", "linear"])
    with np.load(folder / "film_2-0.npz") as file:
        assert file["embeddings"].shape == (40, 80)
        assert file["map"].shape == (40, 2) and file["confusion"].sum() == 20
        assert file["example_predictions"].shape == (2, 6, 101)
        with np.load(reproduced.path / "results/smoke/regression/scores/film_2-0.npz") as scores:
            assert set(scores) == set(file) - {"embeddings"}
            for name in scores:
                np.testing.assert_array_equal(scores[name], file[name])


def test_every_cell_is_a_tracked_run_with_its_model(reproduced):
    script = """
import json, mlflow
client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name("regression-smoke")
runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
film = runs["film_2-0"]
model = mlflow.pyfunc.load_model(f"runs:/{film.info.run_id}/model")
print(json.dumps({
    "runs": sorted(runs),
    "status": {run.info.status for run in runs.values()} == {"FINISHED"},
    "params": film.data.params,
    "loss": [m.step for m in client.get_metric_history(film.info.run_id, "loss")],
    "loss_linear": len(client.get_metric_history(film.info.run_id, "loss_linear")),
    "metrics": sorted(film.data.metrics),
    "datasets": [d.dataset.name for d in film.inputs.dataset_inputs],
    "artifacts": [a.path for a in client.list_artifacts(film.info.run_id)],
    "inputs": model.metadata.signature.inputs.input_names(),
}))
"""
    lines = run(reproduced, sys.executable, "-c", script).splitlines()
    seen = json.loads(next(line for line in lines if line.startswith("{")))
    assert seen["runs"] == sorted(f"{name}-0" for name in {*CELLS, *ROWS})
    assert seen["status"]
    assert seen["params"]["cell.encoder_layers"] == "1"
    assert seen["loss"] == [10, 20]
    assert seen["loss_linear"] == 2
    assert "overall.noisy.post_adaptation.mean" in seen["metrics"]
    assert any(name.startswith("system/") for name in seen["metrics"])
    assert set(seen["datasets"]) == {"training tasks", "held-out tasks"}
    assert "film_2-0.csv" in seen["artifacts"]
    assert seen["inputs"] == ["support_x", "support_y", "query_x"]


def test_the_report_is_a_tracked_run_too(reproduced):
    client = mlflow.MlflowClient(f"sqlite:///{reproduced.path}/mlflow.db")
    experiment = client.get_experiment_by_name("report-smoke")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    kept = {
        a.path
        for folder in (None, "regression")
        for a in client.list_artifacts(run.info.run_id, folder)
    }
    assert {"report.html", "regression/table.md", "regression/plots"} <= kept
    with open(reproduced.path / "results/smoke/regression/differences.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["mode"] == "all"]
    names = {name for name in run.data.metrics if name.startswith("regression.")}
    assert len(names) == 2 * len(rows) > 0
    name = "regression.MMAML _FiLM_ minus MAML 2 seed 0.mean"
    (expected,) = (
        float(row["mean"])
        for row in rows
        if (row["method"], row["reference"]) == ("MMAML (FiLM)", "MAML")
    )
    assert run.data.metrics[name] == expected


def test_a_changed_cell_reruns_that_cell_and_the_report_alone(reproduced):
    reproduced.edit(lambda p: p["regression"]["cells"]["lstm_2"].update(encoder_units=8))
    assert reproduced.stages_run() == [
        "train@smoke-lstm_2-0",
        "evaluate@smoke-lstm_2-0",
        "report_regression@smoke",
        "page@smoke",
    ]


def test_changed_code_trains_anew_what_depends_on_it(reproduced):
    """A finished run's checkpoint is not taken for the result of other code."""
    stage, checkpoints = "train@smoke-lstm_2-0", reproduced.path / "checkpoints/regression/smoke"
    weights = reproduced.path / "models/smoke/regression/lstm_2-0.npz"
    before, known = weights.read_bytes(), set(checkpoints.iterdir())
    with open(reproduced.path / "mmaml_tf/tracking/tracker.py", "a") as file:
        file.write("# decides no number\n")
    assert reproduced.stages_run(stage) == ["code"]
    cells = reproduced.path / "pipelines/regression.py"
    code = cells.read_text()
    cells.write_text(code.replace('(self.seed, "encoder")', '(self.seed, "another")'))
    assert reproduced.stages_run(stage) == ["code", stage]
    assert weights.read_bytes() != before
    (new,) = set(checkpoints.iterdir()) - known
    cells.write_text(code)
    assert reproduced.stages_run(stage) == ["code", stage]
    assert weights.read_bytes() == before
    assert set(checkpoints.iterdir()) == known | {new}


def test_another_scale_leaves_these_results_alone(reproduced):
    reproduced.edit(lambda p: p.update(scale="laptop"))
    try:
        listed = run(reproduced, "dvc", "stage", "list", "--name-only")
        planned = run(reproduced, "dvc", "repro", "--dry", "train@laptop-film_2-0")
    finally:
        reproduced.edit(lambda p: p.update(scale="smoke"))
    assert "train@laptop-film_2-0" in listed
    assert "smoke" not in listed
    assert "--scale laptop" in planned


def test_a_killed_stage_goes_on_where_it_was(reproduced):
    """SIGKILL during training; the same command ends with the bytes of an uninterrupted run."""

    def longer(params):
        schedule = params["scales"]["smoke"]["regression"]
        schedule |= {"xla": True, "iterations": 600, "checkpoint_every": 50}

    reproduced.edit(longer)
    stage = "train@smoke-maml_2-0"
    folder = reproduced.path / "checkpoints/regression/smoke"
    known = set(folder.glob("*"))
    process = subprocess.Popen(
        ["dvc", "repro", "--single-item", stage],
        cwd=reproduced.path,
        env=reproduced.plain_env,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.time() + 120
    while not any(list(p.glob("step-*")) for p in set(folder.glob("*")) - known):
        assert time.time() < deadline and process.poll() is None, "no checkpoint came"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (new,) = set(folder.glob("*")) - known
    steps = [int(p.name.split("-")[1]) for p in new.glob("step-*")]
    assert steps and max(steps) < 600, "killed too late to tell"
    assert reproduced.stages_run("--single-item", stage) == [stage]
    weights = reproduced.path / "models/smoke/regression/maml_2-0.npz"
    history = reproduced.path / "results/smoke/regression/history/maml_2-0.csv"
    resumed = weights.read_bytes(), history.read_bytes()
    shutil.rmtree(new)
    run(reproduced, "dvc", "repro", "--single-item", "--force", "--no-run-cache", stage)
    assert (weights.read_bytes(), history.read_bytes()) == resumed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(scale="huge"), "scale is 'huge'"),
        (lambda p: p.pop("threads"), "'threads' is missing"),
        (lambda p: p.update(seeds=0), "seeds is 0; expected a list of whole numbers"),
        (
            lambda p: p["scales"]["smoke"]["regression"].update(iterations=25),
            "smoke.regression.iterations is 25; expected a multiple of log_every, 10",
        ),
        (
            lambda p: p["regression"]["evaluation"].update(curve=-1),
            "expected numbers of inner steps",
        ),
        (
            lambda p: p["regression"]["evaluation"].update(modes=["sinusoid"]),
            "has modes ['linear'] that regression.evaluation.modes",
        ),
        (
            lambda p: p["scales"]["smoke"]["regression"].update(xla=1),
            "smoke.regression.xla is 1; expected true or false",
        ),
        (lambda p: p["regression"]["cells"]["maml_2"].pop("modes"), "'modes' is missing"),
        (lambda p: p["regression"]["cells"]["maml_2"].update(step=3), r"unknown settings ['step']"),
        (
            lambda p: p["scales"]["smoke"]["regression"].update(iterations=-1),
            "iterations is -1; expected a positive whole number",
        ),
    ],
)
def test_bad_parameters_end_before_any_work(tmp_path, change, message):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    change(params)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    command = [sys.executable, "-m", "pipelines.train", "regression"]
    start = time.time()
    done = subprocess.run(
        [*command, "--scale", "smoke", "--cell", "maml_2", "--seed", "0"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert time.time() - start < 5, "it should not have imported TensorFlow"
    assert not (tmp_path / "models").exists()
