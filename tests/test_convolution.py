"""Convolutions with one kernel per task, the convolutional network and the image encoder."""

import itertools

import factory
import keras
import modulations
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf import layers

FORMS = [form for form in layers.CONVOLUTION_FORMS if form != "auto"]
TASKS, SUPPORT, QUERY, SIZE, CLASSES = 3, 4, 6, 9, 2


def numpy_convolution(images, kernel, stride=2):
    """One task's images `[N, H, W, in]`, by the definition."""
    height, width = kernel.shape[:2]
    margins = [(0, 0), (height // 2, height // 2), (width // 2, width // 2), (0, 0)]
    padded = np.pad(images, margins)
    rows = range(0, padded.shape[1] - height + 1, stride)
    columns = range(0, padded.shape[2] - width + 1, stride)
    out = np.zeros((len(images), len(rows), len(columns), kernel.shape[-1]))
    for (i, y), (j, x) in itertools.product(enumerate(rows), enumerate(columns)):
        window = padded[:, y : y + height, x : x + width]
        out[:, i, j] = np.tensordot(window, kernel, axes=3)
    return out


def numpy_network(images, kernels, head, modulation=None, reference=None):
    """One task's logits: blocks of convolution, batch statistics, modulation and ReLU."""
    z = images if reference is None else np.concatenate([reference, images])
    of = slice(None) if reference is None else slice(len(reference))
    for block, kernel in enumerate(kernels):
        z = numpy_convolution(z, kernel)
        mean, variance = z[of].mean((0, 1, 2)), z[of].var((0, 1, 2))
        z = (z - mean) / np.sqrt(variance + 1e-5)
        if modulation is not None:
            scale, shift = modulation[block]
            z = z * scale + shift
        z = np.maximum(z, 0)
    z = z[0 if reference is None else len(reference) :]
    return z.mean((1, 2)) @ head[0] + head[1]


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def episodes(dtype=np.float64, channels=2):
    rng = np.random.default_rng(0)
    images = [
        tf.constant(rng.random((TASKS, n, SIZE, SIZE, channels)).astype(dtype))
        for n in (SUPPORT, QUERY)
    ]
    labels = [
        tf.constant(np.tile(np.arange(n) % CLASSES, (TASKS, 1)), tf.int32) for n in (SUPPORT, QUERY)
    ]
    mode = tf.constant([0, 1, 0], tf.int32)
    support_x, query_x = images
    return mm.Episodes(support_x, labels[0], query_x, labels[1], mode, tf.constant([0, 0]))


def network(**kwargs):
    return mm.networks.ConvNet((3, 4), CLASSES, **kwargs)


def learner(recipe="MMAML", steps=2, jit=False, form="auto", modulation="film", **loop):
    inner_loop = mm.InnerLoop(steps, 0.3, clip=5.0, **loop)
    if recipe == "MAML":
        made = mm.MAML(network(form=form), inner_loop=inner_loop)
    else:
        encoder = mm.encoders.ImageEncoder((3, 4), units=5, form=form, seed=1)
        made = mm.MMAML(
            network(form=form), encoder=encoder, modulation=modulation, inner_loop=inner_loop
        )
    made.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit,
    )
    made.build_for(episodes())
    if modulation == "kml":
        modulations.randomise(made.modulation)  # it changes nothing at first
    return made


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("per_task", [True, False])
@pytest.mark.parametrize(
    ("tasks", "size", "stride", "kernel_size"),
    [(3, 9, 2, 3), (3, 8, 2, 3), (9, 5, 1, 5), (3, 11, 3, 3), (3, 9, 3, 1), (3, 8, 2, 5)],
)
def test_every_form_equals_the_definition(form, per_task, tasks, size, stride, kernel_size):
    x = random(tasks, 2, size, size + 1, 2)
    kernel = random(tasks, kernel_size, kernel_size, 2, 4, seed=1)
    if not per_task:
        kernel = np.tile(kernel[:1], (tasks, 1, 1, 1, 1))
    given = tf.constant(kernel if per_task else kernel[0])
    found = layers.conv2d(tf.constant(x), given, stride, form)
    expected = np.stack([numpy_convolution(a, k, stride) for a, k in zip(x, kernel, strict=True)])
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("modulated", [True, False])
def test_sums_as_products_change_nothing(modulated):
    """Under XLA on a CPU, sums over points are products with ones: to second order the same."""
    z, u = (tf.constant(random(TASKS, 4, 5, 6, 3, seed=i)) for i in (0, 1))
    scale, shift = (tf.constant(random(TASKS, 3, seed=i)) for i in (2, 3))

    def derivatives():
        with tf.GradientTape() as outer:
            outer.watch([z, scale, shift])
            with tf.GradientTape() as inner:
                inner.watch([z, scale, shift])
                y = layers.batch_normalise(z, statistics_of=z[:, :3])
                change = mm.modulation.Affine(scale, shift)
                y = tf.tanh(change.pre_activations(y) if modulated else y)
                loss = tf.reduce_sum(u * y)
            first = inner.gradient(loss, [z, scale, shift])
            total = tf.add_n([tf.reduce_sum(g**3) for g in first if g is not None])
        return [y, *first, *outer.gradient(total, [z, scale, shift])]

    expected = derivatives()
    with layers.compiled_by_xla(True):
        found = derivatives()
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_means_as_products_are_more_exact_than_reductions():
    """Means over a large batch of images in single precision, against double."""
    z = random(1, 75, 42, 42, 4).astype(np.float32) + 3
    with layers.compiled_by_xla(True):
        products = tf.function(layers.points.mean_over_points, jit_compile=True)(z)
    reductions = tf.function(lambda x: tf.reduce_mean(x, [1, 2, 3]), jit_compile=True)(z)
    exact = z.mean((1, 2, 3), dtype=np.float64)
    assert np.abs(products - exact).max() < np.abs(reductions - exact).max()


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form is 'im2col'; expected one of"):
        layers.conv2d(tf.zeros((1, 1, 4, 4, 1)), tf.zeros((1, 3, 3, 1, 1)), form="im2col")


def test_the_form_is_chosen_by_the_compiler(monkeypatch):
    chosen = []
    patches = layers.convolution._patches
    monkeypatch.setattr(layers.convolution, "_patches", lambda *a: chosen.append(1) or patches(*a))
    x, kernel = tf.zeros((1, 1, 4, 4, 1)), tf.zeros((1, 3, 3, 1, 1))
    layers.conv2d(x, kernel)
    assert not chosen
    with layers.compiled_by_xla(True):
        layers.conv2d(x, kernel)
    assert chosen


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("statistics", ["query", "support"])
def test_forward_pass_equals_numpy(float64, form, statistics):
    net = network(form=form, statistics=statistics, seed=2)
    batch = episodes()
    net.build(batch.support_x.shape)
    weights = [random(TASKS, *v.shape, seed=i) for i, v in enumerate(net.trainable_variables)]
    modulation = [(random(TASKS, n, seed=n), random(TASKS, n, seed=n + 1)) for n in (3, 4)]
    support = batch.support_x if statistics == "support" else None
    given = {} if support is None else {"support_x": support}
    found = net.functional_call(
        [tf.constant(w) for w in weights],
        batch.query_x,
        [mm.modulation.Affine(tf.constant(a), tf.constant(b)) for a, b in modulation],
        **given,
    )
    for task in range(TASKS):
        *kernels, kernel, bias = (w[task] for w in weights)
        expected = numpy_network(
            batch.query_x[task].numpy(),
            kernels,
            (kernel, bias),
            [(a[task], b[task]) for a, b in modulation],
            None if support is None else support[task].numpy(),
        )
        np.testing.assert_allclose(found[task], expected, atol=1e-10)


def test_predictions_depend_on_the_other_queries_only_with_their_statistics(float64):
    batch = episodes()
    for statistics, depends in (("query", True), ("support", False)):
        made = mm.MAML(network(statistics=statistics), inner_loop=mm.InnerLoop(1, 0.1))
        made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        made.build_for(batch)
        predict = made.adapt(batch.support_x, batch.support_y)
        together, alone = predict(batch.query_x)[:, :1], predict(batch.query_x[:, :1])
        assert np.allclose(together, alone, atol=1e-9) != depends


def test_published_sizes():
    net = mm.networks.ConvNet((32, 64, 128, 256), 5)
    net.build((None, None, 84, 84, 3))
    # 480 biases of the published convolutions are taken off again by the normalisation.
    assert net.count_params() == 389_701 - 480
    encoder = mm.encoders.ImageEncoder((32, 64, 128, 256), 128)
    encoder.build((None, 5, 84, 84, 3), (None, 5))
    film = mm.modulation.FiLM()
    film.build_for(encoder.embedding_size, net.modulated_kernels)
    assert encoder.count_params() + film.count_params() == 546_112 - 480
    sizes, z = [], tf.zeros((1, 1, 84, 84, 1))
    for _ in range(4):
        z = layers.conv2d(z, tf.zeros((3, 3, 1, 1)))
        sizes.append(z.shape[2])
    assert sizes == [42, 21, 11, 6]


def test_encoder_equals_numpy_and_ignores_order_and_labels(float64):
    encoder = mm.encoders.ImageEncoder((3, 4), units=5, seed=1)
    batch = episodes()
    encoder.build(batch.support_x.shape, batch.support_y.shape)
    for i, variable in enumerate(encoder.trainable_variables):
        variable.assign(random(*variable.shape, seed=i))
    found = encoder(batch.support_x, batch.support_y).numpy()
    for task in range(TASKS):
        z = batch.support_x[task].numpy()
        parts = zip(encoder.convolutions, encoder.scales, encoder.shifts, strict=True)
        for convolution, scale, shift in parts:
            z = numpy_convolution(z, convolution.kernel.numpy())
            z = (z - z.mean((0, 1, 2))) / np.sqrt(z.var((0, 1, 2)) + 1e-5)
            z = np.maximum(z * scale.numpy() + shift.numpy(), 0)
        dense = encoder.dense
        z = np.maximum(z.mean((1, 2)) @ dense.kernel.numpy() + dense.bias.numpy(), 0)
        np.testing.assert_allclose(found[task], z.mean(0), atol=1e-10)
    turned = encoder(batch.support_x[:, ::-1], 1 - batch.support_y)
    np.testing.assert_allclose(found, turned, atol=1e-12)


def test_encoder_sees_labels_when_asked():
    batch = episodes(np.float32)
    encoder = mm.encoders.ImageEncoder((3,), units=5, label_classes=CLASSES)
    encoder.build(batch.support_x.shape, batch.support_y.shape)
    one = encoder(batch.support_x, batch.support_y)
    assert np.any(one != encoder(batch.support_x, 1 - batch.support_y))


@pytest.mark.parametrize(
    ("recipe", "steps", "form", "modulation"),
    [
        ("MAML", 2, "patches", None),
        ("MMAML", 1, "patches", "film"),
        ("MMAML", 2, "looped", "film"),
        ("MMAML", 2, "patches", "kml"),
    ],
)
def test_meta_gradient_equals_finite_differences(float64, recipe, steps, form, modulation):
    made, batch = learner(recipe, steps, form=form, modulation=modulation), episodes()
    variables = [v.value for v in made._network_variables() + made._modulating_variables()]
    _, gradients = made._losses_and_gradients(*weighted(made, batch), groups=1)

    factory.assert_gradients(variables, gradients, factory.outer_loss(made, batch))


def weighted(made, batch):
    weights = made.task_weights(len(batch.support_x), batch.mode)
    return [*batch[:4], batch.mode, weights], made._values()


def test_forms_eager_graph_and_xla_give_one_meta_gradient(float64):
    batch = episodes()
    eager = learner(form="looped", modulation="kml")
    reference = eager._losses_and_gradients(*weighted(eager, batch), groups=1)
    for form, jit in (("looped", False), ("patches", False), ("patches", True), ("auto", True)):
        made = learner(jit=jit, form=form, modulation="kml")
        found = made._shard_gradients(*weighted(made, batch), groups=1)
        for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(reference), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10, err_msg=f"{form} {jit}")


