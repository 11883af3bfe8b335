"""Small learners and batches for the tests."""

import keras
import numpy as np
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.episodes import prefetched

MODES = ("sinusoid", "linear")


def episodes(tasks=4, support=3, query=2, seed=0, dtype=np.float32):
    """Random episodes with two modes, without the task distribution's code."""
    rng = np.random.default_rng(seed)
    shapes = [(tasks, n, 1) for n in (support, support, query, query)]
    arrays = [tf.constant(rng.normal(size=shape).astype(dtype)) for shape in shapes]
    mode = tf.constant(np.arange(tasks) % 2, tf.int32)
    return mm.Episodes(*arrays, mode, tf.constant([seed, 0], tf.int64))


def dataset(batch, times=1):
    """A batch some times, without the tuning of tf.data, see `prefetched`."""
    return prefetched(tf.data.Dataset.from_tensors(batch).repeat(times), 1)


def mlp(seed=0, hidden=(5, 4), **kwargs):
    """A network whose weights are large enough for second-order terms to show."""
    start = keras.initializers.RandomNormal(stddev=0.7)
    return mm.networks.MLP(hidden, kernel_initializer=start, seed=seed, **kwargs)


def keras_mlp(hidden=(5, 4), kind="functional"):
    """An ordinary Keras model of the same form, in one of Keras's three styles."""
    init = keras.initializers.RandomNormal(stddev=0.7, seed=3)
    dense = [keras.layers.Dense(n, "relu", kernel_initializer=init) for n in hidden]
    dense.append(keras.layers.Dense(1, kernel_initializer=init))
    if kind == "sequential":
        return keras.Sequential([keras.Input((1,)), *dense])
    if kind == "functional":
        x = inputs = keras.Input((1,))
        for layer in dense:
            x = layer(x)
        return keras.Model(inputs, x)
    model = Subclassed(dense)
    model(np.zeros((1, 1)))
    return model


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, dense, **kwargs):
        super().__init__(**kwargs)
        self.dense = dense

    def call(self, x):
        for layer in self.dense:
            x = layer(x)
        return x

    def get_config(self):
        return {"dense": [keras.saving.serialize_keras_object(layer) for layer in self.dense]}

    @classmethod
    def from_config(cls, config):
        return cls([keras.saving.deserialize_keras_object(layer) for layer in config["dense"]])


def inner_loop(steps=2, **kwargs):
    return mm.InnerLoop(steps, learning_rate=0.1, **kwargs)


def learner(recipe="MMAML", network=None, modulation="film", loop=None, jit=False, **kwargs):
    """A small learner of one of the recipes, built for scalar x and y.

    Without XLA, whose compilation takes seconds; tests of XLA ask for it. jit=None: not compiled.
    """
    loop = inner_loop() if loop is None else loop
    if recipe == "MultiMAML":
        networks = network or [mlp(seed=0), mlp(seed=1)]
        made = mm.MultiMAML(networks, inner_loop=loop, modes=MODES, **kwargs)
    elif recipe == "MAML":
        made = mm.MAML(network or mlp(), inner_loop=loop, modes=MODES, **kwargs)
    else:
        encoder = mm.encoders.SequenceEncoder(units=3, layers=1, seed=1)
        parts = {"encoder": encoder, "modulation": modulation, "modes": MODES}
        if recipe == "MMAML":
            parts["inner_loop"] = loop
        made = getattr(mm, recipe)(network or mlp(), **parts, **kwargs)
    if jit is not None:
        optimizer = keras.optimizers.Adam(1e-2, epsilon=1e-8)
        made.compile(optimizer=optimizer, loss="mse", jit_compile=jit)
    made.build_for(episodes())
    return made


RECIPES = ("MAML", "MultiMAML", "MMAML", "LSTMLearner")


def outer_gradient(made, batch):
    """The unclipped meta-gradient and loss, by the learner's own composition."""
    variables = made.trainable_variables
    with tf.GradientTape() as tape:
        predictions = made.call(batch[:3], mode=batch.mode)
        losses = made.task_losses(batch.query_y, predictions)
        loss = tf.reduce_sum(made.task_weights(len(batch.support_x), batch.mode) * losses)
    gradients = tape.gradient(
        loss, [v.value for v in variables], unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return loss, gradients


def assert_gradients(variables, gradients, loss, rtol=2e-5, atol=1e-9):
    """Compares each gradient with central differences of `loss()` in a random direction."""
    rng = np.random.default_rng(1)
    for variable, gradient in zip(variables, gradients, strict=True):
        direction = rng.normal(size=variable.shape)
        value, step = variable.numpy(), 1e-6
        variable.assign(value + step * direction)
        above = loss()
        variable.assign(value - step * direction)
        below = loss()
        variable.assign(value)
        np.testing.assert_allclose(
            np.sum(gradient * direction),
            (above - below) / (2 * step),
            rtol=rtol,
            atol=atol,
            err_msg=getattr(variable, "path", variable.name),
        )


def outer_loss(made, batch):
    """Returns a graph that computes the loss of a batch after adaptation."""

    @tf.function(autograph=False)
    def loss():
        predictions = made.call(batch[:3], mode=batch.mode)
        losses = made.task_losses(batch.query_y, predictions)
        return tf.reduce_sum(made.task_weights(len(batch.support_x), batch.mode) * losses)

    return loss
