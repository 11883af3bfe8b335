"""Mixed precision: half floats inside networks and encoders, whole ones in losses and gradients."""

import factory
import keras
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm

layers = keras.layers
LABELS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def vectors():
    return factory.episodes(support=5, query=4)


def images():
    rng = np.random.default_rng(0)
    # Each image has a colour of its own: noise alone has features that differ less than halves do.
    noise, colours = rng.random((2, 2, 10, 14, 14, 3)), rng.random((2, 2, 10, 1, 1, 3))
    x, q = (noise * colours).astype("f")
    y = np.tile(np.repeat(np.int32([0, 1]), 5), (2, 1))
    return mm.Episodes(*map(tf.constant, (x, y, q, y)))


def wrapped(*inner, shape=(1,), outputs=1):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape), *inner, layers.Dense(outputs)])


def multimodal(network, encoder, modulation="film"):
    return mm.MMAML(
        network, encoder=encoder, modulation=modulation, inner_loop=mm.InnerLoop(2, 0.1, clip=10.0)
    )


def plain(network):
    return mm.MAML(network, inner_loop=mm.InnerLoop(2, 0.1))


CASES = {
    "MLP": lambda: multimodal(factory.mlp(), mm.encoders.SequenceEncoder(4, 1)),
    "MLP with bias": lambda: plain(factory.mlp(bias_transformation=2)),
    "ConvNet": lambda: multimodal(
        mm.networks.ConvNet((4, 4), 2), mm.encoders.ImageEncoder((4,), 8)
    ),
    "ConvNet, support": lambda: plain(mm.networks.ConvNet((4, 4), 2, statistics="support")),
    "ProtoNet": lambda: mm.ProtoNet(mm.networks.ConvNet((4, 4), None), ways=2),
    "Dense": lambda: plain(wrapped(layers.Dense(4, "tanh"), layers.LayerNormalization())),
    "Conv2D": lambda: plain(
        wrapped(
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            shape=(14, 14, 3),
            outputs=2,
        )
    ),
}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", CASES)
def test_the_meta_gradient_points_the_same_way(name, policy):
    gradients, weights = [], None
    batch = vectors() if name in ("MLP", "MLP with bias", "Dense") else images()
    for dtype in ("float32", policy):
        keras.config.set_dtype_policy(dtype)
        try:
            made = CASES[name]()
        finally:
            keras.config.set_dtype_policy("float32")
        made.compile("sgd", "mse" if batch.mode is not None else LABELS, jit_compile=False)
        made.build_for(batch)
        if weights is not None:
            made.set_weights(weights)
        weights = made.get_weights()
        loss, gradient = factory.outer_gradient(made, batch)
        assert loss.dtype == "float32"
        gradients.append(np.concatenate([np.ravel(g) for g in gradient]).astype("f8"))
    half = made.network.model if "model" in vars(made.network) else made.network
    assert half.compute_dtype == policy.removeprefix("mixed_"), "the network computes in halves"
    assert not np.array_equal(*gradients)
    cosine = np.dot(*gradients) / np.prod([np.linalg.norm(g) for g in gradients])
    assert cosine > 0.97


def test_statistics_are_whole():
    """Of numbers far from zero, whose variance half floats would lose."""
    z = tf.random.stateless_normal((1, 64, 4, 4, 2), (0, 1), mean=30.0)
    whole = mm.networks.conv_net.layers.batch_normalise(z, z)
    half = tf.cast(z, tf.bfloat16)
    found = mm.networks.conv_net.layers.batch_normalise(half, half)
    exact = mm.networks.conv_net.layers.batch_normalise(*(2 * [tf.cast(half, tf.float32)]))
    assert found.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(found, tf.float32), exact, rtol=1e-2, atol=1e-2)
    assert whole.dtype == tf.float32
