"""Training of policies ends with the same bytes whatever interrupts it."""

import policies
import pytest
import states

from mmaml_tf.checkpoint import CheckpointMismatchError, Checkpoints
from mmaml_tf.training import train

like_new = states.reused(policies.ready)


def run(recipe, iterations, directory=None, seed=3, config=(), learner=like_new, **kwargs):
    """Trains a learner from its first state; returns it, which others may get, and the history."""
    learner = learner(recipe)
    checkpoints = None if directory is None else Checkpoints(directory, dict(config))
    settings = {"batch_size": 4, "seed": seed, "log_every": 1, "checkpoint_every": 1} | kwargs
    history = train(
        learner, policies.TASKS, iterations=iterations, checkpoints=checkpoints, **settings
    )
    return learner, history


@pytest.fixture(scope="module")
def whole():
    """Returns a function from a recipe to the end of an uninterrupted run of four iterations."""
    made = {}

    def get(recipe):
        if recipe not in made:
            learner, history = run(recipe, 4)
            made[recipe] = states.arrays_of(learner), history
        return made[recipe]

    return get


@pytest.mark.parametrize("recipe", policies.RECIPES)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, whole, recipe):
    expected, history = whole(recipe)
    rows = []
    run(recipe, 2, tmp_path)
    resumed, again = run(recipe, 4, tmp_path, learner=policies.ready, on_log=rows.append)
    states.assert_same(expected, resumed)
    assert history == again == rows
    assert [row["step"] for row in history] == [1, 2, 3, 4]
    assert resumed.optimizer.iterations == 4 * resumed.epochs == 8
    assert len({row["return_after_1"] for row in history}) == 4
    assert all(row["skipped"] == row["unstable"] == 0 for row in history)


def test_another_seed_ends_elsewhere(whole):
    expected, history = whole("ProMP")
    other, others = run("ProMP", 4, seed=4)
    with pytest.raises(AssertionError):
        states.assert_same(expected, other)
    assert history[0]["return_after_0"] != others[0]["return_after_0"]


def test_rows_of_several_steps_and_no_log_train_alike(whole):
    expected, history = whole("MultimodalProMP")
    learner, (row,) = run("MultimodalProMP", 4, log_every=4)
    for name, found in states.arrays_of(learner).items():
        if found.shape != ():  # metrics count the steps of a row
            assert found.tobytes() == expected[name].tobytes()
    mean = sum(r["return_after_1"] for r in history) / 4
    assert row["return_after_1"] == pytest.approx(mean, rel=1e-5)


def test_another_configuration_is_refused(tmp_path):
    run("ProMP", 1, tmp_path, config={"clip": 0.1})
    with pytest.raises(CheckpointMismatchError, match=r"clip: 0\.1 in the checkpoint, 0\.2 now"):
        run("ProMP", 2, tmp_path, config={"clip": 0.2})
