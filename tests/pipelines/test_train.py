"""What a training stage does before it trains."""

import json
import sys

import images
import pytest
import tensorflow as tf
import yaml
from repository import ROOT

from mmaml_tf import training
from pipelines import classification, train


def test_tasks_that_cannot_be_evaluated_end_it_before_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["threads"] = tf.config.threading.get_intra_op_parallelism_threads()  # cannot change
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    found = classification.mode_set_file("smoke", "2")
    found.parent.mkdir(parents=True)
    found.write_text(json.dumps({"modes": {"a": {}, "b": {}}}))

    def tasks(cell, split="train"):
        queries = {"train": 2, "validation": 2, "test": 50}[split]
        return images.tasks(ways=cell.settings["ways"], split=split, queries=queries)

    monkeypatch.setattr(classification.ImageCell, "tasks", tasks)
    monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("trained"))
    command = ["train", "classification", "--scale", "smoke", "--cell", "maml-2-5w1s"]
    monkeypatch.setattr(sys, "argv", [*command, "--seed", "0"])
    with pytest.raises(ValueError, match="50 query images need 51"):
        train.main()
    assert not (tmp_path / "checkpoints").exists()
    assert not list(tmp_path.rglob("*.npz"))
