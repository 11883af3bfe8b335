"""What the package uses of Keras's inner parts means what it is taken for."""

import ast

import keras
import numpy as np
import pytest
import tensorflow as tf
from repository import ROOT

from mmaml_tf import keras_internals as internals


def test_this_is_the_version_that_was_checked():
    found = keras.__version__.split(".")[:2]
    assert ".".join(found) == internals.CHECKED, "check each of its functions, then change CHECKED"


def test_layers_come_before_those_inside_them():
    shared = keras.layers.Dense(2)
    inner = keras.Sequential([shared, keras.layers.Dense(3)])
    model = keras.Sequential([keras.layers.Flatten(), inner, keras.Sequential([shared])])
    names = [layer.name for layer in internals.flat_layers(model)]
    expected = [model, model.layers[0], inner, *inner.layers, model.layers[2]]
    assert names == [layer.name for layer in expected]
    assert [a.name for a in internals.flat_layers(model, include_self=False)] == names[1:]


@pytest.fixture
def model():
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    made.compile("adam", "mse", metrics=["mae"])
    return made


def test_an_optimizer_knows_its_weights(model):
    weights = model.trainable_variables[:2]
    model.optimizer.build(weights)
    assert list(map(id, internals.optimized_variables(model.optimizer))) == list(map(id, weights))


def test_the_loss_and_the_metrics_of_compile(model):
    x, y = np.ones((4, 3)), np.zeros((4, 1))
    measured = model.test_on_batch(x, y, return_dict=True)
    assert float(internals.loss_metric(model).result()) == pytest.approx(measured["loss"])
    compiled = internals.compiled_metrics(model)
    assert compiled.built
    (metric,) = compiled.metrics
    assert float(metric.result()) == pytest.approx(measured["mae"])
    assert internals.compiled_metrics(keras.Sequential()) is None


def test_masks_of_outputs():
    embedded = keras.layers.Embedding(4, 2, mask_zero=True)(tf.constant([[1, 0]]))
    np.testing.assert_array_equal(internals.mask_of(embedded), [[True, False]])
    assert internals.mask_of(tf.ones(2)) is None


def test_moments_of_a_batch_normalisation_are_replaced():
    layer = keras.layers.BatchNormalization(epsilon=0.0)
    layer.build((None, 1))

    def first_point(former, inputs, mask):
        mean, variance = former(inputs, mask)
        return inputs[0], 4 * variance + 0 * mean

    internals.replace_moments(layer, first_point)
    found = layer(tf.constant([[1.0], [3.0]]), training=True)
    np.testing.assert_allclose(found, [[0.0], [1.0]], rtol=1e-3)


def test_no_other_file_uses_private_names():
    private = {
        *("_flatten_layers", "_trainable_variables", "_loss_tracker", "_compile_metrics"),
        *("_keras_mask", "_keras_history", "_layers", "_losses", "_inbound_nodes"),
    }
    for path in (ROOT / "mmaml_tf").rglob("*.py"):
        if path.name != "keras_internals.py":
            nodes = list(ast.walk(ast.parse(path.read_text())))
            used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
            used |= {node.value for node in nodes if isinstance(node, ast.Constant)}
            assert not used & private, path
