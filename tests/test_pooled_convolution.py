"""Conv-4: max-pooling, features of all positions, and a normalisation with a learned scale."""

import doctest

import factory
import keras
import numpy as np
import pytest
import tensorflow as tf
from test_convolution import CLASSES, TASKS, episodes, numpy_convolution, random

import mmaml_tf as mm
from mmaml_tf import layers

CONV4 = {"halving": "max", "features": "all", "affine": True}


def learner(recipe="MAML", steps=1, jit=False, modulation="kml", **kwargs):
    network = mm.networks.ConvNet((3, 4), CLASSES, **CONV4, **kwargs)
    loop = mm.InnerLoop(steps, 0.3)
    if recipe == "MAML":
        made = mm.MAML(network, inner_loop=loop)
    else:
        encoder = mm.encoders.ImageEncoder((3,), units=3, seed=1)
        made = mm.MMAML(network, encoder=encoder, modulation=modulation, inner_loop=loop)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.SGD(1.0), loss, jit_compile=jit)
    made.build_for(episodes())
    for i, variable in enumerate(made.trainable_variables):
        variable.assign(variable + 0.3 * random(*variable.shape, seed=i))
    return made


def numpy_pool(z):
    height, width = (size // 2 * 2 for size in z.shape[1:3])
    z = z[:, :height, :width]
    return np.max([z[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)


def numpy_conv4(images, weights, modulation, reference=None):
    """One task's logits by Conv-4."""
    count = 0 if reference is None else len(reference)
    z = images if reference is None else np.concatenate([reference, images])
    *blocks, kernel, bias = weights
    for (convolution, scale, shift), (factor, gain, offset) in zip(
        [blocks[i : i + 3] for i in range(0, len(blocks), 3)], modulation, strict=True
    ):
        z = numpy_convolution(z, convolution * factor, 1)
        of = z[: count or None]
        z = (z - of.mean((0, 1, 2))) / np.sqrt(of.var((0, 1, 2)) + 1e-5)
        z = numpy_pool(np.maximum((z * scale + shift) * gain + offset, 0))
    return z[count:].reshape(len(images), -1) @ kernel + bias


@pytest.mark.parametrize("form", ["patches", "looped"])
@pytest.mark.parametrize("statistics", ["query", "support"])
def test_the_forward_pass_equals_numpy(float64, form, statistics):
    network = mm.networks.ConvNet((3, 4), CLASSES, statistics, form, **CONV4)
    batch = episodes()
    network.build(batch.support_x.shape)
    by_variable = {
        id(v): random(TASKS, *v.shape, seed=i) for i, v in enumerate(network.trainable_variables)
    }
    weights = [by_variable[id(v)] for v in network.trainable_variables]
    rows = [random(TASKS, *shape[:-1], 1, seed=3) for shape in network.modulated_kernels]
    columns = [random(TASKS, 1, 1, 1, shape[-1], seed=4) for shape in network.modulated_kernels]
    offsets = [random(TASKS, shape[-1], seed=5) for shape in network.modulated_kernels]
    parts = list(zip(rows, columns, offsets, strict=True))
    support = batch.support_x if statistics == "support" else None
    found = network.functional_call(
        [tf.constant(w) for w in weights],
        batch.query_x,
        [mm.modulation.KernelProduct(*map(tf.constant, part)) for part in parts],
        support,
    )
    ordered = []
    for block in range(2):
        own = network.convolutions[block].kernel, network.scales[block], network.shifts[block]
        ordered += [by_variable[id(v)] for v in own]
    ordered += [by_variable[id(v)] for v in network.head]
    for task in range(TASKS):
        expected = numpy_conv4(
            batch.query_x[task].numpy(),
            [w[task] for w in ordered],
            [(1 + r[task] * c[task], 1.0, o[task]) for r, c, o in parts],
            None if support is None else support[task].numpy(),
        )
        np.testing.assert_allclose(found[task], expected, atol=1e-9)


def test_options_may_be_combined():
    for halving, features, size in (("strides", "all", 3 * 3 * 4), ("max", "mean", 4)):
        network = mm.networks.ConvNet((3, 4), None, halving=halving, features=features)
        assert network(tf.zeros((2, 5, 9, 9, 2))).shape == (2, 5, size)
    assert len(network.trainable_variables) == 2


@pytest.mark.parametrize(("recipe", "form"), [("MAML", "patches"), ("MMAML", "looped")])
def test_the_meta_gradient_equals_finite_differences(float64, recipe, form):
    made, batch = learner(recipe, 2, form=form), episodes()
    _, gradients = factory.outer_gradient(made, batch)
    loss = factory.outer_loss(made, batch)
    factory.assert_gradients(made.trainable_variables, gradients, loss, atol=1e-8)


def test_graph_and_xla_give_one_meta_gradient(float64):
    """Seen in the weights after a step of plain gradient descent."""
    trained = []
    for form, jit in (("looped", False), ("auto", True)):
        made = learner("MMAML", form=form, jit=jit)
        before = made.get_weights()
        made.train_on_batch(episodes())
        trained.append([b - a for a, b in zip(before, made.get_weights(), strict=True)])
    for a, b in zip(*trained, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)


def test_strokes_on_a_blank_page_have_exact_derivatives(float64):
    """Most squares of such images hold equal values, which depend on the weights alike."""
    pages = [np.zeros(images.shape) for images in (episodes().support_x, episodes().query_x)]
    rng = np.random.default_rng(0)
    for page in pages:
        page[:, :, 2:7, 3:5] = rng.random(page[:, :, 2:7, 3:5].shape)
    support_x, query_x = map(tf.constant, pages)
    batch = episodes()._replace(support_x=support_x, query_x=query_x)
    made = learner()
    _, gradients = factory.outer_gradient(made, batch)
    loss = factory.outer_loss(made, batch)
    factory.assert_gradients(made.trainable_variables, gradients, loss, atol=1e-8)


def test_one_of_equal_values_gets_the_gradient():
    z = tf.constant([[0.0, 1.0], [1.0, 1.0]])[None, None, :, :, None]
    with tf.GradientTape() as tape:
        tape.watch(z)
        pooled = layers.max_pool(z)
    np.testing.assert_array_equal(tape.gradient(pooled, z)[0, 0, :, :, 0], [[0, 0], [1, 0]])


def test_values_that_half_floats_cannot_tell_apart_are_told_apart_to_second_order():
    """XLA's second derivative of TensorFlow's own max-pooling takes others."""
    z = tf.constant(1 + 1e-4 * np.random.default_rng(0).permutation(64).reshape(1, 1, 8, 8, 1))
    z, u = tf.cast(z, tf.float32), tf.constant(random(1, 1, 4, 4, 1), tf.float32)

    def derivative():
        with tf.GradientTape() as outer:
            outer.watch(z)
            with tf.GradientTape() as inner:
                inner.watch(z)
                total = tf.reduce_sum(u * layers.max_pool(z) ** 2)
            first = inner.gradient(total, z)
            total = tf.reduce_sum(first**2)
        return outer.gradient(total, z)

    found = tf.function(derivative, jit_compile=True)().numpy()
    largest = np.repeat(np.repeat(layers.max_pool(z), 2, axis=2), 2, axis=3) == z.numpy()
    weights = np.repeat(np.repeat(u, 2, axis=2), 2, axis=3)
    np.testing.assert_allclose(found, np.where(largest, 8 * weights**2 * z, 0), rtol=1e-5)


def test_published_sizes():
    """64 features of images of 28×28 pixels, 1600 of 84×84."""
    for size, features in ((28, 64), (84, 1600)):
        network = mm.networks.ConvNet((64,) * 4, None, **CONV4)
        network.build((None, None, size, size, 3))
        assert network.count_params() == 3 * 9 * 64 + 3 * 9 * 64 * 64 + 4 * 2 * 64
        assert network(tf.zeros((1, 2, size, size, 3))).shape[-1] == features


def test_a_last_block_of_one_position_is_pooled_and_normalised():
    """Normalised are its four positions, so that one point is enough."""
    pooled = mm.networks.ConvNet((3, 4), CLASSES, **CONV4)
    pooled.build((None, None, 4, 4, 1))
    assert pooled.least_points == 1
    strided = mm.networks.ConvNet((3, 4), CLASSES)
    strided.build((None, None, 4, 4, 1))
    assert strided.least_points == 2


def test_the_example_of_the_documentation_runs():
    (example,) = doctest.DocTestFinder(recurse=False).find(
        mm.networks.ConvNet, "ConvNet", globs={"mm": mm, "tf": tf}
    )
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mm.networks.ConvNet(halving="pool"), "halving is 'pool'; expected one of"),
        (lambda: mm.networks.ConvNet(features="flat"), "features is 'flat'; expected one of"),
        (lambda: mm.networks.ConvNet(affine=1), "affine=1: expected True or False"),
        (
            lambda: mm.networks.ConvNet(halving="max").build((None, 10, 12, 1)),
            "images of 10×12 pixels cannot be pooled 4 times",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
