"""Few-shot classifiers: losses, accuracies, prototypes, fewer ways than outputs, learning."""

import images
import keras
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm

RECIPES = ("MAML", "MMAML", "ProtoNet")


def softmax(logits):
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def test_task_losses_are_mean_cross_entropies():
    learner, rng = images.learner("MAML"), np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, 3)).astype("f")
    labels = rng.integers(0, 3, (2, 5))
    chosen = np.take_along_axis(softmax(logits), labels[..., None], axis=-1)[..., 0]
    found = learner.task_losses(tf.constant(labels, tf.int32), tf.constant(logits))
    np.testing.assert_allclose(found, -np.log(chosen).mean(-1), rtol=1e-5)


def test_prototypes_are_means_and_logits_distances():
    learner, batch = images.learner("ProtoNet"), images.tasks(support=3).sample(4, seed=0)
    predict = learner.adapt(batch.support_x, batch.support_y)
    found = softmax(predict(batch.query_x).numpy())
    network = learner.network
    for task in range(4):
        support, query = (network(a[task]).numpy() for a in (batch.support_x, batch.query_x))
        means = np.stack([support[batch.support_y[task] == c].mean(0) for c in range(3)])
        distances = ((query[:, None] - means) ** 2).sum(-1)
        np.testing.assert_allclose(found[task], softmax(-distances), atol=1e-5)


def test_scores_that_are_not_finite_are_no_hits():
    """Among those argmax finds the first class, which would look like chance."""
    learner, held_out = images.learner("MAML"), images.tasks(split="test").held_out(4, seed=1)
    found = mm.evaluate(learner, held_out).values(steps=0)
    assert found.mean() > 0
    learner.inner_loop.learning_rate = 1e38  # the weights overflow
    assert mm.evaluate(learner, held_out).values().max() == 0


def test_prototypes_take_no_steps():
    learner, held_out = images.learner("ProtoNet"), images.tasks(split="test").held_out(4, seed=1)
    report = mm.evaluate(learner, held_out, curve=3)
    assert np.ptp(report.measures["accuracy"], axis=0).max() == 0
    with pytest.raises(ValueError, match="ProtoNet has no inner_loop"):
        mm.ProtoNet(mm.networks.ConvNet((4,), None), ways=3, inner_loop=mm.InnerLoop())


@pytest.mark.parametrize("recipe", RECIPES)
def test_evaluation_reports_accuracy_and_loss_by_mode(recipe):
    learner = images.learner(recipe)
    held_out = images.tasks(split="test").held_out(6, seed=1)
    report = mm.evaluate(learner, held_out, curve=(1, 4))
    assert report.curve == tuple(sorted({0, 1, 4, learner.inner_loop.steps}))
    assert next(iter(report.measures)) == "accuracy" and report.measures["loss"].shape[1] == 12
    (batch, _) = list(held_out.batches(6))[1]
    logits = learner.adapt(batch.support_x, batch.support_y)(batch.query_x).numpy()
    expected = (logits.argmax(-1) == batch.query_y).mean(-1)
    np.testing.assert_allclose(report.values("b"), expected)
    with pytest.raises(ValueError, match="steps=3 was not measured"):
        report.values(steps=3)
    again = mm.evaluate(learner, held_out, curve=(1, 4), batch_size=5)
    np.testing.assert_allclose(again.measures["loss"], report.measures["loss"], atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_outputs_beyond_a_tasks_ways_stay_out(recipe):
    """A 5-way network on 3-way tasks gives and learns what a 3-way network would."""
    batch = images.tasks(ways=3).sample(2, seed=0)
    wide = images.learner(recipe, ways=5, fewer_ways=True)
    narrow = images.learner(recipe, ways=3)
    for target, source in zip(narrow.trainable_variables, wide.trainable_variables, strict=True):
        cut = [slice(n) for n in target.shape]
        target.assign(source.numpy()[tuple(cut)])
    expected = narrow.adapt(batch.support_x, batch.support_y)(batch.query_x)
    found = wide.adapt(batch.support_x, batch.support_y)(batch.query_x).numpy()
    np.testing.assert_allclose(softmax(found)[..., :3], softmax(expected.numpy()), atol=1e-5)
    assert np.all(softmax(found)[..., 3:] == 0)
    losses = [made.task_losses(batch.query_y, made.call(batch[:3])) for made in (wide, narrow)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    full = images.tasks(ways=5).sample(2, seed=0)
    plain = images.learner(recipe, ways=5)
    plain.set_weights(wide.get_weights())
    np.testing.assert_array_equal(wide.call(full[:3]), plain.call(full[:3]))


def test_labels_are_integers():
    learner, batch = images.learner(), images.tasks().sample(2, seed=0)
    with pytest.raises(ValueError, match="support_y has type float32; class labels are integers"):
        learner.adapt(batch.support_x, batch.support_y.astype("f"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_labels_may_have_an_axis_of_one(recipe):
    batch = images.tasks(ways=3).sample(2, seed=0)
    column = batch._replace(support_y=batch.support_y[..., None], query_y=batch.query_y[..., None])
    learners = [images.learner(recipe, ways=5, fewer_ways=True) for _ in range(2)]
    for learner, given in zip(learners, (batch, column), strict=True):
        learner.fit(tf.data.Dataset.from_tensors(given._replace(origin=[0, 0])), verbose=0)
    for a, b in zip(*(learner.trainable_variables for learner in learners), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("recipe", RECIPES)
def test_learning_beats_chance_by_far(recipe):
    learner = images.learner(recipe, jit=recipe == "MMAML")
    tasks = images.tasks()
    learner.fit(tasks.dataset(4, seed=0), epochs=1, steps_per_epoch=60, verbose=0)
    report = mm.evaluate(learner, images.tasks(split="test"), tasks_per_mode=40, seed=1)
    accuracy = report.estimate()
    assert accuracy.mean - accuracy.ci95 > 0.6, "chance is a third"
    assert learner.get_metrics_result()["accuracy"] > 0.6


@pytest.mark.parametrize("recipe", ["MAML", "MMAML"])
def test_mixed_precision_is_close_to_single(recipe):
    batch = images.tasks().sample(4, seed=0)
    parts = []
    for policy in ("float32", "mixed_bfloat16"):
        network = mm.networks.ConvNet((4, 4), 3, dtype=policy)
        loop = mm.InnerLoop(2, 0.1)
        if recipe == "MAML":
            learner = mm.MAML(network, inner_loop=loop)
        else:
            encoder = mm.encoders.ImageEncoder((4, 4), units=6, dtype=policy)
            learner = mm.MMAML(network, encoder=encoder, modulation="film", inner_loop=loop)
        learner.compile(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
        )
        learner.build_for(batch)
        weights = learner.task_weights(len(batch.support_x), batch.mode)
        arrays = [tf.constant(a) for a in (*batch[:4], batch.mode)]
        _, gradients = learner._gradients([*arrays, weights])
        assert all(g.dtype == tf.float32 for g in gradients)
        parts.append(np.concatenate([np.ravel(g) for g in gradients]))
    reference, found = parts
    error = np.linalg.norm(found - reference) / np.linalg.norm(reference)
    assert 1e-6 < error < 0.1
