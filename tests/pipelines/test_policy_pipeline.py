"""The stages of reinforcement learning at `smoke` scale in a temporary repository."""

import json
import shutil
import signal
import subprocess
import sys
import time

import mlflow
import numpy as np
import pytest
from repository import Repository, run

CELLS = ["mmaml-point_mass-2", "single-point_mass-deg45"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    def shrink(params):
        params["scale"] = "smoke"
        policies = params["reinforcement"]
        policies["trained"] = {
            "methods": ["mmaml"],
            "sets": ["point_mass-2"],
            "members": ["point_mass-deg45"],
        }
        policies["exported"] = ["point_mass-2"]
        policies["defaults"]["inner_steps"] = 1  # traces faster

    return Repository(tmp_path_factory.mktemp("clone"), "reinforcement", shrink)


@pytest.fixture(scope="module")
def reproduced(repository):
    repository.first = repository.stages_run()
    return repository


def metrics(repository, cell):
    folder = repository.path / "results/smoke/reinforcement/metrics"
    return json.loads((folder / f"{cell}-0.json").read_text())


def test_every_stage_runs_and_writes_its_results(reproduced):
    assert set(reproduced.first) == {
        "code",
        "train_policies@smoke-mmaml-point_mass-2-0",
        "train_policy_members@smoke-single-point_mass-deg45-0",
        "evaluate_policies@smoke-mmaml-point_mass-2-0",
        "evaluate_policy_members@smoke-single-point_mass-deg45-0",
        "export_policies@smoke-point_mass-2-0",
        "report_policies@smoke",
        "page@smoke",
    }
    for cell in CELLS:
        found = metrics(reproduced, cell)
        assert found["modes"]["deg45"]["steps_1"]["return"]["n"] == 3
        assert found["environment_steps"] == 2 * 4 * 2 * 100 * 2
    exported = reproduced.path / "models/smoke/reinforcement/export/mmaml-point_mass-2-0"
    assert (exported / "saved_model/saved_model.pb").exists()


def test_the_evaluation_keeps_what_the_report_draws(reproduced):
    folder = reproduced.path / "models/smoke/reinforcement/evaluation"
    with np.load(folder / "mmaml-point_mass-2-0.npz") as file:
        assert file["return"].shape == (2, 6)
        assert file["embeddings"].shape == (6, 64)
        assert file["examples_observations"].shape == (2, 6, 100, 4)
        mean = metrics(reproduced, CELLS[0])["overall"]["steps_1"]["return"]["mean"]
        np.testing.assert_allclose(file["return"][1].mean(), mean, rtol=1e-6)
        kept = reproduced.path / "results/smoke/reinforcement/scores/mmaml-point_mass-2-0.npz"
        with np.load(kept) as scores:
            names = {"return", "mode", "modes", "steps", "curve", "examples_goals"}
            drawn = {"map", "map_mode", "confusion", "silhouette", "example_positions"}
            assert set(scores) == names | drawn
            assert scores["example_positions"].shape == (2, 6, 100, 2)
            for name in names:
                np.testing.assert_array_equal(scores[name], file[name])


def test_the_runs_are_tracked_with_a_row_an_iteration(reproduced):
    client = mlflow.MlflowClient(f"sqlite:///{reproduced.path}/mlflow.db")
    experiment = client.get_experiment_by_name("reinforcement-smoke")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    history = client.get_metric_history(runs[0].info.run_id, "return_after_1")
    assert [point.step for point in history] == [1, 2]
    models = [run.outputs.model_outputs[0].model_id for run in runs]
    assert [client.get_logged_model(model).status for model in models] == ["READY"] * 2


def test_a_second_repro_does_nothing(reproduced):
    assert reproduced.stages_run() == []


def test_training_that_is_killed_ends_with_the_same_weights(reproduced):
    def lengthen(params):
        params["scales"]["smoke"]["reinforcement"]["member_iterations"]["point_mass"] = 6

    reproduced.edit(lengthen)
    command = ["python", "-m", "pipelines.train", "reinforcement", "--scale", "smoke"]
    command += ["--cell", CELLS[1], "--seed", "0"]
    weights = reproduced.path / "models/smoke/reinforcement" / f"{CELLS[1]}-0.npz"
    checkpoints = reproduced.path / "checkpoints/reinforcement/smoke"
    before = set(checkpoints.iterdir())
    killed = subprocess.Popen(
        [sys.executable, *command[1:]],
        cwd=reproduced.path,
        env=reproduced.plain_env,
        stderr=subprocess.DEVNULL,
    )
    while not any(folder.glob("step-*") for folder in set(checkpoints.iterdir()) - before):
        assert killed.poll() is None, "training ended before it was killed"
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "killed too late to tell"
    run(reproduced, *command)
    resumed = weights.read_bytes()
    for folder in set(checkpoints.iterdir()) - before:
        shutil.rmtree(folder)
    run(reproduced, *command)
    assert weights.read_bytes() == resumed
