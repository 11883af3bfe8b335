"""A learner of one task without inner steps trains a Keras model as Keras's own `fit` does."""

import factory
import keras
import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.keras_internals import flat_layers

layers, regularizers = keras.layers, keras.regularizers


def sequential(*inner, inputs=3):
    return keras.Sequential([keras.Input((inputs,)), *inner, layers.Dense(1)])


def seeded():
    return keras.initializers.GlorotUniform(seed=5)


def dense(**kwargs):
    return layers.Dense(4, kernel_initializer=seeded(), **kwargs)


@keras.saving.register_keras_serializable("tests")
class WithoutTraining(keras.Model):
    """A subclassed model whose `call` has no training argument, and that adds a loss."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.norm, self.drop = dense(), layers.BatchNormalization(), layers.Dropout(0.5)
        self.drop.seed_generator.state.assign([3, 0])
        self.last = layers.Dense(1, kernel_initializer=seeded())

    def call(self, x):
        z = self.drop(self.norm(self.first(x)))
        self.add_loss(0.1 * tf.reduce_mean(tf.abs(z)))
        return self.last(tf.nn.relu(z))


class WithTraining(WithoutTraining):
    """The same, as Keras wants it: otherwise its `fit` runs a model in inference mode."""

    def call(self, x, training=None):
        return super().call(x)


def subclassed(kind=WithTraining):
    model = kind()
    model(np.zeros((1, 3)))
    return model


MODELS = {
    "regularised": lambda: sequential(
        dense(kernel_regularizer=regularizers.L2(0.3), bias_regularizer="l1"),
        dense(activity_regularizer=regularizers.L1(0.2)),
    ),
    "constrained": lambda: sequential(dense(kernel_constraint=keras.constraints.UnitNorm())),
    "batch normalised": lambda: sequential(dense(), layers.BatchNormalization(), layers.ReLU()),
    "random": lambda: sequential(dense(activation="tanh"), layers.Dropout(0.5, seed=7)),
    "subclassed": subclassed,
}
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "decay, clip and average": lambda: keras.optimizers.AdamW(
        0.1, weight_decay=0.3, global_clipnorm=0.5, use_ema=True
    ),
    "loss_scale_factor": lambda: keras.optimizers.SGD(0.1, loss_scale_factor=1024.0),
    "dynamic loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), dynamic_growth_steps=1
    ),
    "accumulated": lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
}
LOSSES = {
    "mse": lambda: "mse",
    "sum": lambda: keras.losses.Huber(reduction="sum"),
}


def vectors(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(6, 3)).astype("f"), rng.normal(size=(6, 1)).astype("f")


def networks(model):
    normalised = any(isinstance(a, layers.BatchNormalization) for a in flat_layers(model))
    return mm.networks.KerasNetwork(model, statistics="moving" if normalised else "query")


@pytest.mark.parametrize(
    ("model", "optimizer", "loss"),
    [*((name, "sgd", "mse") for name in MODELS)]
    + [("regularised", name, "mse") for name in list(OPTIMIZERS)[1:]]
    + [("random", "sgd", "sum")],
)
def test_one_task_without_inner_steps_trains_as_keras_does(model, optimizer, loss):
    """Weights, moving averages, random masks and the loss that is shown are all the same."""
    own = MODELS[model]()
    ours = subclassed(WithoutTraining) if model == "subclassed" else MODELS[model]()
    ours.set_weights(own.get_weights())
    learner = mm.MAML(networks(ours), inner_loop=mm.InnerLoop(0), outer_clip=None)
    own.compile(OPTIMIZERS[optimizer](), LOSSES[loss]())
    learner.compile(OPTIMIZERS[optimizer](), LOSSES[loss]())
    shown = []
    for step in range(3):
        (x, y), (q, t) = vectors(100 + step), vectors(step)
        expected = own.train_on_batch(q, t)
        found = learner.train_on_batch(mm.Episodes(x[None], y[None], q[None], t[None]))
        shown.append((expected, found))
    # Keras shows the mean of a loss that it optimises the sum of.
    np.testing.assert_allclose(*np.transpose(shown), rtol=1e-5)
    for a, b in zip(own.weights, ours.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=a.path)
    q, t = vectors(9)
    np.testing.assert_allclose(
        learner.adapt(*vectors(8), steps=0)(q), own.predict_on_batch(q), rtol=1e-5, atol=1e-6
    )
    tests = learner.test_on_batch(tuple(a[None] for a in (*vectors(8), q, t)))
    np.testing.assert_allclose(tests, own.test_on_batch(q, t), rtol=1e-5)


def test_what_a_model_adds_to_the_loss_joins_the_inner_loop():
    """An inner step on a task is a step of Keras's SGD on its support set."""
    own, ours = MODELS["regularised"](), MODELS["regularised"]()
    ours.set_weights(own.get_weights())
    learner = mm.MAML(ours, inner_loop=mm.InnerLoop(1, 0.1))
    learner.compile("sgd", "mse")
    own.compile(keras.optimizers.SGD(0.1), "mse")
    (x, y), (q, t) = vectors(0), vectors(1)
    learner.build_for(mm.Episodes(x[None], y[None], q[None], t[None]))
    own.train_on_batch(x, y)
    np.testing.assert_allclose(learner.adapt(x, y)(q), own.predict_on_batch(q), rtol=1e-5)


