"""The example drives with what a learner exported."""

import runpy
import sys
from pathlib import Path

import numpy as np
import policies
import pytest

import mmaml_tf as mm
from mmaml_tf import rl

EXAMPLE = Path(__file__).parents[2] / "examples" / "drive_policy.py"


@pytest.fixture(scope="module", params=["ProMP", "MultimodalProMP"])
def model(request, tmp_path_factory):
    """An untrained policy, whose inner steps are long enough to show."""
    path = tmp_path_factory.mktemp("exported") / "model"
    learner = policies.learner(
        request.param, 2, learning_rate=1.0, network=rl.GaussianPolicy(2, hidden=(8,)),
        **({} if request.param == "ProMP" else {"modulation": mm.modulation.FiLM(shift=False)}),
    )  # fmt: skip
    learner.compile(rollouts=policies.Rollouts("mmaml_tf/PointMass-v0", 2), jit_compile=False)
    learner.build_for(policies.TASKS.sample(1, 0))
    learner.export(path)
    return path


def test_it_drives_towards_the_goal(model, monkeypatch, capsys):
    ends = []
    for goal in ([5.0, 5.0], [-5.0, -5.0]):
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(model), *map(str, goal)])
        runpy.run_path(str(EXAMPLE), run_name="__main__")
        words = capsys.readouterr().out.replace(",", "").split()
        assert words[:1] + words[2:7] == ["return", "before", "its", "last", "step", "at"]
        # A point that does not move is at 7.07 from either goal, for 100 steps.
        assert -707 - 100 < float(words[1]) < 0
        ends.append(np.array([float(word) for word in words[7:]]))
    assert (ends[0] - ends[1]).sum() > 3


def test_of_this_package_it_imports_the_environments_alone():
    lines = EXAMPLE.read_text().splitlines()
    assert [line for line in lines if "mmaml_tf" in line and "PointMass" not in line] == [
        "import mmaml_tf.rl  # noqa: F401  registers the environment"
    ]
    assert not any("tf_agents" in line for line in lines)
