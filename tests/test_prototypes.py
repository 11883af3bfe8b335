"""Prototypical networks with modulation, and output layers that start from prototypes."""

import factory
import images
import keras
import modulations
import numpy as np
import pytest
import tensorflow as tf
from test_convolution import CLASSES, TASKS, episodes, numpy_network

import mmaml_tf as mm

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def vectors(dtype=np.float64, tasks=TASKS):
    """Episodes of points with two features, in two classes."""
    rng = np.random.default_rng(1)
    x, q = (tf.constant(rng.normal(size=(tasks, n, 2)).astype(dtype)) for n in (4, 3))
    y, t = (tf.constant(np.tile(np.arange(n) % CLASSES, (tasks, 1)), tf.int32) for n in (4, 3))
    return mm.Episodes(x, y, q, t, tf.constant(np.arange(tasks) % 2, tf.int32))


class Mean(keras.layers.Layer):
    """The least that an encoder can be; images and vectors alike."""

    def call(self, support_x, support_y):
        of_point = tf.reduce_mean(support_x, axis=list(range(2, support_x.shape.rank - 1)))
        return tf.reduce_mean(of_point, axis=1) - tf.reduce_max(of_point, axis=1)


def mlp(seed=0, outputs=CLASSES):
    return factory.mlp(seed, hidden=(4, 3), outputs=outputs, activation="tanh")


def conv(outputs=CLASSES, **kwargs):
    return mm.networks.ConvNet((3, 4), outputs, **kwargs)


def ready(learner, batch, jit=False):
    learner.compile(keras.optimizers.SGD(0.1), LOSS, jit_compile=jit)
    learner.build_for(batch)
    if learner.modulation is not None:
        modulations.randomise(learner.modulation)
    return learner


def prototypical(features, query, labels):
    """Minus the squared distances to class means, by NumPy, up to what classes have in common."""
    means = np.stack([features[labels == k].mean(0) for k in range(CLASSES)])
    distances = ((query[:, None] - means) ** 2).sum(-1)
    return (query**2).sum(-1, keepdims=True) - distances


@pytest.mark.parametrize("name", mm.modulation.MODULATIONS)
def test_a_modulated_prototypical_network_equals_numpy(float64, name):
    batch = episodes()
    net = conv(None)
    learner = ready(
        mm.ProtoNet(net, ways=CLASSES, encoder=Mean(), modulation=mm.modulation.get(name)), batch
    )
    found = learner.predict_on_batch(batch)
    embeddings = learner.embed(*batch[:2]).numpy()
    identity = np.eye(4), np.zeros(4)
    for task in range(TASKS):
        parts = [
            modulations.of_task(learner.modulation, name, embeddings[task], block)
            for block in range(2)
        ]
        kernels = [
            layer.kernel.numpy() * factor
            for layer, (factor, *_) in zip(net.convolutions, parts, strict=True)
        ]
        features = [
            numpy_network(batch[i][task].numpy(), kernels, identity, [p[1:] for p in parts])
            for i in (0, 2)
        ]
        expected = prototypical(*features, batch.support_y[task].numpy())
        np.testing.assert_allclose(found[task], expected, rtol=1e-8, atol=1e-10)


def keras_mlp(outputs=CLASSES, activation=None, use_bias=True, trainable=True, hidden=3):
    init = keras.initializers.RandomNormal(stddev=0.7, seed=3)
    inputs = keras.Input((2,))
    x = keras.layers.Dense(hidden, "tanh", kernel_initializer=init)(inputs)
    last = keras.layers.Dense(
        outputs, activation, use_bias, kernel_initializer=init, trainable=trainable
    )
    return keras.Model(inputs, last(x))


def followed(*after):
    """A Keras model whose last Dense layer is not its end."""
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(4, "tanh"), *after])


def test_without_steps_a_head_of_prototypes_is_a_prototypical_network(float64):
    batch = episodes()
    protonet = ready(mm.ProtoNet(conv(None), ways=CLASSES), batch)
    maml = ready(mm.MAML(conv(), inner_loop=mm.InnerLoop(0), head="prototypes"), batch)
    for a, b in zip(protonet.network.convolutions, maml.network.convolutions, strict=True):
        b.kernel.assign(a.kernel)
    found, expected = (m.predict_on_batch(batch) for m in (maml, protonet))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


HEADS = {
    "MLP": (lambda **given: mm.MAML(mlp(), **given), vectors),
    "Keras": (lambda **given: mm.MAML(keras_mlp(), **given), vectors),
    "Conv-4 with kml": (
        lambda **given: mm.MMAML(
            conv(halving="max", features="all"), encoder=Mean(), modulation="kml", **given
        ),
        episodes,
    ),
    "one per mode": (
        lambda **given: mm.MultiMAML([mlp(0), mlp(1)], modes=("a", "b"), **given),
        vectors,
    ),
}


