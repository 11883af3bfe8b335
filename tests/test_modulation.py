"""Modulations against NumPy, their derivatives, and modulations of users' own."""

import doctest

import factory
import keras
import modulations
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm

layers = keras.layers


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def built(name, kernels, size=6, **kwargs):
    """A modulation by name, whose heads have random weights, for kernels of these shapes."""
    modulation = type(mm.modulation.get(name))(seed=3, **kwargs)
    modulation.build_for(size, kernels)
    return modulations.randomise(modulation)


@pytest.mark.parametrize("name", mm.modulation.MODULATIONS)
@pytest.mark.parametrize("blocks", [None, (1,)])
@pytest.mark.parametrize("shared", [True, False])
def test_a_modulated_mlp_equals_numpy(float64, name, blocks, shared):
    network = factory.mlp()
    network.build((None, None, 2))
    modulation = built(name, network.modulated_kernels, blocks=blocks)
    x, embedding = random(3, 4, 2), random(3, 6, seed=1)
    weights = [
        random(*([] if shared else [3]), *v.shape, seed=i)
        for i, v in enumerate(network.trainable_variables)
    ]
    outputs = network.functional_call(
        [tf.constant(w) for w in weights], tf.constant(x), modulation(tf.constant(embedding))
    )
    for task in range(3):
        z = x[task]
        of_task = weights if shared else [w[task] for w in weights]
        for block, (kernel, bias) in enumerate(zip(of_task[::2], of_task[1::2], strict=True)):
            factor, scale, shift = modulations.of_task(modulation, name, embedding[task], block)
            z = (z @ (kernel * factor) + bias) * scale + shift
            z = np.maximum(z, 0) if block < 2 else z
        np.testing.assert_allclose(outputs[task], z, rtol=1e-10, atol=1e-12)


#: layers by the number of axes of a point
FOLDED = {
    "Dense": (lambda: layers.Dense(3), (4,)),
    "Dense on steps": (lambda: layers.Dense(3), (2, 4)),
    "Conv1D": (lambda: layers.Conv1D(3, 2, strides=2), (5, 2)),
    "Conv2D": (lambda: layers.Conv2D(3, 2, padding="same", dilation_rate=2), (4, 3, 2)),
    "Conv3D": (lambda: layers.Conv3D(3, (2, 1, 2)), (3, 2, 3, 2)),
    "without bias": (lambda: layers.Conv1D(3, 2, use_bias=False), (4, 2)),
}


@pytest.mark.parametrize("name", mm.modulation.MODULATIONS)
@pytest.mark.parametrize("kind", FOLDED)
def test_folding_equals_changing_kernel_and_pre_activations(float64, name, kind):
    """In wrapped Keras models, whose layers are run by Keras here and there."""
    if kind == "without bias" and name not in ("sigmoid", "softmax"):
        pytest.skip("refused, see below")
    make, shape = FOLDED[kind]
    inner = make()
    model = keras.Sequential([keras.Input(shape), inner, layers.Flatten(), layers.Dense(1)])
    network = mm.networks.KerasNetwork(model)
    modulation = built(name, network.modulated_kernels)
    # A Keras model's input is in single precision by itself.
    embedding, x = random(2, 6, seed=1), np.float64(np.float32(random(2, 5, *shape)))
    weights = [tf.constant(random(2, *v.shape, seed=2)) for v in network.trainable_variables]
    found = network.functional_call(weights, tf.constant(x), modulation(tf.constant(embedding)))
    for task in range(2):
        factor, scale, shift = modulations.of_task(modulation, name, embedding[task], 0)
        for variable, weight in zip(network.trainable_variables, weights, strict=True):
            variable.assign(weight[task])
        inner.kernel.assign(inner.kernel * factor)
        z = inner(tf.constant(x[task])) * scale + shift
        expected = model.layers[2](model.layers[1](z))
        np.testing.assert_allclose(found[task], expected, rtol=1e-9, atol=1e-9)


def test_folding_into_a_normalisation_acts_behind_it(float64):
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization(name="norm")])
    model.add(layers.Dense(1))
    network = mm.networks.KerasNetwork(model, modulated=["norm"])
    modulation = built("kml", network.modulated_kernels)
    embedding, x = random(1, 6), np.float64(np.float32(random(1, 5, 4, seed=1)))
    factor, _, shift = modulations.of_task(modulation, "kml", embedding[0], 0)
    found = network.functional_call(
        [tf.convert_to_tensor(v) for v in network.trainable_variables],
        tf.constant(x),
        modulation(tf.constant(embedding)),
    )
    norm, last = model.layers
    np.testing.assert_allclose(
        found[0],
        last(norm(tf.constant(x[0]), training=True) * factor + shift),
        rtol=1e-9,
        atol=1e-9,
    )


def test_a_kernel_modulation_starts_at_the_identity_and_moves_at_once():
    learner = factory.learner("MMAML", modulation="kml", jit=False)
    batch = factory.episodes(tasks=4)
    plain = factory.learner("MAML")
    plain.network.set_weights(learner.network.get_weights())
    np.testing.assert_array_equal(learner.call(batch[:3]), plain.call(batch[:3]))
    head = learner.modulation.heads["1"]
    rows = learner.modulation.kernels[1][0]
    assert np.abs(head.kernel[:, :rows]).min() > 0
    start = head.kernel.numpy()
    learner.train_on_batch(batch)
    changed = np.any(head.kernel != start, axis=0)
    assert not changed[:rows].any()
    assert changed[rows:].any()


