"""Exported classifiers give the probabilities that the learner gives, for any size of a task."""

import os
import subprocess
import sys

import images
import keras
import numpy as np
import pytest
import states
import tensorflow as tf

import mmaml_tf as mm

CASES = {
    "MAML": ("MAML", {}),
    "MAML, statistics of the support set": ("MAML", {"statistics": "support"}),
    "MMAML": ("MMAML", {"fewer_ways": True}),
    "ProtoNet": ("ProtoNet", {"fewer_ways": True}),
}
#: (tasks, ways, images a class, queries a class)
SIZES = [(1, 3, 1, 2), (3, 3, 2, 1), (2, 2, 3, 4)]


def batch(size):
    tasks, ways, support, queries = size
    return images.tasks(ways=ways, support=support, queries=queries).sample(tasks, seed=1)[:3]


def probabilities(learner, support_x, support_y, query_x):
    return tf.nn.softmax(learner.adapt(support_x, support_y)(query_x)).numpy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """By case, the learner, its SavedModel's directory, and the model."""
    folder, made = tmp_path_factory.mktemp("exported"), {}
    for i, (case, (recipe, settings)) in enumerate(CASES.items()):
        learner = images.learner(recipe, **settings)
        learner.export(folder / str(i))
        made[case] = learner, folder / str(i), tf.saved_model.load(folder / str(i))
    return made


@pytest.mark.parametrize("case", CASES)
def test_the_saved_model_gives_the_learners_probabilities(exported, case):
    learner, _, loaded = exported[case]
    for size in SIZES:
        arguments = batch(size)
        found = loaded.adapt_and_predict(*arguments).numpy()
        assert found.shape == (size[0], size[1] * size[3], 3)
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(found, probabilities(learner, *arguments), atol=1e-5)
        if learner.fewer_ways:
            assert np.all(found[..., size[1] :] == 0)
    support_x, support_y, query_x = arguments
    others = loaded.adapt_and_predict(support_x, support_y[:, ::-1], query_x)
    assert not np.allclose(others, found, atol=1e-3)  # it does look at the labels


@pytest.mark.parametrize("case", ["MAML", "MAML, statistics of the support set"])
def test_other_queries_matter_only_to_their_own_statistics(exported, case):
    learner, _, loaded = exported[case]
    x, y, q = batch((1, 3, 1, 3))
    alone, together = (loaded.adapt_and_predict(x, y, part)[:, :2] for part in (q[:, :2], q))
    assert np.allclose(alone, together, atol=1e-5) == learner.network.uses_support


def test_embeddings(exported):
    learner, _, loaded = exported["MMAML"]
    x, y, _ = batch((3, 3, 2, 1))
    np.testing.assert_allclose(loaded.embed(x, y), learner.embed(x, y), atol=1e-5)


def test_the_signature_tells_what_the_model_is_for(exported):
    for *_, loaded in exported.values():
        signature = loaded.signatures["adapt_and_predict"]
        specs = signature.structured_input_signature[1]
        assert specs["support_y"].dtype == tf.int32
        assert specs["support_x"].shape.as_list() == [None, None, 8, 8, 3]
        (output,) = signature.structured_outputs.values()
        assert output.shape.as_list() == [None, None, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, q: (x, y + 1, q), "support_y of task .* expected class labels from 0 to 2"),
        (lambda x, y, q: (x, y - 1, q), "support_y of task .* expected class labels from 0 to 2"),
        (lambda x, y, q: (x, y[:, :2], q), "support_x and support_y differ in T or K"),
        (lambda x, y, q: (x[:1], y, q), "support_x and support_y differ in T or K"),
        (lambda x, y, q: (x, y, q[:1]), "support_x and query_x differ in the number of tasks"),
        (lambda x, y, q: (x[:, :0], y[:, :0], q), "a task needs at least one support point"),
    ],
)
@pytest.mark.parametrize("case", ["MAML", "ProtoNet"])
def test_what_does_not_fit_is_refused_in_the_graph(exported, case, change, message):
    *_, loaded = exported[case]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        loaded.adapt_and_predict(*change(*batch((2, 3, 1, 1))))


def test_embed_refuses_labels_without_a_class(exported):
    x, y, _ = batch((2, 3, 1, 1))
    *_, loaded = exported["MMAML"]
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"support_y of task .* labels from 0 to 2"
    ):
        loaded.embed(x, y + 1)


def keras_learner(last, loss):
    network = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(3, 3, strides=4, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, last, kernel_initializer=keras.initializers.GlorotUniform(1)),
        ]
    )
    learner = mm.MAML(network, inner_loop=mm.InnerLoop(1, 0.1))
    learner.compile(loss=loss)
    learner.build(((None, None, 8, 8, 3), (None, None)))
    return learner


@pytest.mark.parametrize(
    ("last", "loss"),
    [
        (None, keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
        ("softmax", keras.losses.SparseCategoricalCrossentropy()),
        ("softmax", "sparse_categorical_crossentropy"),
    ],
)
def test_a_keras_model_of_logits_or_of_probabilities(tmp_path, last, loss):
    learner, arguments = keras_learner(last, loss), batch((2, 3, 1, 2))
    learner.export(tmp_path / "model")
    loaded = tf.saved_model.load(tmp_path / "model")
    found = loaded.adapt_and_predict(*arguments)
    outputs = learner.adapt(*arguments[:2])(arguments[2])
    expected = outputs if last else tf.nn.softmax(outputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(found, -1), 1, rtol=1e-5)


ALONE = """
import sys
import numpy as np, tensorflow as tf

for path in sys.argv[1:]:
    with np.load(f"{path}.npz") as file:
        arguments = list(file.values())
    model = tf.saved_model.load(path)
    np.save(f"{path}.npy", model.adapt_and_predict(*arguments))
assert "mmaml_tf" not in sys.modules
"""


def test_classifiers_need_tensorflow_alone(exported):
    arguments = batch((2, 3, 1, 2))
    paths = [str(path) for _, path, _ in exported.values()]
    for path in paths:
        np.savez(f"{path}.npz", *arguments)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *paths],
        env={**os.environ, "PYTHONPATH": ""}, cwd="/", capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for learner, path, _ in exported.values():
        expected = probabilities(learner, *arguments)
        np.testing.assert_allclose(np.load(f"{path}.npy"), expected, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_keras_file_keeps_everything(exported, tmp_path, case):
    learner, *_ = exported[case]
    learner.optimizer.build(learner.trainable_variables)  # as training does
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert type(loaded) is type(learner)
    states.assert_same(learner, loaded)
    for size in SIZES:
        x, y, q = batch(size)
        # The graph of a learner that has met other sizes convolves in another form.
        np.testing.assert_allclose(loaded.adapt(x, y)(q), learner.adapt(x, y)(q), atol=1e-5)
