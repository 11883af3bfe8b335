"""An exported policy as an MLflow pyfunc."""

import logged_models
import numpy as np
import policies
import pytest

from mmaml_tf import rl
from mmaml_tf.tracking import Tracker, pyfunc_policy

HORIZON = 3


@pytest.fixture(scope="module", params=["MultimodalProMP", "MultiProMP"])
def exported(request, tmp_path_factory):
    learner, path = policies.ready(request.param, horizon=HORIZON), tmp_path_factory.mktemp("p")
    learner.export(path / "p")
    return learner, path / "p"


def inputs(learner, tasks, steps, rollouts, acting):
    """Recorded rollouts for some inner steps, and what to act on."""
    recorded = [policies.trajectories(tasks, 4, HORIZON, seed=s) for s in range(steps + 1)]
    parts = {
        name: np.stack([getattr(each, name) for each in recorded], 1)[:, :steps, :rollouts]
        for name in ("observations", "actions", "rewards")
    }
    acting_on = np.random.default_rng(tasks).normal(size=(tasks, acting, policies.OBSERVATION))
    mode = {"mode": np.arange(tasks, dtype=np.int32) % 2} if learner.needs_mode else {}
    return parts | {"acting_on": acting_on.astype("f")} | mode


def expected(learner, given):
    """The mean actions of the learner itself."""
    observations, actions, rewards, acting_on, mode = [*given.values(), None][:5]
    parameters = learner.initial_parameters(len(acting_on), mode)
    for step in range(observations.shape[1]):
        parts = (part[:, step] for part in (observations, actions, rewards))
        trajectories = rl.Trajectories(*parts, np.ones_like(rewards[:, step]))
        parameters = learner.adapt(trajectories, parameters)
    acted = learner.network.distribution(parameters.weights, acting_on, parameters.modulation)
    # The actions of the learner are within ± 10, and so are those of the bandit.
    return np.clip(acted.mean(), -10, 10)


def test_a_logged_policy_adapts_to_any_number_of_inner_steps(exported, tmp_path):
    learner, path = exported
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    example = inputs(learner, 1, 2, 1, 1)
    with Tracker("policies", "run", "key", uri=uri) as tracker:
        tracker.log_policy(path, example=example)
    logged, specs = logged_models.load(uri, "policies")
    rollouts = (-1, -1, -1, HORIZON)
    mode = {"mode": ("int32", (-1,))} if learner.needs_mode else {}
    assert specs == mode | {
        "observations": ("float32", (*rollouts, policies.OBSERVATION)),
        "actions": ("float32", (*rollouts, policies.ACTION)),
        "rewards": ("float32", rollouts),
        "acting_on": ("float32", (-1, -1, policies.OBSERVATION)),
        "output": ("float32", (-1, -1, policies.ACTION)),
    }
    acted = []
    for sizes in ((2, 0, 2, 3), (2, 1, 2, 3), (2, 3, 4, 3), (1, 2, 2, 1)):
        given = inputs(learner, *sizes)
        acted.append(logged.predict(given))
        np.testing.assert_allclose(acted[-1], expected(learner, given), rtol=1e-5, atol=1e-5)
    assert np.abs(acted[0] - acted[1]).max() > 1e-3


def test_the_stored_class_acts_alone_and_names_what_is_missing(exported):
    learner, path = exported
    policy = pyfunc_policy.SavedPolicy()
    policy.load_context(type("Context", (), {"artifacts": {"saved_model": str(path)}}))
    given = inputs(learner, 2, 1, 2, 2)
    np.testing.assert_allclose(
        policy.predict(None, given), expected(learner, given), rtol=1e-5, atol=1e-5
    )
    del given["rewards"]
    with pytest.raises(ValueError, match=r"inputs \['rewards'\] are missing"):
        policy.predict(None, given)
