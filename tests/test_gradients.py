"""The meta-gradient of whole learners: finite differences, eager = graph = XLA, fast = generic."""

import factory
import keras
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm

CASES = [
    ("MAML", None, 1),
    ("MAML", None, 5),
    ("MultiMAML", None, 2),
    ("MMAML", "film", 1),
    ("MMAML", "film", 5),
    ("MMAML", "sigmoid", 2),
    ("MMAML", "softmax", 2),
    ("LSTMLearner", "film", 0),
]


def make(recipe, modulation, steps, **kwargs):
    extra = {} if modulation is None else {"modulation": modulation}
    return factory.learner(recipe, loop=factory.inner_loop(steps, clip=5.0), **extra, **kwargs)


@pytest.mark.parametrize(("recipe", "modulation", "steps"), CASES)
def test_meta_gradient_equals_finite_differences(float64, recipe, modulation, steps):
    learner = make(recipe, modulation, steps)
    batch = factory.episodes(dtype=np.float64)
    _, gradients = factory.outer_gradient(learner, batch)

    loss = factory.outer_loss(learner, batch)
    factory.assert_gradients(learner.trainable_variables, gradients, loss)
    assert all(np.any(g != 0) for g in gradients), "every weight takes part"


def test_first_order_drops_exactly_the_second_order_terms(float64):
    """With one step, the first-order gradient is the query gradient at the adapted weights."""
    loop = factory.inner_loop(1, first_order=True)
    learner = factory.learner("MAML", loop=loop)
    batch = factory.episodes(dtype=np.float64)
    _, gradients = factory.outer_gradient(learner, batch)
    path, _ = learner.adaptation_path(batch.support_x, batch.support_y)
    adapted = [tf.constant(w.numpy()) for w in path[-1]]
    with tf.GradientTape() as tape:
        tape.watch(adapted)
        predictions = learner.network.functional_call(adapted, batch.query_x)
        loss = tf.reduce_mean(learner.task_losses(batch.query_y, predictions))
    for first_order, per_task in zip(gradients, tape.gradient(loss, adapted), strict=True):
        np.testing.assert_allclose(first_order, tf.reduce_sum(per_task, 0), rtol=1e-10)
    _, second = factory.outer_gradient(factory.learner("MAML", loop=factory.inner_loop(1)), batch)
    assert not np.allclose(gradients[0], second[0])