def test_zero_film_is_the_identity_and_uniform_softmax_divides_by_the_width():
    z = tf.random.stateless_normal((2, 3, 100), (0, 1))
    zeros = tf.zeros((2, 100))
    film, gate = mm.modulation.FiLM(), mm.modulation.SoftmaxGate()
    np.testing.assert_array_equal(film.change(zeros, zeros).pre_activations(z), z)
    np.testing.assert_allclose(gate.change(zeros).pre_activations(z), z / 100, rtol=1e-5)
    change = mm.modulation.FiLM(shift=False).change(zeros)
    assert change.shift is None
    np.testing.assert_array_equal(change.scale, np.ones((2, 100)))


def randomised(network, modulation, batch, jit=False, loss="mse", encoder=None, steps=2):
    """An MMAML of these parts, away from a modulation that changes nothing."""
    encoder = encoder or mm.encoders.SequenceEncoder(units=2, layers=1, seed=1)
    learner = mm.MMAML(
        network=network,
        encoder=encoder,
        modulation=modulation,
        inner_loop=mm.InnerLoop(steps, 0.1, clip=5.0),
    )
    learner.compile(keras.optimizers.SGD(0.1), loss, jit_compile=jit)
    learner.build_for(batch)
    modulations.randomise(learner.modulation)
    return learner


NETWORKS = {
    "MLP": lambda: factory.mlp(hidden=(4, 3)),
    "Keras": lambda: factory.keras_mlp((4, 3)),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("modulation", ["kml", modulations.AddedKernel])
def test_the_meta_gradient_equals_finite_differences(float64, network, modulation):
    modulation = modulation if isinstance(modulation, str) else modulation()
    batch = factory.episodes(dtype=np.float64, tasks=2)
    learner = randomised(NETWORKS[network](), modulation, batch)
    _, gradients = factory.outer_gradient(learner, batch)
    factory.assert_gradients(
        learner.trainable_variables, gradients, factory.outer_loss(learner, batch)
    )
    assert all(np.any(g != 0) for g in gradients), "every weight takes part"


def test_eager_graph_and_xla_give_one_meta_gradient():
    batch = factory.episodes()
    learner = randomised(factory.mlp(), "kml", batch)

    def compute():
        return factory.outer_gradient(learner, batch)

    eager_loss, eager = compute()
    for jit in (False, True):
        loss, gradients = tf.function(compute, jit_compile=jit, autograph=False)()
        np.testing.assert_allclose(loss, eager_loss, rtol=1e-5)
        for a, b in zip(gradients, eager, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


class Mean(layers.Layer):
    def call(self, support_x, support_y):
        return tf.reduce_mean(support_y, axis=1)


def test_a_shift_without_a_bias_is_refused():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(4, use_bias=False), layers.Dense(1)])
    with pytest.raises(ValueError, match=r"cannot be modulated: it needs .* a trainable bias"):
        randomised(model, "kml", factory.episodes())


def test_a_kernel_product_passes_a_normalisation_that_undoes_a_scale():
    """Which is not so where a unit has one weight, and its factor is a scale."""

    def model(size):
        inner = [layers.Conv1D(4, size), layers.BatchNormalization(center=False)]
        return keras.Sequential(
            [keras.Input((6, 1)), *inner, layers.ReLU(), layers.Flatten(), layers.Dense(1)]
        )

    x = tf.constant(random(2, 4, 6, 1), tf.float32)
    y = tf.constant(random(2, 4, 1), tf.float32)
    batch = mm.Episodes(x, y, x, y)
    randomised(model(2), "kml", batch, encoder=Mean())
    with pytest.raises(ValueError, match="cannot be modulated: it makes no difference"):
        randomised(model(1), "kml", batch, encoder=Mean())


def test_a_modulation_of_ones_own_is_saved_and_exported(tmp_path):
    batch = factory.episodes()
    learner = randomised(factory.mlp(), modulations.AddedKernel(blocks=[1], seed=5), batch)
    expected = learner.predict_on_batch(batch)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.modulation.get_config() == learner.modulation.get_config()
    np.testing.assert_array_equal(loaded.predict_on_batch(batch), expected)
    learner.export(tmp_path / "model")
    exported = tf.saved_model.load(tmp_path / "model")
    np.testing.assert_allclose(exported.adapt_and_predict(*batch[:3]), expected, rtol=1e-5)


def test_the_example_of_the_documentation_runs_and_trains(monkeypatch):
    monkeypatch.setattr(mm.modulation, "MODULATIONS", dict(mm.modulation.MODULATIONS))
    names = {"mm": mm, "keras": keras, "tf": tf}
    (example,) = doctest.DocTestFinder(recurse=False).find(mm.modulation, globs=names)
    assert example.examples
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, clear_globs=False)
    assert results.failed == 0
    learner = randomised(factory.mlp(), "gain", factory.episodes(tasks=2))
    assert np.isfinite(learner.train_on_batch(factory.episodes(tasks=2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mm.modulation.FiLM(shift="no"), "shift='no': expected True or False"),
        (lambda: mm.modulation.FiLM(blocks=(0, 0)), "names a block twice"),
        (lambda: mm.modulation.get("filmm"), "unknown modulation"),
        (lambda: built("film", [(3, 4), (4, 4)], blocks=(3,)), "block 3 does not exist"),
        (lambda: built("kml", ()), "no block"),
    ],
)
def test_bad_modulations_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