def test_the_grouped_form_has_the_meta_gradient_of_the_others_in_single_precision():
    batch = episodes(np.float32)
    found, expected = (
        made._shard_gradients(*weighted(made, batch), groups=1)
        for made in (learner(form="grouped"), learner(form="looped"))
    )
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_the_number_of_tasks_may_be_unknown():
    made, batch = learner(), episodes(np.float32)
    specs = [tf.TensorSpec((None, None, *a.shape[2:]), a.dtype) for a in batch[:3]]
    graph = tf.function(lambda *inputs: made.call(inputs), input_signature=specs, autograph=False)
    np.testing.assert_allclose(graph(*batch[:3]), made.call(batch[:3]), atol=1e-5)


def test_head_only_changes_the_head_alone_and_its_gradient_is_exact(float64):
    made, batch = learner("MAML", 2, head_only=True), episodes()
    predict = made.adapt(batch.support_x, batch.support_y)
    *body, kernel, bias = predict.weights
    for weight, variable in zip(body, made.network.trainable_variables, strict=False):
        np.testing.assert_array_equal(weight, variable)
    assert kernel.shape[0] == bias.shape[0] == TASKS
    assert np.any(kernel != made.network.head[0].value)
    _, gradients = made._losses_and_gradients(*weighted(made, batch), groups=1)
    variables = [v.value for v in made.network.trainable_variables]
    factory.assert_gradients(variables, gradients, factory.outer_loss(made, batch))


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="filters=0: expected a whole number"):
        mm.networks.ConvNet((3, 0))
    with pytest.raises(ValueError, match="statistics is 'running'"):
        mm.networks.ConvNet(statistics="running")
    with pytest.raises(ValueError, match="form is 'fast'"):
        mm.networks.ConvNet(form="fast")
    with pytest.raises(ValueError, match=r"takes images of shape"):
        mm.networks.ConvNet((3,)).build((None, 5, 1))
    with pytest.raises(ValueError, match=r"takes support_x of shape \[T, K, H, W, C\]"):
        mm.encoders.ImageEncoder((3,)).build((None, 5, 1), (None, 5))
    with pytest.raises(ValueError, match=r"takes labels support_y"):
        encoder = mm.encoders.ImageEncoder((3,), label_classes=2)
        encoder.build((None, 5, 4, 4, 1), (None, 5, 1))
