"""Checkpoints survive crashes and damage, and are never mistaken for another run's."""

import json
import os
import re
import shutil
import warnings

import factory
import numpy as np
import pytest
import states
import tensorflow as tf

from mmaml_tf import checkpoint
from mmaml_tf.checkpoint import CheckpointMismatchError, Checkpoints

CONFIG = {"cell": {"modulation": "film", "steps": 5, "modes": ("sinusoid", "linear")}, "seed": 0}


def arrays(step):
    rng = np.random.default_rng(step)
    return {
        "weight_000/kernel": rng.normal(size=(100, 100)).astype(np.float32),
        "weight_001/count": np.array(step, np.int64),
        "optimizer_000/momentum": np.array([np.nan, -0.0, np.inf, 1e-42], np.float32),
    }


def history(step):
    return [{"step": s, "loss": 1 / (3 * s), "skipped": 0} for s in range(5, step + 1, 5)]


def save(checkpoints, *steps):
    for step in steps:
        checkpoints.save(step, arrays(step), history(step))


def assert_restores(checkpoints, step, warned=""):
    """Checks that exactly the checkpoint of `step` is read, with or without a warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        restored = checkpoints.restore()
    assert bool(caught) == bool(warned)
    for warning in caught:
        assert re.search(warned, str(warning.message))
    if step is None:
        assert restored is None
        return
    assert restored.step == step
    assert restored.history == history(step)
    expected = arrays(step)
    assert list(restored.arrays) == list(expected)
    for name, array in expected.items():
        assert restored.arrays[name].dtype == array.dtype
        assert restored.arrays[name].shape == array.shape
        assert restored.arrays[name].tobytes() == array.tobytes()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "run" / "checkpoints"


@pytest.fixture
def checkpoints(directory):
    return Checkpoints(directory, CONFIG)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_what_was_saved_is_restored(checkpoints, directory):
    assert_restores(checkpoints, None)
    save(checkpoints, 5)
    assert_restores(checkpoints, 5)
    save(checkpoints, 10)
    assert_restores(Checkpoints(directory, CONFIG), 10)


def test_saving_a_step_again_replaces_it(checkpoints, directory):
    save(checkpoints, 5, 10)
    checkpoints.save(10, {"a": np.ones(2)}, [])
    restored = checkpoints.restore()
    assert list(restored.arrays) == ["a"]
    assert names(directory) == ["step-000000005", "step-000000010"]


@pytest.mark.parametrize(("keep", "kept"), [(1, [15, 20]), (2, [15, 20]), (3, [10, 15, 20])])
def test_only_the_newest_are_kept(directory, keep, kept):
    save(Checkpoints(directory, CONFIG, keep), 5, 10, 15, 20)
    assert names(directory) == [f"step-{step:09d}" for step in kept]


def truncate(folder):
    data = (folder / "state.npz").read_bytes()
    (folder / "state.npz").write_bytes(data[: len(data) // 2])


def flip_a_bit(folder):
    data = bytearray((folder / "state.npz").read_bytes())
    data[len(data) // 3] ^= 1  # in the middle of the kernel
    (folder / "state.npz").write_bytes(data)


def alter(name, change):
    def damage(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return damage


def overwrite(name, content):
    return lambda folder: (folder / name).write_bytes(content)


DAMAGES = {
    "state truncated": truncate,
    "state empty": overwrite("state.npz", b""),
    "a bit of the state": flip_a_bit,
    "a number in the history": alter("history.json", lambda rows: rows[0].update(loss=0.5)),
    "the step": alter("manifest.json", lambda manifest: manifest.update(step=7)),
    "the configuration": alter("manifest.json", lambda m: m["config"].update(seed=1)),
    "no digest": alter("manifest.json", lambda manifest: manifest.pop("digest")),
    "manifest empty": overwrite("manifest.json", b""),
    "manifest zeroed": overwrite("manifest.json", bytes(700)),
    "manifest no text": overwrite("manifest.json", b"\xff\xfe"),
    "manifest a list": overwrite("manifest.json", b"[]"),
    "manifest null": overwrite("manifest.json", b"null"),
    "no state": lambda folder: (folder / "state.npz").unlink(),
    "no history": lambda folder: (folder / "history.json").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "nothing": lambda folder: [file.unlink() for file in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(checkpoints, directory, damage):
    save(checkpoints, 5, 10)
    damage(directory / "step-000000010")
    assert_restores(checkpoints, 5, warned=r"step-000000010 is damaged \(.+\)")
    save(checkpoints, 10)  # training goes on from step 5 and comes to step 10 again
    assert_restores(checkpoints, 10)
    assert names(directory) == ["step-000000005", "step-000000010"]


def test_with_every_checkpoint_damaged_training_starts_anew(checkpoints, directory):
    save(checkpoints, 5, 10)
    for folder in directory.iterdir():
        truncate(folder)
    assert_restores(checkpoints, None, warned="is damaged")


class CrashError(Exception):
    pass


def crash(*args, **kwargs):
    raise CrashError


@pytest.mark.parametrize("function", ["rename", "fsync"])
def test_a_crash_before_the_name_appears_costs_nothing(
    checkpoints, directory, monkeypatch, function
):
    save(checkpoints, 5)
    with monkeypatch.context() as patch:
        patch.setattr(os, function, crash)
        with pytest.raises(CrashError):
            save(checkpoints, 10)
    assert len(names(directory)) == 2  # a partial directory was left behind
    assert_restores(checkpoints, 5)
    save(checkpoints, 10)
    assert_restores(checkpoints, 10)
    assert names(directory) == ["step-000000005", "step-000000010"]


def test_a_crash_while_old_ones_are_removed_costs_nothing(checkpoints, monkeypatch):
    save(checkpoints, 5, 10)
    remove = shutil.rmtree

    def interrupted(path, ignore_errors=False):
        if os.path.basename(path) == "step-000000005":
            os.unlink(path / "manifest.json")
            raise CrashError
        remove(path, ignore_errors=ignore_errors)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(CrashError):
            save(checkpoints, 15)
    assert_restores(checkpoints, 15)
    save(checkpoints, 20)
    assert_restores(checkpoints, 20)


def test_the_name_appears_when_everything_is_on_disk(checkpoints, directory, monkeypatch):
    """Every file is synchronised before the rename, and the directory after it."""
    events = []
    sync, rename = checkpoint._sync, os.rename
    monkeypatch.setattr(checkpoint, "_sync", lambda p: (events.append(p.name), sync(p)))
    monkeypatch.setattr(os, "rename", lambda a, b: (events.append("rename"), rename(a, b)))
    save(checkpoints, 5)
    position = events.index("rename")
    files = {"state.npz", "history.json", "manifest.json", ".partial-step-000000005"}
    assert set(events[:position]) == files
    assert events[position + 1 :] == [directory.name]


@pytest.mark.parametrize("written", [0, 1000])
def test_a_full_disk_leaves_the_earlier_ones(checkpoints, monkeypatch, written):
    save(checkpoints, 5)

    def full(file, **arrays):
        with open(file, "wb") as stream:
            stream.write(bytes(written))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space left"):
            save(checkpoints, 10)
    assert_restores(checkpoints, 5)
    save(checkpoints, 10)
    assert_restores(checkpoints, 10)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({**CONFIG, "seed": 1}, "seed: 0 in the checkpoint, 1 now"),
        (
            {**CONFIG, "cell": {**CONFIG["cell"], "modulation": "sigmoid"}},
            "cell.modulation: film in the checkpoint, sigmoid now",
        ),
        ({**CONFIG, "noise": 0.3}, r"noise: \(absent\) in the checkpoint, 0.3 now"),
        ({"cell": CONFIG["cell"]}, r"seed: 0 in the checkpoint, \(absent\) now"),
        (
            {**CONFIG, "cell": {**CONFIG["cell"], "modes": ["linear"]}},
            r"cell.modes: \['sinusoid', 'linear'\] in the checkpoint, \['linear'\] now",
        ),
        ({**CONFIG, "cell": None}, "cell: {.*} in the checkpoint, None now"),
    ],
)
def test_another_configuration_is_refused(checkpoints, directory, other, message):
    save(checkpoints, 5, 10)
    with pytest.raises(CheckpointMismatchError, match=message) as caught:
        Checkpoints(directory, other).restore()
    assert str(directory / "step-000000010") in str(caught.value)
    assert_restores(checkpoints, 10)


def test_all_differences_are_named():
    stored, given = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 2, "c": 2}, "e": 4}
    assert [line.split(":")[0] for line in checkpoint.differences(stored, given)] == [
        "a.b",
        "d",
        "e",
    ]
    assert checkpoint.differences(stored, stored) == []


# -- the state of a learner ---------------------------------------------------------------------


def fit(learner, steps, seed=0):
    learner.fit(factory.dataset(factory.episodes(seed=seed), steps), verbose=0)


def test_state_holds_all_that_training_depends_on():
    learner, other = factory.learner("MMAML"), factory.learner("MMAML")
    fit(learner, 3)
    state = checkpoint.learner_state(learner)
    kept = {name: array.copy() for name, array in state.items()}
    fit(learner, 2, seed=1)
    expected = checkpoint.learner_state(learner)
    for name, array in state.items():
        np.testing.assert_array_equal(array, kept[name], err_msg="training changed a saved array")
    other.optimizer.build(other.trainable_variables)
    checkpoint.set_learner_state(other, state)
    fit(other, 2, seed=1)
    states.assert_same(other, expected)
    assert len(expected) == len(learner.weights) + len(learner.optimizer.variables)
    moved = [n for n in state if not np.array_equal(state[n], expected[n])]
    assert any("weight" in n for n in moved) and any("optimizer" in n for n in moved)


def rename(state):
    state["weight_999/other"] = state.pop(next(iter(state)))


def drop(state):
    del state["optimizer_000/iteration"]


def reshape(state):
    state["weight_002/kernel"] = state["weight_002/kernel"].T


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, "weight_000/kernel.*weight_999/other"),
        (drop, "optimizer_000/iteration"),
        (reshape, r"weight_002/kernel has shape \(5, 4\), the stored array \(4, 5\)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change, message):
    learner = factory.learner("MAML")
    learner.optimizer.build(learner.trainable_variables)
    state = checkpoint.learner_state(learner)
    before = {name: array.copy() for name, array in state.items()}
    change(state)
    state["weight_001/bias"] = state["weight_001/bias"] + 1
    with pytest.raises(ValueError, match=message):
        checkpoint.set_learner_state(learner, state)
    states.assert_same(learner, before)  # not half of it was set


def test_a_state_of_another_recipe_is_refused():
    state = checkpoint.learner_state(factory.learner("MAML"))
    with pytest.raises(ValueError, match="does not fit the learner"):
        checkpoint.set_learner_state(factory.learner("MMAML"), state)


def test_other_versions_are_warned_of(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, CONFIG)
    save(checkpoints, 5)
    assert_restores(checkpoints, 5)
    monkeypatch.setattr(tf, "__version__", "9.9")
    assert_restores(checkpoints, 5, warned=r"'tensorflow': '9\.9'.*need not end with the same")
