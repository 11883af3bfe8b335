"""What a Keras loss means for a task, and what is refused."""

import factory
import keras
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.losses import TaskLoss

losses = keras.losses
RNG = np.random.default_rng(0)
TARGETS, OUTPUTS = (RNG.normal(size=(3, 4, 2)).astype("f") for _ in range(2))


@pytest.mark.parametrize(
    "loss",
    [
        losses.MeanSquaredError(),
        losses.Huber(reduction="sum"),
        losses.MeanAbsoluteError(reduction="mean"),
        losses.CosineSimilarity(),
    ],
)
def test_the_loss_of_a_task_is_that_of_keras_on_its_points_alone(loss):
    found = TaskLoss(loss)(tf.constant(TARGETS), tf.constant(OUTPUTS))
    expected = [loss(y, p) for y, p in zip(TARGETS, OUTPUTS, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_loss_of_each_task_stays_as_it_is():
    def of_tasks(y, p):
        return tf.reduce_max(tf.abs(y - p), axis=[1, 2])

    found = TaskLoss(of_tasks)(tf.constant(TARGETS), tf.constant(OUTPUTS))
    np.testing.assert_allclose(found, np.abs(TARGETS - OUTPUTS).max(axis=(1, 2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (None, "a learner needs one loss"),
        (["mse", "mae"], "a learner needs one loss"),
        ({"out": "mse"}, "a learner needs one loss"),
        (losses.MeanSquaredError(reduction="none"), "reduction='none'"),
        ("mean_sqared_error", "interpret"),
    ],
)
def test_what_is_no_loss_of_a_task_is_refused(loss, message):
    with pytest.raises(ValueError, match=message):
        factory.learner("MAML", jit=None).compile("sgd", loss)


@pytest.mark.parametrize(
    "loss",
    [
        lambda y, p: tf.reduce_mean(tf.square(y - p)),
        lambda y, p: tf.reduce_mean(tf.square(y - p), axis=0),
        losses.Dice(),
    ],
)
def test_a_loss_that_mixes_tasks_is_refused(loss):
    with pytest.raises(ValueError, match="keeps the axes of tasks and points"):
        factory.learner("MAML", jit=None).compile("sgd", loss)


def classifier(loss, activation=None, outputs=3, targets=()):
    """An untrained classifier of vectors, and one batch for it."""
    dense = keras.layers.Dense(outputs, activation)
    net = keras.Sequential([keras.Input((2,)), dense])
    learner = mm.MAML(net, inner_loop=mm.InnerLoop(1, 0.1))
    learner.compile("sgd", loss, jit_compile=False)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 2)).astype("f")
    y = np.tile(np.int32([0, 1, 2, 0, 1, 2]), (2, 1))
    if targets:
        y = (rng.random((2, 6, *targets)) > 0.5).astype("f")
    batch = mm.Episodes(x, y, x, y)
    learner.build_for(batch)
    return learner, batch


LOGITS = {
    "labels": (losses.SparseCategoricalCrossentropy(from_logits=True), 3, ()),
    "one-hot": (losses.CategoricalCrossentropy(from_logits=True), 3, (3,)),
    "binary": (losses.BinaryCrossentropy(from_logits=True), 1, (1,)),
}


@pytest.mark.parametrize("kind", LOGITS)
def test_exported_classifiers_give_probabilities(kind, tmp_path):
    loss, outputs, targets = LOGITS[kind]
    learner, (x, y, *_) = classifier(loss, None, outputs, targets)
    logits = learner.adapt(x, y)(x)
    learner.export(tmp_path / "model")
    exported = tf.saved_model.load(tmp_path / "model")
    found = exported.adapt_and_predict(x, y, x)
    expected = tf.sigmoid(logits) if kind == "binary" else tf.nn.softmax(logits)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "activation", "outputs", "targets", "message"),
    [
        ("sparse_categorical_crossentropy", None, 3, (), "from_logits=True"),
        (losses.CategoricalCrossentropy(), None, 3, (3,), "gives logits"),
        ("binary_crossentropy", None, 1, (1,), "gives logits"),
        (LOGITS["labels"][0], "softmax", 3, (), "from_logits=False"),
        (LOGITS["binary"][0], "sigmoid", 1, (1,), "gives probabilities"),
    ],
)
def test_logits_where_probabilities_are_wanted_are_refused(
    loss, activation, outputs, targets, message
):
    with pytest.raises(ValueError, match=message):
        classifier(loss, activation, outputs, targets)


def test_probabilities_are_exported_as_they_are():
    learner, _ = classifier("sparse_categorical_crossentropy", "softmax")
    assert learner.link is None
    learner, _ = classifier(lambda y, p: -tf.gather(p, y, batch_dims=2), "softmax")
    assert learner.link is None


BAD = {
    "labels from 1": (lambda y: y + 1, "class labels from 0 to 2"),
    "negative labels": (lambda y: y - 1, "class labels from 0 to 2"),
    "labels as floats": (lambda y: y.astype("f"), "class labels are integers"),
    "labels as strings": (lambda y: y.astype(str), "no array of numbers"),
}


@pytest.fixture(scope="module")
def trained():
    learner, batch = classifier(LOGITS["labels"][0])
    learner.fit(batch, verbose=0)
    return learner, batch


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("field", ["support_y", "query_y"])
def test_bad_labels_are_named_wherever_they_are_given(trained, bad, field):
    learner, batch = trained
    change, message = BAD[bad]
    wrong = batch._replace(**{field: change(getattr(batch, field))})
    for call in (learner.fit, learner.evaluate, learner.train_on_batch, learner.test_on_batch):
        given = {"verbose": 0} if call in (learner.fit, learner.evaluate) else {}
        with pytest.raises(ValueError, match=f"{field}.*{message}"):
            call(wrong, **given)
    if field == "support_y":
        with pytest.raises(ValueError, match=f"support_y.*{message}"):
            learner.adapt(*wrong[:2])


def test_an_exported_model_names_bad_values(trained, tmp_path):
    learner, (x, y, *_) = trained
    learner.export(tmp_path / "model")
    exported = tf.saved_model.load(tmp_path / "model")
    holed = x.copy()
    holed[1, 2, 0] = np.nan
    for arguments, message in (
        ((x, y + 1, x), r"support_y of task 0, point 2 is 3; expected class labels from 0 to 2"),
        ((holed, y, x), r"support_x of task 1, point 2 is nan; expected finite numbers"),
        ((x, y, holed), r"query_x of task 1, point 2 is nan"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            exported.adapt_and_predict(*arguments)


def test_values_that_are_not_finite_are_named(trained):
    learner, batch = trained
    learner.guard.skipped.assign(0)
    for field in ("support_x", "query_x"):
        x = batch.support_x.copy()
        x[1, 4, 1] = np.inf
        wrong = batch._replace(**{field: x}, origin=np.int64([7, 12]))
        with pytest.raises(
            ValueError, match=rf"{field} of task 1, point 4 is inf.*seed 7, step 12"
        ):
            learner.fit(wrong, verbose=0)
    with pytest.raises(ValueError, match="query_x of task 0, point 0 is nan"):
        learner.adapt(*batch[:2])(np.full_like(x, np.nan))
    assert int(learner.guard.skipped) == 0
