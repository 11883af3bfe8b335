import factory
import keras
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.division import Division


def step(recipe, batch, jit=False, outer_clip=None, modulation="film", **compiled):
    """One plain gradient step; returns how far it moved each weight, and the logs."""
    learner = factory.learner(recipe, jit=None, outer_clip=outer_clip, modulation=modulation)
    learner.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=jit, metrics=["mae"], **compiled)
    before = [v.numpy() for v in learner.trainable_variables]
    history = learner.fit(factory.dataset(batch), verbose=0).history
    moved = [b - v.numpy() for b, v in zip(before, learner.trainable_variables, strict=True)]
    return moved, {name: values[0] for name, values in history.items()}


@pytest.mark.parametrize("recipe", factory.RECIPES)
def test_every_division_takes_the_step_of_the_undivided_gradient(float64, recipe):
    batch = factory.episodes(tasks=12, dtype=np.float64)
    learner = factory.learner(recipe)
    loss, gradients = factory.outer_gradient(learner, batch)
    predictions = learner.call(batch[:3], mode=batch.mode)
    mae = np.mean(np.abs(predictions - batch.query_y))
    for shards, tasks_at_once in ((3, 2), (12, 1), (5, 1)):
        moved, logs = step(recipe, batch, shards=shards, tasks_at_once=tasks_at_once)
        for a, b in zip(moved, gradients, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(logs["mae"], mae, rtol=1e-6)
        if recipe != "MultiMAML":
            np.testing.assert_allclose(logs["loss"], loss, rtol=1e-6)


@pytest.mark.parametrize("recipe", ["MMAML", "MultiMAML"])
def test_divisions_agree_under_xla(recipe):
    batch = factory.episodes(tasks=12)
    whole, _ = step(recipe, batch, jit=True, shards=1, tasks_at_once=12)
    divided, _ = step(recipe, batch, jit=True, shards=2, tasks_at_once=3)
    for a, b in zip(divided, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def test_blocks_and_gates_without_shift_can_be_divided(float64):
    batch = factory.episodes(tasks=4, dtype=np.float64)
    gate = mm.modulation.SoftmaxGate(blocks=[1])
    whole, _ = step("MMAML", batch, modulation=gate)
    gate = mm.modulation.SoftmaxGate(blocks=[1])
    divided, _ = step("MMAML", batch, modulation=gate, shards=2, tasks_at_once=1)
    for a, b in zip(divided, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_unequal_modes_keep_their_weights(float64):
    """Multi-MAML sums the modes' means, also where a shard holds one mode alone."""
    batch = factory.episodes(tasks=4, dtype=np.float64)._replace(mode=tf.constant([0, 0, 0, 1]))
    _, gradients = factory.outer_gradient(factory.learner("MultiMAML"), batch)
    moved, _ = step("MultiMAML", batch, shards=2, tasks_at_once=1)
    for a, b in zip(moved, gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_dataset_without_known_number_of_tasks_is_not_divided():
    learner = factory.learner("MAML", jit=None)
    learner.compile("sgd", "mse", jit_compile=False, shards=2, tasks_at_once=1)
    batch = factory.episodes(tasks=4)
    spec = tf.nest.map_structure(lambda a: tf.TensorSpec([None, *a.shape[1:]], a.dtype), batch)
    data = tf.data.Dataset.from_generator(lambda: iter([batch]), output_signature=spec)
    assert np.isfinite(learner.fit(data, verbose=0).history["loss"][0])


def test_parts_are_equal_and_as_large_as_their_bounds_allow():
    assert Division.of(50, 80_000, shards=2) == Division(2, 5)  # 5 tasks at once: 400 kB
    assert Division.of(50, 80_000, shards=4, tasks_at_once=50) == Division(2, 1)
    assert Division.of(50, 2**30, shards=1) == Division(1, 50)
    assert Division.of(7, 1, shards=2, tasks_at_once=7) == Division(1, 1)
    assert Division.of(None, 1, shards=2) == Division(1, 1)


def test_no_shard_is_left_out_where_the_tasks_do_not_divide_evenly():
    assert Division.of(75, 80_000, shards=2) == Division(2, 7, longer=1)  # 40 and 35
    assert Division.of(125, 80_000, shards=2) == Division(2, 12, longer=1)
    assert Division.of(7, 1, shards=2, tasks_at_once=1) == Division(2, 3, longer=1)
    (first, second), (a, b) = zip(*Division(2, 7, 1).split([np.arange(75), None]), strict=True)
    assert (a, b) == (8, 7)
    np.testing.assert_array_equal(np.concatenate([first[0], second[0]]), np.arange(75))
    assert len(first[0]) == 40 and first[1] is second[1] is None


@pytest.mark.parametrize(("threads", "shards"), [(1, 1), (2, 2), (3, 2), (8, 8)])
def test_every_thread_has_a_shard_by_default(monkeypatch, threads, shards):
    name = "tensorflow.config.threading.get_intra_op_parallelism_threads"
    monkeypatch.setattr(name, lambda: threads)
    assert Division.of(8, 1, tasks_at_once=8) == Division(shards, 1)


@pytest.mark.parametrize("wrong", [{"shards": 0}, {"tasks_at_once": -1}, {"shards": "all"}])
def test_impossible_divisions_are_refused(wrong):
    learner = factory.learner("MAML", jit=None)
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))}=.* whole number"):
        learner.compile("sgd", "mse", **wrong)


def test_a_loaded_learner_keeps_its_division(tmp_path):
    learner = factory.learner("MAML", jit=None)
    learner.compile("sgd", "mse", jit_compile=False, shards=2, tasks_at_once=1)
    learner.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_compile_config()["shards"] == 2
    assert loaded.get_compile_config()["tasks_at_once"] == 1
