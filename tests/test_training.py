"""Training ends with the same bytes whatever interrupts it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import factory
import images
import keras
import numpy as np
import pytest
import states
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf import rl
from mmaml_tf.checkpoint import CheckpointMismatchError, Checkpoints
from mmaml_tf.training import Validation, train

CONFIG = {"seed": 3}
TASKS = mm.tasks.FunctionTasks(support=3, queries=2)


def checkpoints(directory, config=CONFIG):
    return Checkpoints(directory, config)


def new_learner(recipe, **kwargs):
    return factory.learner(recipe, loop=factory.inner_loop(1), **kwargs)


like_new = states.reused(new_learner)


def run(
    directory=None, iterations=20, recipe="MAML", tasks=TASKS, make=None, learner=like_new, **kwargs
):
    """Trains a learner from its first state; returns it, which others may get, and the history."""
    learner = learner(recipe, **(make or {}))
    kwargs = {"log_every": 5, "checkpoint_every": 5, "batch_size": 4, "seed": 3} | kwargs
    if directory is not None:
        kwargs.setdefault("checkpoints", checkpoints(directory))
    return learner, train(learner, tasks, iterations=iterations, **kwargs)


def steps_in(directory):
    return [int(path.name.removeprefix("step-")) for path in sorted(directory.glob("step-*"))]


def newest(directory):
    return max(directory.glob("step-*"))


def assert_same_end(a, b):
    """Checks that the last checkpoints in two directories are the same, bit for bit."""
    a, b = newest(a), newest(b)
    assert a.name == b.name
    states.assert_same(a / "state.npz", b / "state.npz")
    assert (a / "history.json").read_bytes() == (b / "history.json").read_bytes()


def text(history):
    return json.dumps(history)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of 20 steps: its directory, last state and history."""
    directory = tmp_path_factory.mktemp("whole")
    learner, history = run(directory, 20)
    return directory, states.arrays_of(learner), history


@pytest.mark.parametrize(
    ("recipe", "make"),
    [
        ("MAML", {}),
        ("MultiMAML", {}),
        ("MMAML", {}),
        ("LSTMLearner", {"modulation": "softmax"}),
        pytest.param("MAML", {"jit": True}, id="MAML-XLA"),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, recipe, make):
    learner, history = run(tmp_path / "whole", 20, recipe, make=make)
    whole = states.arrays_of(learner)
    run(tmp_path / "halves", 10, recipe, make=make)
    assert steps_in(tmp_path / "halves") == [5, 10]
    resumed, again = run(tmp_path / "halves", 20, recipe, make=make, learner=new_learner)
    states.assert_same(whole, resumed)
    assert text(history) == text(again)
    assert_same_end(tmp_path / "whole", tmp_path / "halves")
    assert [row["step"] for row in history] == [5, 10, 15, 20]
    assert len({row["loss"] for row in history}) == 4
    by_mode = [history[0][f"loss_{mode}"] for mode in factory.MODES]
    np.testing.assert_allclose(np.mean(by_mode), history[0]["loss"], rtol=1e-5)
    saved = states.arrays_of(newest(tmp_path / "whole") / "state.npz")
    states.assert_same(whole, saved)


def test_a_finished_run_is_not_trained_again(whole):
    directory, state, history = whole
    rows, epochs = [], []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(epoch))
    again, same = run(directory, 20, on_log=rows.append, callbacks=[count])
    states.assert_same(state, again)
    assert history == same == rows
    assert not epochs


def test_another_seed_ends_elsewhere(whole):
    other, history = run(iterations=20, seed=4)
    assert history[0]["loss"] != whole[2][0]["loss"]
    with pytest.raises(AssertionError):
        states.assert_same(whole[1], other)


@pytest.mark.parametrize(
    ("every", "iterations", "kept"), [(5, 20, [15, 20]), (7, 25, [20, 25]), (100, 15, [15])]
)
def test_checkpoints_come_at_the_end_of_a_window(tmp_path, every, iterations, kept):
    run(tmp_path, iterations, checkpoint_every=every)
    assert steps_in(tmp_path) == kept


