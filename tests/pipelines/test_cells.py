"""What a method sets otherwise than the scale it runs at."""

import json

import pytest
import yaml
from repository import ROOT

from pipelines import classification, regression, reinforcement


@pytest.fixture
def params():
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def test_a_method_may_have_another_batch_and_embedding_than_the_scale(
    params, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    modes = classification.mode_set_file("middle", "2")
    modes.parent.mkdir(parents=True)
    modes.write_text(json.dumps({"modes": {"omniglot": "its digest"}}))
    scale = params["scales"]["middle"]["classification"]
    plain = classification.cell(params, "middle", "film_clip-2-5w5s", 0).schedule
    assert (plain["batch"], plain["embedding"]) == (scale["batch"]["5w5s"], scale["embedding"])
    params["classification"]["methods"]["film_clip_narrow"]["batch"] = 3
    narrow = classification.cell(params, "middle", "film_clip_narrow-2-5w5s", 0).schedule
    assert (narrow["batch"], narrow["embedding"]) == (3, 8)
    assert {key for key in plain if plain[key] != narrow[key]} == {"batch", "embedding"}


def test_a_method_may_have_another_outer_rate_than_the_scale(params):
    rates = params["scales"]["paper"]["reinforcement"]["outer_learning_rate"]
    plain, fast = (
        reinforcement.cell(params, "paper", f"{method}-point_mass-2", 0)
        for method in ("mmaml", "mmaml_fast")
    )
    assert plain.schedule["outer_learning_rate"] == rates["point_mass"] == 5e-5
    assert fast.schedule["outer_learning_rate"] == 1e-3
    assert plain.settings == fast.settings


@pytest.mark.parametrize("xla", [False, True])
def test_the_scale_says_whether_xla_compiles_regression(params, xla):
    params["scales"]["smoke"]["regression"]["xla"] = xla
    assert regression.cell(params, "smoke", "maml_2", 0).learner().xla == xla
