"""NumPy oracles of the task network and the encoder."""

import factory
import keras
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_shared_and_per_task_weights_agree():
    network = factory.mlp(bias_transformation=3)
    network.build((None, None, 1))
    network.input_bias.assign([0.3, -0.2, 0.5])
    x = tf.random.stateless_normal((2, 4, 1), (0, 1))
    shared = [tf.convert_to_tensor(v) for v in network.trainable_variables]
    tiled = [tf.tile(v[None], [2] + [1] * len(v.shape)) for v in shared]
    np.testing.assert_allclose(
        network.functional_call(tiled, x), network.functional_call(shared, x), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(network(x), network.functional_call(shared, x))
    np.testing.assert_allclose(network(x[0]), network(x)[0], rtol=1e-6)


def test_bias_transformation_is_an_input_of_its_own():
    """With the vector joined to x, the first layer sees [x, vector]."""
    network = mm.networks.MLP((4,), bias_transformation=2, kernel_initializer="glorot_uniform")
    network.build((None, 1))
    network.input_bias.assign([0.5, -1.0])
    x = np.array([[2.0]], np.float32)
    first, last = network.dense
    hidden = np.maximum(np.array([[2.0, 0.5, -1.0]]) @ first.kernel.numpy(), 0)
    np.testing.assert_allclose(network(x), hidden @ last.kernel.numpy(), rtol=1e-6)


def lstm(x, kernel, recurrent, bias):
    """One direction over [K, D]; returns all outputs [K, units]."""
    units = recurrent.shape[0]
    h, c, outputs = np.zeros(units), np.zeros(units), []
    for point in x:
        i, f, g, o = np.split(point @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.array(outputs)


def test_encoder_reads_the_last_forward_and_the_first_backward_output():
    encoder = mm.encoders.SequenceEncoder(units=3, layers=2, seed=5)
    x, y = np.random.default_rng(0).normal(size=(2, 1, 4, 1)).astype("f")
    embedding = encoder(x, y)
    sequence = np.concatenate([x[0], y[0]], axis=-1)
    for layer in encoder.lstms:
        forward = lstm(sequence, *layer.forward_layer.get_weights())
        backward = lstm(sequence[::-1], *layer.backward_layer.get_weights())[::-1]
        sequence = np.concatenate([forward, backward], axis=-1)
    expected = np.concatenate([forward[-1], backward[0]])
    np.testing.assert_allclose(embedding[0], expected, rtol=1e-5, atol=1e-6)


def test_encoder_gives_the_same_for_known_and_unknown_numbers_of_points():
    encoder = mm.encoders.SequenceEncoder(units=3, layers=2)
    x, y = np.random.default_rng(0).normal(size=(2, 2, 4, 1)).astype("f")
    unknown = tf.TensorSpec((None, None, 1))
    looped = tf.function(encoder, input_signature=[unknown, unknown])(x, y)
    np.testing.assert_allclose(encoder(x, y), looped, rtol=1e-5, atol=1e-6)


def test_published_sizes():
    tasks = mm.tasks.FunctionTasks()
    learner = mm.MMAML(mm.networks.MLP(), encoder=mm.encoders.SequenceEncoder())
    learner.compile()
    learner.build_for(tasks.sample(2, 0))
    assert learner.network.count_params() == 20_501
    assert learner.encoder.count_params() == 52_480  # one bias a gate where PyTorch has two
    assert learner.modulation.count_params() == 48_600
    maml = mm.networks.MLP(bias_transformation=20)
    maml.build((None, 1))
    assert maml.count_params() == 22_521


def test_published_initialisation():
    learner = mm.MMAML(mm.networks.MLP(), encoder=mm.encoders.SequenceEncoder())
    learner.compile()
    learner.build_for(mm.tasks.FunctionTasks().sample(2, 0))
    kernel = learner.network.dense[1].kernel.numpy()
    assert abs(kernel.std() - 0.01) < 3e-4
    assert abs(kernel.mean()) < 5e-4
    assert all(not dense.bias.numpy().any() for dense in learner.network.dense)
    for array, fan_in in (
        (learner.encoder.lstms[1].backward_layer.get_weights()[0], 40),
        (learner.modulation.heads["2"].kernel.numpy(), 80),
    ):
        bound = fan_in**-0.5
        assert 0.97 * bound < np.abs(array).max() <= bound
        assert abs(array.std() - bound / np.sqrt(3)) < 0.05 * bound


def test_published_initialisation_of_the_image_encoder():
    encoder = mm.encoders.ImageEncoder((32, 64), units=128)
    encoder.build((None, None, 28, 28, 3), (None, None))
    for array, fan_in in (
        (encoder.convolutions[1].kernel, 9 * 32),
        (encoder.dense.kernel, 64),
        (encoder.dense.bias, 64),
    ):
        bound = fan_in**-0.5
        assert 0.97 * bound < np.abs(array).max() <= bound


def test_layers_of_one_shape_start_differently_and_seeds_decide():
    network, same, other = (mm.networks.MLP(seed=seed) for seed in (0, 0, 1))
    for net in (network, same, other):
        net.build((None, 1))
    assert not np.array_equal(network.dense[1].kernel, network.dense[2].kernel)
    np.testing.assert_array_equal(network.dense[1].kernel, same.dense[1].kernel)
    assert not np.array_equal(network.dense[1].kernel, other.dense[1].kernel)


def test_random_layers_of_a_keras_model_are_off():
    keras.utils.set_random_seed(0)
    plain = keras.Sequential([keras.Input((1,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    dropped = keras.Sequential(
        [keras.Input((1,)), plain.layers[0], keras.layers.Dropout(0.5), plain.layers[1]]
    )
    x = tf.random.stateless_normal((2, 5, 1), (0, 1))
    outputs = []
    for model in (plain, dropped):
        network = mm.networks.as_task_network(model)
        outputs.append(network.functional_call(model.trainable_variables, x))
    np.testing.assert_array_equal(*outputs)


def test_batch_normalisation_of_a_keras_model_uses_the_batch_at_hand():
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(3), keras.layers.BatchNormalization(epsilon=1e-12)]
    )
    x = tf.random.stateless_normal((2, 50, 1), (0, 1))
    z = mm.networks.KerasNetwork(model).functional_call(model.trainable_variables, x)
    np.testing.assert_allclose(np.mean(z, axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(z, axis=1), 1, rtol=1e-4)


def test_the_output_layer_of_a_model_inside_another_is_its_last():
    inner = keras.Sequential([keras.layers.Dense(3, name="inner"), keras.layers.Dense(1)])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, name="outer"), inner])
    network = mm.networks.KerasNetwork(model)
    assert [v.path for v in network.head] == [v.path for v in inner.layers[-1].weights]
    assert [kernel[-1] for kernel in network.modulated_kernels] == [4, 3]


def dense_model():
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mm.networks.KerasNetwork(dense_model(), statistics="support"), "no batch norm"),
        (lambda: mm.networks.KerasNetwork(dense_model(), statistics="all"), "expected one of"),
        (lambda: mm.networks.MLP(()), r"hidden=\(\): expected at least one"),
        (lambda: mm.networks.MLP((4, 0)), "hidden=0: expected a whole number"),
        (lambda: mm.networks.MLP(kernel_initializer=-1), "kernel_initializer=-1: expected a Keras"),
        (lambda: mm.networks.MLP(seed="3"), "seed='3': expected a whole number"),
        (lambda: mm.networks.ConvNet((True,)), "filters=True: expected a whole number"),
        (lambda: mm.networks.MLP().build((None, 2, 3, 1)), "MLP takes inputs"),
        (lambda: mm.encoders.SequenceEncoder(units=0), "at least 1"),
        (lambda: mm.encoders.SequenceEncoder().build((1, 2, 3, 4), (1, 2, 1)), "SequenceEncoder"),
    ],
)
def test_bad_parts_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