@pytest.mark.parametrize("kind", HEADS)
def test_the_first_predictions_are_those_of_prototypes(float64, kind):
    """By NumPy, from the features of the network, and after a step something else."""
    make, data = HEADS[kind]
    batch = data()
    made = ready(make(inner_loop=mm.InnerLoop(1, 0.1), head="prototypes"), batch)
    weights = made.initial_weights(TASKS, batch.mode if made.needs_mode else None)
    change = made.modulate(*batch[:2])
    features = [made.network.head_inputs(weights, batch[i], change).numpy() for i in (0, 2)]
    mode = batch.mode if made.needs_mode else None
    found = made.adapt(*batch[:2], mode, steps=0)(batch.query_x).numpy()
    for task in range(TASKS):
        of_task = (f[task] for f in features)
        expected = prototypical(*of_task, batch.support_y[task].numpy())
        np.testing.assert_allclose(found[task], expected, rtol=1e-8, atol=1e-10)
    assert np.abs(made.adapt(*batch[:2], mode)(batch.query_x) - found).max() > 1e-4


@pytest.mark.parametrize("kind", HEADS)
def test_the_meta_gradient_goes_through_the_prototypes(float64, kind):
    make, data = HEADS[kind]
    batch = data()
    made = ready(make(inner_loop=mm.InnerLoop(2, 0.1), head="prototypes"), batch)
    _, gradients = factory.outer_gradient(made, batch)
    factory.assert_gradients(
        made.trainable_variables, gradients, factory.outer_loss(made, batch), atol=1e-8
    )
    head = {id(v) for network in made._networks() for v in network.head}
    used = [np.any(g != 0) for g in gradients]
    assert used == [id(v) not in head for v in made.trainable_variables]


def test_modulated_prototypes_have_exact_derivatives(float64):
    batch = vectors()
    made = ready(mm.ProtoNet(mlp(outputs=3), ways=CLASSES, encoder=Mean(), modulation="kml"), batch)
    _, gradients = factory.outer_gradient(made, batch)
    factory.assert_gradients(
        made.trainable_variables, gradients, factory.outer_loss(made, batch), atol=1e-8
    )
    assert all(np.any(g != 0) for g in gradients)


@pytest.mark.parametrize("jit", [True, False])
def test_steps_by_xla_and_without_train_alike(float64, jit):
    """And as the gradient of the whole composition says."""
    batch = vectors()
    loop = mm.InnerLoop(1, 0.1)
    made = ready(
        mm.MMAML(mlp(), encoder=Mean(), modulation="kml", inner_loop=loop, head="prototypes"),
        batch,
        jit,
    )
    made.outer_clip = None
    variables = made.trainable_variables
    before, (_, gradients) = [v.numpy() for v in variables], factory.outer_gradient(made, batch)
    made.train_on_batch(batch)
    for value, gradient, variable in zip(before, gradients, variables, strict=True):
        np.testing.assert_allclose(variable, value - 0.1 * gradient, rtol=1e-6, atol=1e-8)


def test_only_the_head_may_be_adapted_and_classes_may_be_fewer():
    loop = mm.InnerLoop(1, 0.1, head_only=True)
    made = ready(
        mm.MAML(mlp(outputs=3), inner_loop=loop, head="prototypes", fewer_ways=True), vectors("f")
    )
    batch = vectors("f")
    predictor = made.adapt(*batch[:2])
    assert [w.shape.rank for w in predictor.weights] == [2, 1, 2, 1, 3, 2]
    assert np.argmax(predictor(batch.query_x), axis=-1).max() == CLASSES - 1


@pytest.mark.parametrize("recipe", ["ProtoMAML", "MProtoNet"])
def test_what_is_saved_or_exported_predicts_the_same(recipe, tmp_path):
    made = images.learner(recipe)
    batch = images.tasks(ways=3).sample(2, seed=1)
    made.train_on_batch(batch)
    expected = made.predict_on_batch(batch)
    made.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(batch), expected)
    made.export(tmp_path / "model")
    model = tf.saved_model.load(tmp_path / "model")
    found = model.adapt_and_predict(*batch[:3])
    np.testing.assert_allclose(found, tf.nn.softmax(expected), atol=1e-5)


def maml(network, batch=None, **kwargs):
    batch = vectors("f") if batch is None else batch
    return ready(mm.MAML(network, head="prototypes", **kwargs), batch)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: maml(factory.mlp(), factory.episodes()), "the targets are no class labels"),
        (lambda: maml(keras_mlp(activation="tanh")), "are not one linear layer"),
        (lambda: maml(keras_mlp(use_bias=False)), "are not one linear layer"),
        (lambda: maml(keras_mlp(trainable=False)), "are not one linear layer"),
        (lambda: maml(keras_mlp(trainable=False, hidden=CLASSES)), "are not one linear layer"),
        (
            lambda: maml(followed(keras.layers.Dense(2), keras.layers.LeakyReLU())),
            "are not one linear layer",
        ),
        (lambda: mm.MAML(mlp(), head="means"), "head is 'means'; expected \"learned\" or"),
        (lambda: mm.ProtoNet(conv(None), ways=2, head="prototypes"), "ProtoNet got head="),
        (lambda: mm.ProtoNet(conv(None), ways=2, inner_loop=mm.InnerLoop()), "has no inner_loop"),
        (lambda: mm.ProtoNet(conv(None), ways=2, modulation="film"), "give both an encoder"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_network_of_ones_own_says_what_its_head_takes():
    class Own(mm.networks.MLP):
        head_inputs = mm.networks.TaskNetwork.head_inputs

    with pytest.raises(NotImplementedError, match="Own does not say what its output layer takes"):
        maml(Own((3,), CLASSES))