@keras.saving.register_keras_serializable("tests")
class MeanEncoder(layers.Layer):
    """An encoder with a moving average, dropout, and losses of its own."""

    def __init__(self, rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.dense = layers.Dense(4, kernel_regularizer=regularizers.L2(0.1))
        self.norm, self.drop = layers.BatchNormalization(), layers.Dropout(rate, seed=1)

    def call(self, support_x, support_y, training=False):
        points = tf.concat([support_x, support_y], axis=-1)
        z = self.norm(self.dense(tf.reduce_mean(points, axis=1)), training=training)
        return self.drop(tf.tanh(z), training=training)

    def get_config(self):
        return super().get_config() | {"rate": self.rate}


def with_encoder(encoder, jit=False, **kwargs):
    learner = mm.MMAML(
        factory.mlp(),
        encoder=encoder,
        modulation="film",
        inner_loop=factory.inner_loop(1),
        outer_clip=None,
    )
    learner.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit, **kwargs)
    learner.build_for(factory.episodes())
    return learner


@pytest.mark.parametrize("jit", [False, True])
def test_an_encoder_trains_in_training_mode(jit):
    learner = with_encoder(MeanEncoder(), jit)
    batch = factory.episodes()
    encoder = learner.encoder
    embedding = learner.embed(*batch[:2])
    np.testing.assert_array_equal(embedding, learner.embed(*batch[:2]))  # no dropout
    average, seed = encoder.norm.moving_mean.numpy(), encoder.drop.seed_generator.state.numpy()
    learner.fit(batch, epochs=2, verbose=0)
    points = tf.reduce_mean(tf.concat(batch[:2], axis=-1), axis=1)
    assert not np.array_equal(average, encoder.norm.moving_mean)
    assert not np.array_equal(seed, encoder.drop.seed_generator.state)
    assert np.abs(encoder.norm.moving_mean).max() < np.abs(encoder.dense(points)).max()


def test_the_losses_of_an_encoder_join_the_outer_loss():
    batch = factory.episodes()
    plain = with_encoder(MeanEncoder(rate=0.0))
    other = with_encoder(MeanEncoder(rate=0.0))
    other.set_weights(plain.get_weights())
    other.encoder.dense.kernel.regularizer = None
    penalty = 0.1 * np.sum(np.square(plain.encoder.dense.kernel))
    kernel = plain.encoder.dense.kernel.numpy()
    losses = [made.train_on_batch(batch) for made in (plain, other)]
    np.testing.assert_allclose(losses[0], losses[1] + penalty, rtol=1e-5)
    change = plain.encoder.dense.kernel - other.encoder.dense.kernel
    np.testing.assert_allclose(change, -0.1 * 0.2 * kernel, rtol=1e-3, atol=1e-6)


def test_a_batch_that_is_divided_has_one_moving_average():
    batch = factory.episodes()
    whole = with_encoder(MeanEncoder(), shards=1)
    divided = with_encoder(MeanEncoder(), shards=2, tasks_at_once=1)
    divided.set_weights(whole.get_weights())
    for learner in (whole, divided):
        learner.fit(batch, verbose=0)
    for a, b in zip(whole.weights, divided.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=a.path)
