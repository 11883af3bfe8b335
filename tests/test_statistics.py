"""Whose statistics batch normalisation uses, in wrapped Keras models and in `ConvNet`."""

import factory
import keras
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm

layers = keras.layers


def model(*after, axis=-1):
    """A model of vectors whose normalisation matters."""
    start = keras.initializers.RandomNormal(1.0, seed=2)
    inner = [
        layers.Dense(4, kernel_initializer=start),
        layers.BatchNormalization(axis=axis),
        *(after or [layers.Activation("tanh")]),
    ]
    return keras.Sequential([keras.Input((1,)), *inner, layers.Dense(1, kernel_initializer=start)])


def images(statistics):
    network = mm.networks.ConvNet((3, 4), 2, statistics=statistics)
    rng = np.random.default_rng(0)
    x, q = (rng.random((2, 4, 6, 6, 1), "float32") for _ in range(2))
    y = np.tile(np.int32([0, 1, 0, 1]), (2, 1))
    return learner(network, keras.losses.SparseCategoricalCrossentropy(True)), (x, y, q)


def learner(network, loss="mse", **kwargs):
    made = mm.MAML(network, inner_loop=mm.InnerLoop(1, 0.1), **kwargs)
    made.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
    return made


def vectors(statistics):
    network = mm.networks.KerasNetwork(model(), statistics=statistics)
    made, batch = learner(network), factory.episodes(support=4, query=4)
    made.build_for(batch)
    return made, batch[:3]


@pytest.mark.parametrize("make", [vectors, images])
@pytest.mark.parametrize("statistics", ["query", "support"])
def test_with_support_statistics_a_prediction_depends_on_no_other_query(make, statistics, tmp_path):
    made, (x, y, q) = make(statistics)
    made.build_for(mm.Episodes(x, y, q, y))
    adapted = made.adapt(x, y)
    alone, together = adapted(q[:, :2]), adapted(q)[:, :2]
    assert np.allclose(alone, together, atol=1e-5) == (statistics == "support")
    made.export(tmp_path / "model")
    exported = tf.saved_model.load(tmp_path / "model")
    expected = alone if made.link is None else made.link(alone)
    found = exported.adapt_and_predict(x, y, q[:, :2])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_support_statistics_are_those_that_keras_computes_of_the_support_set():
    made, (x, y, q) = vectors("support")
    own, oracle = made.network.model, model()
    oracle.set_weights(own.get_weights())
    norm = oracle.layers[1]
    predictions = made.adapt(x, y, steps=0)(q)
    for task in range(len(x)):
        z = oracle.layers[0](x[task]).numpy()
        norm.moving_mean.assign(z.mean(axis=0))
        norm.moving_variance.assign(z.var(axis=0))
        np.testing.assert_allclose(predictions[task], oracle(q[task]), rtol=1e-4, atol=1e-5)


def test_moving_statistics_are_learned_and_then_used():
    made, (x, y, q) = vectors("moving")
    own = made.network.model
    before = own.layers[1].moving_mean.numpy()
    made.fit(mm.Episodes(x, y, q, y), epochs=3, verbose=0)
    assert not np.allclose(before, own.layers[1].moving_mean)
    single = made.adapt(x, y, steps=0)(q[:, :1])
    np.testing.assert_allclose(single[1], own(q[1, :1]), rtol=1e-5, atol=1e-6)


def test_a_skipped_update_leaves_moving_statistics_alone():
    made, (x, y, q) = vectors("moving")
    before = made.get_weights()
    with pytest.raises(mm.NonFiniteError):
        made.fit(mm.Episodes(x, y, q, np.full_like(y, 1e30)), verbose=0)
    for a, b in zip(before[:6], made.get_weights(), strict=False):
        np.testing.assert_array_equal(a, b)


def test_points_that_would_be_normalised_by_themselves_are_refused():
    made, (x, y, q) = vectors("query")
    with pytest.raises(ValueError, match=r'1 query point.*statistics="support"'):
        made.adapt(x, y)(q[:, :1])
    with pytest.raises(ValueError, match="1 support point"):
        made.adapt(x[:, :1], y[:, :1])
    made, (x, y, q) = images("query")  # one pixel is left after two blocks of stride 2
    made.build_for(mm.Episodes(x, y, q, y))
    made.adapt(x, y)(q[:, :1])


INDIRECT = {
    "behind a linear activation": lambda: [
        layers.Activation("linear"),
        layers.BatchNormalization(),
    ],
    "behind pooling": lambda: [layers.AveragePooling1D(2), layers.BatchNormalization()],
    "in a nested model": lambda: [keras.Sequential([layers.BatchNormalization()])],
    "behind a reshape": lambda: [layers.Flatten(), layers.BatchNormalization()],
}


def modulated(between, modulation, names=None):
    inner = [layers.Conv1D(4, 3, name="early"), *between, layers.ReLU(), layers.Flatten()]
    net = keras.Sequential([keras.Input((6, 2)), *inner, layers.Dense(1)])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 6, 2)).astype("f")
    y = rng.normal(size=(2, 4, 1)).astype("f")

    class Mean(layers.Layer):
        def call(self, support_x, support_y):
            return tf.reduce_mean(support_y, axis=1)

    network = mm.networks.KerasNetwork(net, modulated=names)
    made = mm.MMAML(network, encoder=Mean(), modulation=modulation, inner_loop=mm.InnerLoop(1, 0.1))
    made.compile("sgd", "mse")
    made.build_for(mm.Episodes(x, y, x, y))
    return made


@pytest.mark.parametrize("between", INDIRECT.values(), ids=INDIRECT)
def test_a_modulation_that_a_normalisation_undoes_is_refused(between):
    with pytest.raises(ValueError, match="'early' cannot be modulated: it makes no difference"):
        modulated(between(), "film")


def test_a_scale_that_a_normalisation_undoes_is_refused_and_a_shift_is_not():
    after = [layers.ReLU(), layers.BatchNormalization()]
    modulated(after, "film")
    with pytest.raises(ValueError, match="'early' cannot be modulated"):
        modulated([layers.ReLU(), layers.BatchNormalization(center=False)], "sigmoid")


def test_a_normalisation_can_be_modulated_itself():
    made = modulated([layers.BatchNormalization(name="norm")], "film", names=["norm"])
    assert made.network.modulated_kernels == ((4,),)
    x = tf.random.stateless_normal((1, 4, 6, 2), (0, 1))
    scale, shift = tf.constant([[1.0, 2.0, 3.0, 4.0]]), tf.constant([[0.5, 0.0, -1.0, 2.0]])
    weights = [tf.convert_to_tensor(v) for v in made.network.trainable_variables]
    outputs = made.network.functional_call(weights, x, [mm.modulation.Affine(scale, shift)])
    early, norm, *rest = made.network.model.layers
    z = norm(early(x[0]), training=True) * scale[0] + shift[0]
    for layer in rest:
        z = layer(z)
    np.testing.assert_allclose(outputs[0], z, rtol=1e-4, atol=1e-5)
