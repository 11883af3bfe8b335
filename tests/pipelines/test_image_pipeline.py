"""The image stages at `smoke` scale in a temporary repository, on two tiny datasets."""

import json
import pickle
from pathlib import Path

import mlflow
import numpy as np
import official_data
import pytest
from repository import ROOT, Repository, run

from mmaml_tf.tasks import class_split
from pipelines import prepare_images

MODES = ["mini_imagenet", "fc100"]
# One support and two query images of each class.
PER_CLASS = 3


def mini_imagenet(folder):
    """The cached pickles, one for each split."""
    folder.mkdir(parents=True)
    split, rng = class_split("mini_imagenet"), np.random.default_rng(0)
    for part, classes in (("train", split.train), ("val", split.validation), ("test", split.test)):
        images = rng.integers(0, 256, (len(classes) * PER_CLASS, 84, 84, 3), np.uint8)
        rows = {
            name: [PER_CLASS * i + j for j in range(PER_CLASS)] for i, name in enumerate(classes)
        }
        content = {"image_data": images, "class_dict": rows}
        (folder / f"mini-imagenet-cache-{part}.pkl").write_bytes(pickle.dumps(content))


def fc100(folder):
    """CIFAR-100's python version."""
    folder.mkdir(parents=True)
    names, rng = sorted(class_split("fc100").classes), np.random.default_rng(1)
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [n.encode() for n in names]}))
    for part, count in (("train", PER_CLASS - 1), ("test", 1)):
        labels = np.repeat(np.arange(len(names)), count).tolist()
        pixels = rng.integers(0, 256, (len(labels), 3072), np.uint8)
        content = {b"data": pixels, b"fine_labels": labels}
        (folder / part).write_bytes(pickle.dumps(content))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    mini_imagenet(data / "mini-imagenet")

    def shrink(params):
        file = path / "mmaml_tf/datasets/cifar100.py"
        file.write_text(file.read_text().replace("60000", str(100 * PER_CLASS)))  # what is whole
        params["scale"] = "smoke"
        images = params["classification"]
        images["mode_sets"] = {"2": MODES, **{mode: [mode] for mode in MODES}}
        images["trained"] = {
            "methods": ["film"],
            "mode_sets": ["2"],
            "protocols": ["5w1s"],
            "members": ["fc100"],
        }
        images["exported"] = ["2"]
        images["datasets"] = ["omniglot", *MODES]
        images["defaults"]["inner_steps"] = 1  # compiles faster

    path = tmp_path_factory.mktemp("clone")
    repository = Repository(path, "classification", shrink, {"MMAML_DATA": str(data)})
    repository.data = data
    return repository


@pytest.fixture(scope="module")
def reproduced(repository):
    repository.first = repository.stages_run()
    return repository


def results(repository, *path):
    return repository.path.joinpath("results/smoke/classification", *path)


def test_what_has_images_is_trained_and_evaluated(reproduced):
    metrics = json.loads(results(reproduced, "metrics/film-2-5w1s-0.json").read_text())
    assert list(metrics["modes"]) == ["mini_imagenet"], "the other mode has no images"
    with np.load(results(reproduced, "scores/film-2-5w1s-0.npz")) as scores:
        kept = {"map", "map_mode", "confusion", "example_support", "example_query"}
        kept |= {"mode", "modes", "steps", "curve", "accuracy", "loss", "example_labels"}
        assert set(scores) == kept
        assert scores["example_support"].shape[:2] == (1, 5)
        assert scores["example_support"].dtype == np.uint8
        mean = metrics["overall"][f"steps_{scores['steps']}"]["accuracy"]["mean"]
        adapted = scores["accuracy"][scores["curve"] == scores["steps"]]
        np.testing.assert_allclose(adapted.mean(), mean)
    assert metrics["overall"]["steps_1"]["accuracy"]["n"] == 3
    exported = reproduced.path / "models/smoke/classification/export/film-2-5w1s-0"
    assert (exported / "saved_model/saved_model.pb").exists()
    client = mlflow.MlflowClient(f"sqlite:///{reproduced.path}/mlflow.db")
    experiment = client.get_experiment_by_name("classification-smoke")
    (tracked,) = client.search_runs([experiment.experiment_id])
    (model,) = tracked.outputs.model_outputs
    assert client.get_logged_model(model.model_id).name == "model"
    rows = results(reproduced, "history/film-2-5w1s-0.csv").read_text().splitlines()
    assert "validation_score" in rows[0] and len(rows) == 3


def test_the_page_shows_what_was_evaluated(reproduced):
    assert {"report_images@smoke", "page@smoke"} <= set(reproduced.first)
    page = results(reproduced, "../report.html").read_text()
    assert "Few-shot image classification" in page
    metrics = json.loads(results(reproduced, "metrics/film-2-5w1s-0.json").read_text())
    accuracy = metrics["overall"]["steps_1"]["accuracy"]
    assert f"{100 * accuracy['mean']:.1f} ± {100 * accuracy['ci95']:.1f}" in page
    assert "fc100 is left out" in page


def test_a_member_without_images_is_left_out(reproduced):
    metrics = json.loads(results(reproduced, "metrics/single-fc100-5w1s-0.json").read_text())
    assert metrics == {"cell": "single-fc100-5w1s", "left_out": True}
    assert "stage" not in results(reproduced, "history/single-fc100-5w1s-0.csv").read_text()


def test_a_second_repro_only_looks_for_images(reproduced):
    assert reproduced.stages_run() == ["scan_images@smoke"]


def test_images_that_arrive_are_noticed(reproduced):
    fc100(reproduced.data / "cifar-100-python")
    stage = "stages/classification/dvc.yaml:evaluate_images@smoke-film-2-5w1s-0"
    ran = reproduced.stages_run(stage)
    assert ran == [
        "scan_images@smoke",
        "prepare_images@smoke-fc100",
        "mode_sets@smoke",
        "train_images@smoke-film-2-5w1s-0",
        "evaluate_images@smoke-film-2-5w1s-0",
    ]
    metrics = json.loads(results(reproduced, "metrics/film-2-5w1s-0.json").read_text())
    assert list(metrics["modes"]) == MODES


def test_a_mode_asked_for_by_name_must_be_there(reproduced):
    reproduced.edit(lambda p: p["classification"].update(missing="error"))
    reproduced.edit(lambda p: p["classification"]["mode_sets"].update({"2": ["omniglot"]}))
    output = run(
        reproduced, "dvc", "repro", "stages/classification/dvc.yaml:mode_sets@smoke", check=False
    )
    assert "mode 'omniglot' has no images" in output
    assert "images_background.zip" in output


def test_archives_that_are_not_the_published_ones_are_noted(tmp_path, monkeypatch):
    official_data.omniglot(tmp_path / "data")
    official_data.allow_incomplete(monkeypatch)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMAML_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("sys.argv", ["prepare", "--scale", "smoke", "--dataset", "omniglot"])
    prepare_images.main()
    status = json.loads(Path("models/smoke/classification/images/omniglot/status.json").read_text())
    assert status["not_as_published"] == ["images_background.zip", "images_evaluation.zip"]