def test_logging_changes_nothing(tmp_path, whole):
    directory, silent, history = whole
    rows, batches = [], []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: batches.append(b))
    run(tmp_path, 10, on_log=rows.append, callbacks=[count])
    assert rows == history[:2]
    assert batches == [*range(5)] * 2
    rows.clear()
    logged, again = run(tmp_path, 20, on_log=rows.append, callbacks=[count])
    assert rows == again == history
    assert len(batches) == 20
    states.assert_same(silent, logged)
    assert_same_end(directory, tmp_path)


def test_checkpoints_change_nothing(whole):
    unsaved, history = run(None, 20)
    states.assert_same(whole[1], unsaved)
    assert text(history) == text(whole[2])


# -- interruptions ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[8, pytest.param(40, marks=pytest.mark.long)])
def killed(request, tmp_path_factory):
    """How often runs were killed, where, and how their attempts ended."""
    folder = tmp_path_factory.mktemp("killed")
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, tests / "killed_training.py", str(request.param), folder],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["whole"] == 0, done.stderr
    return request.param, folder, report


def test_kills_at_random_times_change_nothing(killed):
    kills, folder, report = killed
    landed = [a for a in report["attempts"] if a["status"] == -signal.SIGKILL]
    assert len(landed) == kills, report
    assert {a["moment"] for a in landed} == {"starting", "stepping", "writing"}
    assert any(a["cut_off"] for a in landed), "some kill hit the writing of a checkpoint"
    assert len({a["step"] for a in landed}) >= 2, "kills hit a run that went on between them"
    assert report["last"] == 0
    assert not list((folder / "killed").glob(".partial-*"))
    assert_same_end(folder / "whole", folder / "killed")


def test_sigterm_saves_at_the_end_of_the_window_and_exits_with_143(killed):
    _, folder, report = killed
    assert report["terminated"] == 143
    (step,) = report["terminated_at"]
    assert step % 5 == 0
    assert 0 < step < 200
    assert report["resumed"] == 0
    assert_same_end(folder / "whole", folder / "terminated")


