"""Models and encoders of users' own keep the promises of the package's.

Each model joins several kinds of layers, since tracing takes most of the time; the long tests take
each kind apart and compare whole meta-gradients with finite differences.
"""

import factory
import keras
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm

layers = keras.layers


def functional(shape, *inner):
    x = inputs = keras.Input(shape)
    for layer in inner:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(1)(x))


@keras.saving.register_keras_serializable("tests")
class Residual(keras.Model):
    """Subclassed, without a training argument, with a nested model and a layer used twice."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.Sequential([layers.Dense(4), layers.BatchNormalization()])
        self.twice, self.drop, self.last = layers.Dense(4), layers.Dropout(0.3), layers.Dense(1)

    def call(self, x):
        z = tf.tanh(self.first(x))
        return self.last(self.drop(z + self.twice(tf.tanh(self.twice(z)))))


def subclassed():
    model = Residual()
    model(np.zeros((2, 3)))
    return model


def frozen():
    pretrained = keras.Sequential([keras.Input((3,)), layers.Dense(5, "tanh"), layers.Dense(4)])
    pretrained.layers[0].trainable = False
    return functional((3,), pretrained, layers.LayerNormalization(), layers.Activation("gelu"))


def attention():
    inputs = keras.Input((4,))
    x = layers.Embedding(7, 3)(inputs)
    x = layers.MultiHeadAttention(1, 2)(x, x)
    x = layers.GRU(2, unroll=True)(x)
    return keras.Model(inputs, layers.Dense(1)(x))


def convolutions():
    return functional(
        (5, 5, 2),
        layers.Conv2D(4, 3, padding="same"),
        layers.GroupNormalization(2),
        layers.DepthwiseConv2D(2, activation="tanh"),
        layers.Conv2DTranspose(2, 2, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
    )


MODELS = {
    "subclassed": (subclassed, (3,)),
    "frozen": (frozen, (3,)),
    "attention": (attention, (4,)),
    "convolutions": (convolutions, (5, 5, 2)),
}
L2 = keras.regularizers.L2(0.1)
#: a layer of each kind by itself
KINDS = {
    "regularised": ((3,), [lambda: layers.Dense(4, "tanh", kernel_regularizer=L2)]),
    "batch": ((3,), [lambda: layers.Dense(4), layers.BatchNormalization]),
    "layer": ((3,), [lambda: layers.Dense(4), layers.LayerNormalization]),
    "group": ((3,), [lambda: layers.Dense(4), lambda: layers.GroupNormalization(2)]),
    "rms": ((3,), [lambda: layers.Dense(4), layers.RMSNormalization]),
    "unit": ((3,), [lambda: layers.Dense(4), layers.UnitNormalization]),
    "LSTM": ((3, 2), [lambda: layers.LSTM(2)]),
    "bidirectional GRU": ((3, 2), [lambda: layers.Bidirectional(layers.GRU(2))]),
    "simple RNN": ((3, 2), [lambda: layers.SimpleRNN(2)]),
    "embedding": ((4,), [lambda: layers.Embedding(7, 2), layers.Flatten]),
    "masking": ((3, 2), [layers.Masking, lambda: layers.LSTM(2)]),
    "Conv1D": ((5, 2), [lambda: layers.Conv1D(3, 2, activation="tanh"), layers.Flatten]),
    "causal": ((5, 2), [lambda: layers.Conv1D(3, 2, padding="causal"), layers.Flatten]),
    "Conv3D": ((3, 3, 3, 1), [lambda: layers.Conv3D(2, 2, activation="tanh"), layers.Flatten]),
    "separable": ((4, 4, 2), [lambda: layers.SeparableConv2D(2, 2), layers.Flatten]),
    "depthwise": ((4, 4, 2), [lambda: layers.DepthwiseConv2D(2), layers.Flatten]),
    "transposed": ((3, 3, 2), [lambda: layers.Conv2DTranspose(2, 2), layers.Flatten]),
    "time distributed": (
        (3, 2),
        [lambda: layers.TimeDistributed(layers.Dense(2, "tanh")), layers.Flatten],
    ),
    "average pooling": (
        (4, 4, 2),
        [lambda: layers.Conv2D(2, 2), layers.AveragePooling2D, layers.GlobalAveragePooling2D],
    ),
    "einsum": ((3,), [lambda: layers.EinsumDense("ab,bc->ac", 4, activation="tanh")]),
    "PReLU": ((3,), [lambda: layers.Dense(4), layers.PReLU]),
}


def episodes(shape, tasks=3, dtype="float32"):
    rng = np.random.default_rng(0)
    x, q = (rng.normal(size=(tasks, n, *shape)).astype(dtype) for n in (4, 3))
    if shape == (4,):  # ids
        x, q = (np.abs(a * 3).astype("int32") % 7 for a in (x, q))
    y, t = (rng.normal(size=(tasks, n, 1)).astype(dtype) for n in (4, 3))
    return mm.Episodes(x, y, q, t)


@keras.saving.register_keras_serializable("tests")
class MeanOfTargets(layers.Layer):
    """The least that an encoder can be."""

    def call(self, support_x, support_y):
        return tf.concat([tf.reduce_mean(support_y, 1), tf.reduce_max(support_y, 1)], axis=1)


def learner(model, batch, recipe="MAML", optimizer=None, loop=None):
    loop = loop or mm.InnerLoop(1, 0.1)
    made = mm.MAML(model, inner_loop=loop)
    if recipe == "MMAML":
        made = mm.MMAML(model, encoder=MeanOfTargets(), modulation="film", inner_loop=loop)
    made.compile(optimizer or keras.optimizers.SGD(0.1), "mse")
    made.build_for(batch)
    return made


def check(made, batch, directory):
    """Trains a learner by one step and compares the ways to predict."""
    weights = [*made.trainable_variables]
    before = [v.numpy() for v in (*weights, *made.non_trainable_variables)]
    assert np.isfinite(made.train_on_batch(batch))
    changed = [not np.array_equal(a, v) for a, v in zip(before, weights, strict=False)]
    # A bias before a normalisation of its own has no gradient.
    assert sum(changed) >= len(weights) - 2
    others = zip(before[len(weights) :], made.non_trainable_variables, strict=True)
    assert all(np.array_equal(a, v) for a, v in others if "kernel" in v.path)
    x, y, q, _ = batch[:4]
    together = made.adapt(x, y)(q).numpy()
    alone = [made.adapt(*task)(q_task) for *task, q_task in zip(x, y, q, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    made.save(directory / "learner.keras")
    loaded = keras.models.load_model(directory / "learner.keras")
    np.testing.assert_allclose(loaded.predict_on_batch(batch), together, rtol=1e-5, atol=1e-6)
    made.export(directory / "model")
    exported = tf.saved_model.load(directory / "model")
    found = exported.adapt_and_predict(x.astype("f"), y, q.astype("f"))
    np.testing.assert_allclose(found, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_models_of_users_own(name, tmp_path):
    make, shape = MODELS[name]
    recipe = "MMAML" if name in ("frozen", "convolutions") else "MAML"
    made = make()
    if name == "convolutions":
        made = mm.networks.KerasNetwork(made, modulated=[made.layers[2].name])
    check(learner(made, episodes(shape), recipe), episodes(shape), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_layer(kind, tmp_path):
    shape, inner = KINDS[kind]
    check(
        learner(functional(shape, *(make() for make in inner)), episodes(shape)),
        episodes(shape),
        tmp_path,
    )


def finite_differences(model, shape):
    batch = episodes(shape, tasks=2, dtype="float64")
    made = learner(model, batch, loop=mm.InnerLoop(2, 0.1))
    batch = mm.Episodes(*(tf.convert_to_tensor(a) for a in batch[:4]))
    _, gradients = factory.outer_gradient(made, batch)
    factory.assert_gradients(
        made.trainable_variables, gradients, factory.outer_loss(made, batch), rtol=1e-4, atol=1e-7
    )


def test_the_meta_gradient_of_a_model_with_normalisations(float64):
    inner = [
        layers.Dense(4),
        layers.GroupNormalization(2),
        layers.Dense(3),
        layers.LayerNormalization(),
    ]
    finite_differences(functional((3,), *inner, layers.Dense(4), layers.BatchNormalization()), (3,))


@pytest.mark.long
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("causal", "regularised")])
def test_the_meta_gradient_of_each_kind_of_layer(float64, kind):
    """Regularisers are no part of the loss that is compared here."""
    shape, inner = KINDS[kind]
    finite_differences(functional(shape, *(make() for make in inner)), shape)


@pytest.mark.long
def test_a_network_of_keras_applications(tmp_path):
    backbone = keras.applications.MobileNetV2((32, 32, 3), 0.35, include_top=False, weights=None)
    backbone.trainable = False
    for layer in backbone.layers[-4:]:
        layer.trainable = True
    model = functional((32, 32, 3), backbone, layers.GlobalAveragePooling2D())
    check(learner(model, episodes((32, 32, 3))), episodes((32, 32, 3)), tmp_path)


def pooled():
    x, y = keras.Input((None, 1)), keras.Input((None, 1))
    z = layers.Dense(4, "tanh")(layers.Concatenate()([x, y]))
    return keras.Model([x, y], layers.GlobalAveragePooling1D()(z))


def set_attention():
    x, y = keras.Input((None, 1)), keras.Input((None, 1))
    z = layers.Dense(4)(layers.Concatenate()([x, y]))
    z = layers.MultiHeadAttention(2, 2)(z, z)
    return keras.Model([x, y], layers.GlobalMaxPooling1D()(z))


def of_inputs_alone():
    return keras.Sequential([keras.Input((None, 1)), layers.GRU(3, unroll=False)])


@pytest.mark.parametrize("encoder", [pooled, set_attention, of_inputs_alone])
def test_encoders_of_users_own(encoder):
    batch = factory.episodes()
    made = mm.MMAML(
        factory.mlp(), encoder=encoder(), modulation="film", inner_loop=factory.inner_loop(1)
    )
    made.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    made.build_for(batch)
    before = [v.numpy() for v in made.encoder.trainable_variables]
    assert before
    made.fit(batch, verbose=0)
    after = made.encoder.trainable_variables
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert made.embed(*batch[:2]).shape[0] == 4


REFUSED = {
    "several inputs": (
        lambda: keras.Model(
            [a := keras.Input((3,)), b := keras.Input((3,))],
            layers.Dense(1)(a) + layers.Dense(1)(b),
        ),
        "2 inputs",
    ),
    "a dictionary": (
        lambda: keras.Model(i := keras.Input((3,)), {"a": layers.Dense(1)(i)}),
        "gives a dict",
    ),
    "a mask": (
        lambda: keras.Sequential(
            [keras.Input((3, 1)), layers.Masking(), layers.LSTM(1, return_sequences=True)]
        ),
        "carry a mask",
    ),
    "spectral normalisation": (
        lambda: keras.Sequential(
            [keras.Input((3,)), layers.SpectralNormalization(layers.Dense(1))]
        ),
        "cannot run for several tasks at once",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_cannot_be_task_networks_are_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        batch = episodes((3, 1) if name == "a mask" else (3,))
        if name == "a mask":
            batch = batch._replace(support_y=batch.support_x, query_y=batch.query_x)
        made = mm.MAML(make(), inner_loop=mm.InnerLoop(1))
        made.compile("sgd", "mse")
        made.fit(batch, verbose=0)


class MixesTasks(layers.Layer):
    def call(self, support_x, support_y):
        return tf.reduce_mean(support_x, 1) - tf.reduce_mean(support_x, [0, 1])[None]


class OfInputs(layers.Layer):
    def call(self, inputs):
        return inputs


class WrongRank(layers.Layer):
    def call(self, support_x, support_y):
        return support_x + support_y


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (MixesTasks, "another task is beside it"),
        (OfInputs, "cannot be called on"),
        (lambda: layers.LSTM(3), "takes sequences alone"),
        (layers.GlobalAveragePooling1D, "takes inputs alone"),
        (WrongRank, r"embeddings of shape \(2, 3, 1\)"),
    ],
)
def test_encoders_that_cannot_be_used_are_refused(encoder, message):
    made = mm.MMAML(
        factory.mlp(), encoder=encoder(), modulation="film", inner_loop=factory.inner_loop(1)
    )
    made.compile("sgd", "mse")
    with pytest.raises(ValueError, match=message):
        made.build_for(factory.episodes())
