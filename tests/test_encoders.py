"""The attention encoder against NumPy, and the reconstruction loss."""

import factory
import keras
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm


def points(tasks=2, support=5, x=3, y=2, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [tf.constant(rng.normal(size=(tasks, support, n)).astype(dtype)) for n in (x, y)]


def built(of=np.float64, **kwargs):
    """An attention encoder with random weights."""
    settings = {"units": 6, "layers": 2, "num_heads": 3} | kwargs
    encoder = mm.encoders.AttentionEncoder(**settings)
    encoder(*points(dtype=of))
    rng = np.random.default_rng(1)
    for variable in encoder.trainable_variables:
        variable.assign(0.7 * rng.normal(size=variable.shape))
    return encoder


def linear(dense, x):
    return x @ dense.kernel.numpy() + dense.bias.numpy()


def normalised(norm, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.epsilon)
    return x * norm.gamma.numpy() + norm.beta.numpy()


def attend(block, x, y, heads):
    """One task's vectors `[N, units]` attend to `[K, units]`, head by head."""
    q, k, v = (linear(d, z) for d, z in ((block.query, x), (block.key, y), (block.value, y)))
    size = q.shape[1] // heads
    attended = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        scores = q[:, own] @ k[:, own].T / np.sqrt(size)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        attended.append(scores / scores.sum(-1, keepdims=True) @ v[:, own])
    attended = linear(block.output_of_heads, np.concatenate(attended, axis=1))
    z = normalised(block.norms[0], x + attended)
    return normalised(block.norms[1], z + np.maximum(linear(block.linear, z), 0))


def test_the_attention_encoder_equals_numpy(float64):
    encoder, (x, y) = built(), points()
    found = encoder(x, y)
    assert found.shape == (2, encoder.embedding_size) == (2, 6)
    for task in range(2):
        z = linear(encoder.first, np.concatenate([x[task], y[task]], axis=1))
        for block in encoder.blocks[:-1]:
            z = attend(block, z, z, 3)
        z = np.maximum(linear(encoder.joining, z), 0)
        z = attend(encoder.blocks[-1], encoder.asking.numpy(), z, 3)
        np.testing.assert_allclose(found[task], linear(encoder.last, z)[0], rtol=1e-9)


def test_the_order_of_points_makes_no_difference_and_the_points_do(float64):
    encoder, (x, y) = built(), points()
    order = [3, 1, 4, 0, 2]
    turned = encoder(tf.gather(x, order, axis=1), tf.gather(y, order, axis=1))
    np.testing.assert_allclose(encoder(x, y), turned, rtol=1e-10, atol=1e-12)
    apart = encoder(tf.gather(x, order, axis=1), y)
    assert np.abs(apart - encoder(x, y)).min() > 1e-6


@pytest.mark.parametrize("jit", [True, False])
def test_graphs_for_any_number_of_points_give_the_same(jit):
    encoder, data = built(np.float32), points(dtype=np.float32)
    unknown = None if jit else [tf.TensorSpec((None, None, n)) for n in (3, 2)]
    graph = tf.function(encoder, input_signature=unknown, jit_compile=jit)
    np.testing.assert_allclose(graph(*data), encoder(*data), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_floats_come_close(policy):
    whole, half = built(np.float32), built(np.float32, dtype=policy)
    half.set_weights(whole.get_weights())
    found, expected = (encoder(*points(dtype=np.float32)) for encoder in (half, whole))
    assert found.dtype == half.compute_dtype
    assert {v.dtype for v in half.trainable_variables} == {"float32"}
    assert np.abs(np.float32(found) - expected).max() < 0.1 * np.abs(expected).max()


def test_seeds_decide_and_no_two_layers_start_alike():
    first, same, other = (mm.encoders.AttentionEncoder(6, num_heads=2, seed=s) for s in (0, 0, 1))
    for encoder in (first, same, other):
        encoder(*points(x=4, y=2, dtype=np.float32))  # points of as many numbers as units
    kernels = [v.numpy() for v in first.trainable_variables if v.name == "kernel"]
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels) == 18
    for a, b in zip(first.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(kernels[0], other.trainable_variables[0])


def learner(encoder, batch=None, **compiled):
    made = mm.MMAML(factory.mlp(), encoder=encoder, inner_loop=factory.inner_loop(1))
    made.outer_clip = None
    settings = {"jit_compile": False} | compiled
    made.compile(keras.optimizers.SGD(0.1), "mse", **settings)
    made.build_for(factory.episodes() if batch is None else batch)
    return made


def test_the_meta_gradient_through_attention_equals_finite_differences(float64):
    batch = factory.episodes(dtype=np.float64, tasks=2)
    made = learner(mm.encoders.AttentionEncoder(4, 1, 2), batch)
    _, gradients = factory.outer_gradient(made, batch)
    loss = factory.outer_loss(made, batch)
    factory.assert_gradients(made.trainable_variables, gradients, loss, atol=1e-8)


def reconstruction(weight, **kwargs):
    inner = mm.encoders.AttentionEncoder(4, 1, 2, seed=3)
    return mm.encoders.Reconstruction(inner, weight=weight, units=3, **kwargs)


def error(made, batch):
    """The decoder's error on the support targets, by its weights."""
    hidden, last = made.encoder.decoder
    embedding = made.embed(*batch[:2])
    known = tf.tile(embedding[:, None], [1, batch.support_x.shape[1], 1])
    decoded = last(tf.nn.relu(hidden(tf.concat([known, batch.support_x], axis=-1))))
    return tf.reduce_mean(tf.square(decoded - batch.support_y))


def test_no_weight_is_no_reconstruction():
    batch = factory.episodes()
    with_none, without = learner(reconstruction(0.0)), learner(reconstruction(0.0).encoder)
    assert with_none.encoder.decoder is None
    for made in (with_none, without):
        made.train_on_batch(batch)
    for a, b in zip(with_none.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_reconstruction_joins_the_outer_loss_alone(float64):
    batch = factory.episodes(dtype=np.float64)
    made = learner(reconstruction(0.3), batch)
    variables = made.trainable_variables
    before = [v.numpy() for v in variables]
    query_loss, gradients = factory.outer_gradient(made, batch)
    with tf.GradientTape() as tape:
        own = 0.3 * error(made, batch)
    more = tape.gradient(own, [v.value for v in variables], unconnected_gradients="zero")
    (first,) = (i for i, v in enumerate(variables) if v is made.encoder.encoder.first.kernel)
    assert np.any(more[first] != 0)
    assert made.test_on_batch(batch) == pytest.approx(float(query_loss), rel=1e-6)
    logs = made.train_on_batch(batch, return_dict=True)
    assert logs["loss"] == pytest.approx(float(query_loss + own), rel=1e-6)
    for start, gradient, also, variable in zip(before, gradients, more, variables, strict=True):
        expected = start - 0.1 * (gradient + also)
        np.testing.assert_allclose(variable, expected, rtol=1e-7, atol=1e-10)


def test_shards_do_not_change_the_reconstruction():
    batch, trained = factory.episodes(), []
    for shards in (1, 2):
        made = learner(reconstruction(0.3), shards=shards)
        made.train_on_batch(batch)
        trained.append(made.get_weights())
    for a, b in zip(*trained, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_any_encoder_of_vectors_is_reconstructed_from():
    x, y = keras.Input((None, 1)), keras.Input((None, 1))
    z = keras.layers.Dense(4, "tanh")(keras.layers.Concatenate()([x, y]))
    functional = keras.Model([x, y], keras.layers.GlobalAveragePooling1D()(z))
    for inner in (functional, mm.encoders.SequenceEncoder(3, 1)):
        made = learner(mm.encoders.Reconstruction(inner, weight=0.1))
        start = float(error(made, factory.episodes()))
        for _ in range(20):
            made.train_on_batch(factory.episodes())
        assert float(error(made, factory.episodes())) < start


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mm.encoders.AttentionEncoder(units=6, num_heads=4), "must be a multiple of"),
        (lambda: mm.encoders.AttentionEncoder(layers=0), "layers=0: expected a whole number"),
        (
            lambda: mm.encoders.AttentionEncoder()(tf.zeros((1, 2, 3)), tf.zeros((1, 2))),
            r"AttentionEncoder takes support_y of shape \[T, K, features\]",
        ),
        (lambda: reconstruction(-1), "weight=-1: expected a finite number of at least 0"),
        (lambda: mm.encoders.Reconstruction("lstm", weight=1), "the encoder is a str"),
        (
            lambda: reconstruction(1)(tf.zeros((1, 2, 8, 8, 3)), tf.zeros((1, 2))),
            r"Reconstruction takes support_x of shape \[T, K, features\]",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