class SendTerm(keras.callbacks.Callback):
    """Terminates this process at a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("step", "saved"), [(7, 10), (10, 10), (20, 20)])
def test_sigterm_finishes_the_window_of_its_step(tmp_path, whole, step, saved):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, 20, checkpoint_every=1000, callbacks=[SendTerm(step)])
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert steps_in(tmp_path) == [saved]
    run(tmp_path, 20)
    assert signal.getsignal(signal.SIGTERM) is before
    assert_same_end(whole[0], tmp_path)


def test_sigterm_after_the_last_window_is_not_lost(tmp_path, whole):
    class AtTheEnd(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        run(tmp_path, 20, callbacks=[AtTheEnd()])
    assert caught.value.code == 143
    assert_same_end(whole[0], tmp_path)


def test_sigterm_without_checkpoints_ends_the_run():
    with pytest.raises(SystemExit) as caught:
        run(None, 20, callbacks=[SendTerm(2)])
    assert caught.value.code == 143


def test_a_full_disk_ends_the_run_and_costs_one_window(tmp_path, monkeypatch, whole):
    savez = np.savez

    def full(file, **arrays):
        if "step-000000015" in str(file):
            raise OSError(28, "No space left on device")
        savez(file, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path, 20)
    assert steps_in(tmp_path) == [5, 10]
    run(tmp_path, 20)
    assert_same_end(whole[0], tmp_path)


# -- updates that are not finite ----------------------------------------------------------------


class Spoilt:
    """Function tasks with a batch of NaN targets at some steps."""

    def __init__(self, *steps):
        self.steps = steps

    def sample(self, *args):
        return TASKS.sample(*args)

    def dataset(self, tasks, seed, start=0):
        return TASKS.dataset(tasks, seed, start).map(self._spoil)

    def _spoil(self, episodes):
        bad = tf.reduce_any(episodes.origin[1] == tf.constant(self.steps, tf.int64))
        factor = tf.where(bad, 1e30, 1.0)
        return episodes._replace(query_y=episodes.query_y * tf.cast(factor, tf.float32))


def test_a_non_finite_update_leaves_the_last_good_checkpoint(tmp_path, whole):
    rows = []
    for _ in range(2):  # the second time from the checkpoint, into the same batch
        with pytest.raises(mm.NonFiniteError, match=r"step 12 \(task seed 3\)"):
            run(tmp_path, 20, tasks=Spoilt(12), on_log=rows.append)
        assert steps_in(tmp_path) == [5, 10]
    assert [row["step"] for row in rows] == [5, 10] * 2
    run(tmp_path, 20)
    assert_same_end(whole[0], tmp_path)


def test_the_same_learner_goes_on_after_a_stop(tmp_path, whole):
    """Restoring a checkpoint also undoes that the learner has stopped."""
    learner = like_new("MAML")
    settings = {"iterations": 20, "batch_size": 4, "seed": 3, "log_every": 5, "checkpoint_every": 5}
    with pytest.raises(mm.NonFiniteError):
        train(learner, Spoilt(12), checkpoints=checkpoints(tmp_path), **settings)
    train(learner, TASKS, checkpoints=checkpoints(tmp_path), **settings)
    states.assert_same(whole[1], learner)


def test_skipped_updates_are_counted_over_an_interruption(tmp_path):
    make, tasks = {"on_nonfinite": "skip"}, Spoilt(3, 12, 13, 19)
    _, history = run(tmp_path / "whole", 20, tasks=tasks, make=make)
    assert [row["skipped"] for row in history] == [1, 1, 3, 4]
    assert all(np.isfinite(row["loss"]) for row in history)
    run(tmp_path / "halves", 10, tasks=tasks, make=make)
    run(tmp_path / "halves", 15, tasks=tasks, make=make)
    learner, _ = run(tmp_path / "halves", 20, tasks=tasks, make=make)
    assert int(learner.guard.skipped) == 4
    assert_same_end(tmp_path / "whole", tmp_path / "halves")


def test_skips_in_a_row_are_counted_over_an_interruption(tmp_path):
    """Eleven in a row end training, also when a checkpoint lies between them."""
    make, tasks = {"on_nonfinite": "skip"}, Spoilt(*range(7, 18))
    _, history = run(tmp_path, 15, tasks=tasks, make=make)
    assert [row["skipped"] for row in history] == [0, 3, 8]
    with pytest.raises(mm.NonFiniteError, match=r"step 17 .* 11 updates in a row"):
        run(tmp_path, 20, tasks=tasks, make=make)
    assert steps_in(tmp_path) == [10, 15]


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers", [{"iterations": 12}, {"iterations": 0}, {"log_every": 0}, {"iterations": -5}]
)
def test_numbers_that_do_not_fit_are_refused(tmp_path, numbers):
    message = "positive multiple of log_every|(iterations|log_every)=.* whole number of at least 1"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **numbers)
    assert not list(tmp_path.iterdir())


def test_another_configuration_is_refused(tmp_path):
    run(tmp_path, 10)
    learner = like_new("MAML")
    before = states.arrays_of(learner)
    other = checkpoints(tmp_path, {"seed": 4})
    with pytest.raises(CheckpointMismatchError, match="seed: 3 in the checkpoint, 4 now"):
        train(learner, TASKS, iterations=20, batch_size=4, seed=4, log_every=5, checkpoints=other)
    assert steps_in(tmp_path) == [5, 10]
    weights = {k: v for k, v in states.arrays_of(learner).items() if k in before}
    states.assert_same(weights, before)


def test_windows_that_the_checkpoint_does_not_end_are_refused(tmp_path):
    run(tmp_path, 10)
    with pytest.raises(ValueError, match="step 10, which is no multiple of log_every=4"):
        run(tmp_path, 20, log_every=4)


def test_a_checkpoint_beyond_the_iterations_asked_for_is_refused(tmp_path):
    run(tmp_path, 10)
    with pytest.raises(ValueError, match="step 10, beyond iterations=5"):
        run(tmp_path, 5)
    assert steps_in(tmp_path) == [5, 10]


def test_a_learner_that_is_not_compiled_is_refused():
    with pytest.raises(ValueError, match="not compiled"):
        train(
            factory.learner("MAML", jit=None),
            TASKS,
            iterations=5,
            batch_size=4,
            seed=1,
            log_every=5,
        )


def test_a_checkpoint_of_another_learner_is_refused(tmp_path):
    run(tmp_path, 10)
    with pytest.raises(ValueError, match=r"weight_000/kernel has shape \(1, 3\)"):
        run(tmp_path, 20, make={"network": factory.mlp(hidden=(3, 4))})


def scores(*values):
    """Measures these scores one after the other, with the weights they were measured of."""
    given, seen = iter(values), []

    def measure(learner):
        seen.append([v.numpy().copy() for v in learner.trainable_variables])
        return {"score": next(given), "other": 1}

    return measure, seen


def test_the_weights_of_the_highest_score_are_selected():
    measure, seen = scores(0.1, 0.7, 0.7)
    learner, history = run(None, 25, validation=Validation(measure, 10))
    assert [row.get("validation_score") for row in history] == [None, 0.1, None, 0.7, 0.7]
    assert history[-1]["validation_other"] == 1
    for found, expected, last in zip(learner.trainable_variables, seen[1], seen[2], strict=True):
        np.testing.assert_array_equal(found, expected)
        assert np.any(expected != last)


def test_a_score_that_is_no_number_never_wins():
    measure, seen = scores(np.nan, 0.1, np.nan, -1.0)
    learner, _ = run(None, 20, validation=Validation(measure, 5))
    for found, expected in zip(learner.trainable_variables, seen[1], strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": TASKS.dataset(4, 0)}, "expected a task distribution"),
        ({"checkpoints": "folder"}, "checkpoints is a str"),
        ({"validation": Validation(lambda learner: 0.5, 5)}, "returned 0.5; expected numbers"),
        ({"validation": Validation(lambda learner: {"loss": 1}, 5)}, "returned .*; expected"),
        ({"iterations": 10.0}, "iterations=10.0: expected a whole number"),
    ],
)
def test_what_training_cannot_use_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        run(**{"iterations": 10} | given)


def test_a_resumed_run_selects_what_the_uninterrupted_one_does(tmp_path):
    learner, history = run(tmp_path / "a", 20, validation=Validation(scores(3, 4, 1, 2)[0], 5))
    whole = states.arrays_of(learner)
    selected = [v.numpy() for v in learner.trainable_variables]
    run(tmp_path / "b", 10, validation=Validation(scores(3, 4)[0], 5))
    resumed, again = run(tmp_path / "b", 20, validation=Validation(scores(1, 2)[0], 5))
    assert text(history) == text(again)
    assert_same_end(tmp_path / "a", tmp_path / "b")
    states.assert_same(whole, resumed)
    once_more, _ = run(tmp_path / "b", 20, validation=Validation(scores()[0], 5))
    for found, expected in zip(once_more.trainable_variables, selected, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_validation_falls_on_whole_rows():
    with pytest.raises(ValueError, match=r"validation.every=7, log_every=5"):
        run(None, 20, validation=Validation(scores()[0], 7))


@pytest.mark.parametrize(
    "tasks",
    [
        mm.tasks.FunctionTasks(modes=("sinusoid",), support=2, queries=2),
        images.tasks(),
        rl.GoalTasks("point_mass", modes=1),
    ],
    ids=["functions", "images", "goals"],
)
def test_batches_are_not_tuned(tasks):
    # The tuning's thread may hold up the end of a fit for as long as the fit took.
    assert tasks.dataset(tasks=1, seed=0).options().autotune.enabled is False