@pytest.mark.parametrize(("recipe", "modulation", "steps"), CASES[1:5:3])
def test_eager_graph_and_xla_agree(recipe, modulation, steps):
    learner = make(recipe, modulation, steps)
    batch = factory.episodes()

    def compute():
        return factory.outer_gradient(learner, batch)

    eager_loss, eager = compute()
    for jit in (False, True):
        loss, gradients = tf.function(compute, jit_compile=jit, autograph=False)()
        np.testing.assert_allclose(loss, eager_loss, rtol=1e-5)
        for a, b in zip(gradients, eager, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed"])
@pytest.mark.parametrize("recipe", ["MAML", "MMAML"])
def test_generic_network_equals_the_fast_one(kind, recipe):
    """The same weights in an ordinary Keras model give the same loss and meta-gradient."""
    model = factory.keras_mlp(kind=kind)
    fast = factory.learner(recipe, network=factory.mlp())
    generic = factory.learner(recipe, network=model)
    fast.network.set_weights(model.get_weights())
    batch = factory.episodes()
    (loss_a, a), (loss_b, b) = (factory.outer_gradient(m, batch) for m in (fast, generic))
    np.testing.assert_allclose(loss_a, loss_b, rtol=1e-6)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_generic_convolution_is_modulated_like_its_pre_activation():
    """Folding into a convolution's weights equals an affine map of its output."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.Conv2D(3, 2),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    network = mm.networks.KerasNetwork(model)
    assert network.modulated_kernels == ((2, 2, 2, 3),)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 4, 4, 2)).astype("f")
    scale, shift = (rng.normal(size=(2, 3)).astype("f") for _ in range(2))
    weights = [tf.convert_to_tensor(v) for v in network.trainable_variables]
    outputs = network.functional_call(weights, tf.constant(x), [mm.modulation.Affine(scale, shift)])
    for task in range(2):
        z = model.layers[0](x[task]) * scale[task] + shift[task]
        expected = model.layers[2](model.layers[1](z))
        np.testing.assert_allclose(outputs[task], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "first", [keras.layers.BatchNormalization, keras.layers.LayerNormalization]
)
def test_second_order_through_a_generic_normalisation(float64, first):
    """TensorFlow's own moments, which Keras uses, would make this meta-gradient wrong."""
    start = [keras.initializers.RandomNormal(1.0, seed=seed) for seed in (1, 2)]
    last = keras.layers.Dense(1, "tanh", kernel_initializer=start[1])
    model = keras.Sequential([keras.Input((3,)), first(), last])
    rng = np.random.default_rng(0)
    x, q = (tf.constant(rng.normal(size=(2, 4, 3))) for _ in range(2))
    y = tf.constant(rng.normal(size=(2, 4, 1)))
    batch = mm.Episodes(x, y, q, y)
    model.layers[0].gamma.assign([0.5, 1.0, 2.0])
    dense = keras.layers.Dense(3, kernel_initializer=start[0])
    model = keras.Sequential([keras.Input((3,)), dense, *model.layers])
    learner = mm.MAML(model, inner_loop=mm.InnerLoop(2, 0.3))
    learner.compile(loss="mse")
    learner.build_for(batch)
    _, gradients = factory.outer_gradient(learner, batch)
    loss = factory.outer_loss(learner, batch)
    factory.assert_gradients(learner.trainable_variables, gradients, loss)


def test_second_order_through_a_generic_convolution(float64):
    """One inner step on two tasks against the same step taken task by task, without any map."""
    model = keras.Sequential(
        [
            keras.Input((3, 3, 1)),
            keras.layers.Conv2D(2, 2, activation="tanh"),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    rng = np.random.default_rng(0)
    x, q = (tf.constant(rng.normal(size=(2, 4, 3, 3, 1))) for _ in range(2))
    y = tf.constant(rng.normal(size=(2, 4, 1)))
    learner = mm.MAML(model, inner_loop=mm.InnerLoop(1, 0.1))
    learner.compile(loss="mse")
    learner.build_for(mm.Episodes(x, y, q, y))
    loss, gradients = factory.outer_gradient(learner, mm.Episodes(x, y, q, y))

    def run(weights, inputs):
        z = tf.tanh(tf.nn.conv2d(inputs, weights[0], 1, "VALID") + weights[1])
        return tf.reshape(z, [4, -1]) @ weights[2] + weights[3]

    weights = [tf.constant(w) for w in model.get_weights()]
    with tf.GradientTape() as outer:
        outer.watch(weights)
        losses = []
        for task in range(2):
            with tf.GradientTape() as tape:
                tape.watch(weights)
                support_loss = tf.reduce_mean((run(weights, x[task]) - y[task]) ** 2)
            steps = tape.gradient(support_loss, weights)
            adapted = [w - 0.1 * g for w, g in zip(weights, steps, strict=True)]
            losses.append(tf.reduce_mean((run(adapted, q[task]) - y[task]) ** 2))
        expected_loss = tf.reduce_mean(losses)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-7)
    for a, b in zip(gradients, outer.gradient(expected_loss, weights), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("first", [keras.layers.Dense(4), keras.layers.Dense(4, use_bias=False)])
def test_generic_modulation_that_cannot_work_is_refused(first):
    layers = [keras.Input((1,)), first]
    if first.use_bias:
        layers.append(keras.layers.BatchNormalization())
    model = keras.Sequential([*layers, keras.layers.ReLU(), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="cannot be modulated"):
        learner = factory.learner("MMAML", network=model)
        learner.call(factory.episodes()[:3])


def test_xla_is_refused_for_generic_networks():
    learner = factory.learner("MAML", network=factory.keras_mlp(), jit="auto")
    assert not learner.xla
    with pytest.raises(ValueError, match="XLA cannot compile"):
        learner.compile(jit_compile=True)
    own = factory.learner("MAML", jit="auto")
    assert own.xla


def test_unbuilt_or_weightless_models_are_refused():
    with pytest.raises(ValueError, match="not built"):
        mm.networks.KerasNetwork(keras.Sequential([keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match="no trainable weights"):
        mm.networks.KerasNetwork(keras.Sequential([keras.Input((1,)), keras.layers.ReLU()]))
    with pytest.raises(ValueError, match="is no Dense or convolution layer"):
        mm.networks.KerasNetwork(factory.keras_mlp(), modulated=["nothing"])
