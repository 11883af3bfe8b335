import keras
import numpy as np
import policies
import promp_in_numpy
import pytest
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf import rl
from mmaml_tf.rl import Trajectories, TrajectoryEncoder


@pytest.fixture
def encoder(float64):
    return make()


def make(units=4, window=None):
    made = TrajectoryEncoder(units=units, window=window, seed=3)
    made.build((None, None, None, policies.OBSERVATION), (None, None, None, policies.ACTION))
    # So that biases take part too.
    for index, variable in enumerate(made.trainable_variables):
        rng = np.random.default_rng(index)
        variable.assign_add(rng.normal(scale=0.3, size=variable.shape))
    return made


def trajectories(**kwargs):
    return policies.trajectories(dtype=np.float64, **kwargs)


def test_the_embedding_is_that_of_a_gru_in_numpy(encoder):
    given = trajectories()
    observations, actions, rewards, mask = (part.numpy() for part in given)
    assert (mask == 0).any()
    found = encoder(given)
    assert found.shape == (3, encoder.embedding_size) == (3, 4)
    for task in range(3):
        counts = mask[task]
        expected = promp_in_numpy.embedding(
            encoder,
            observations[task] * counts[..., None],
            actions[task] * counts[..., None],
            rewards[task] * counts,
        )
        np.testing.assert_allclose(found[task], expected, rtol=1e-9, atol=1e-9)


def test_the_order_of_rollouts_does_not_matter_but_that_of_steps_does(encoder):
    given = trajectories()
    expected = encoder(given).numpy()
    shuffled = Trajectories(*(tf.gather(part, [2, 0, 3, 1], axis=1) for part in given))
    np.testing.assert_allclose(encoder(shuffled), expected, rtol=1e-12)
    backwards = Trajectories(*(part[:, :, ::-1] for part in given))
    assert not np.allclose(encoder(backwards), expected, atol=1e-3)


@pytest.mark.parametrize("part", ["observations", "actions", "rewards"])
def test_every_step_counts_and_masked_ones_do_not(encoder, part):
    given = trajectories()
    expected = encoder(given).numpy()
    noise = np.random.default_rng(5).normal(size=getattr(given, part).shape)
    broadcast = given.mask.numpy().reshape(*given.mask.shape, *[1] * (noise.ndim - 3))
    for changes, differs in ((broadcast, True), (1 - broadcast, False)):
        changed = given._replace(**{part: getattr(given, part) + noise * changes})
        assert np.allclose(encoder(changed), expected, rtol=0, atol=1e-6) != differs


def test_windows_are_read_as_rollouts_of_their_own(float64):
    given = trajectories(tasks=3, rollouts=4, steps=6)
    pieces = Trajectories(*(tf.reshape(part, [3, 8, 3, *part.shape[3:]]) for part in given))
    found = make(window=3)(given)
    np.testing.assert_allclose(found, make()(pieces), rtol=1e-12)
    assert not np.allclose(found, make()(given), atol=1e-3)


def test_windows_must_divide_the_horizon():
    with pytest.raises(ValueError, match="rollouts of 5 steps cannot be cut into windows of 4"):
        make(window=4)(policies.trajectories(steps=5))


def test_a_task_does_not_depend_on_others(encoder):
    given = trajectories()
    alone = Trajectories(*(part[1:2] for part in given))
    np.testing.assert_allclose(encoder(alone)[0], encoder(given)[1], rtol=1e-12)


@pytest.mark.parametrize("window", [None, 1])
def test_eager_graph_and_xla_agree(window):
    encoder = make(window=window)
    given = policies.trajectories()
    expected = encoder(given)
    for jit in (False, True):
        graph = tf.function(encoder, jit_compile=jit, autograph=False)
        np.testing.assert_allclose(graph(given), expected, rtol=1e-4, atol=1e-6)


def test_it_starts_as_published():
    encoder = TrajectoryEncoder(units=16)
    encoder.build((None, None, None, 3), (None, None, None, 2))
    kernel, recurrent, bias = encoder.gru.trainable_variables
    np.testing.assert_array_equal(bias, 0.0)  # one vector: the reset comes before the product
    np.testing.assert_allclose(recurrent @ tf.transpose(recurrent), np.eye(16), atol=1e-5)
    for weights in (kernel, *(layer.kernel for layer in encoder.dense)):
        bound = np.sqrt(6 / sum(weights.shape))
        assert 0.8 * bound < np.abs(weights).max() <= bound
    assert len({float(layer.kernel[0, 0]) for layer in encoder.dense}) == 4


def test_its_configuration_makes_the_same_encoder():
    encoder = TrajectoryEncoder(units=3, window=2, seed=7)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(encoder))
    for made in (encoder, again):
        made.build((None, None, None, 3), (None, None, None, 2))
    assert again.window == 2
    for a, b in zip(encoder.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "sizes", [{"units": 0}, {"window": 0}, {"units": 2.5}, {"window": True}, {"seed": 0.5}]
)
def test_sizes_that_are_no_whole_positive_numbers_are_refused(sizes):
    ((name, value),) = sizes.items()
    with pytest.raises(ValueError, match=f"{name}={value}: expected a whole number"):
        TrajectoryEncoder(**sizes)


class Summary(keras.layers.Layer):
    """An encoder of one's own: the mean observation, through a dense layer."""

    def __init__(self, layer=None, rank=2, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.rank = layer or keras.layers.Dense(4), rank

    def call(self, trajectories, training=False):
        mean = tf.reduce_mean(trajectories.observations, axis=(1, 2))
        z = self.dense(mean, training=training)
        return z if self.rank == 2 else z[:, None]


class Pair(keras.layers.Layer):
    """An encoder of support sets."""

    def call(self, support_x, support_y):
        return support_x


def with_encoder(encoder):
    inner_loop = mm.InnerLoop(1, 0.3)
    return rl.MultimodalProMP(
        policies.policy(),
        encoder=encoder,
        modulation="film",
        inner_loop=inner_loop,
        modes=policies.MODES,
    )


def test_an_encoder_of_one_s_own_modulates_and_is_exported(tmp_path):
    made = with_encoder(Summary())
    rollouts = policies.Rollouts("Bandit-v0", 2, max_episode_steps=2)
    made.compile(keras.optimizers.SGD(0.1), rollouts, jit_compile=False)
    made.build_for(policies.GOALS)
    made.export(tmp_path / "model")
    stages = list(made.stages(policies.GOALS))
    model = tf.saved_model.load(tmp_path / "model")
    adapted = model.adapt(*stages[0].trajectories[:3], model.initial(tf.constant(4)))
    scale = stages[1].parameters.modulation[0].scale
    np.testing.assert_allclose(adapted["modulation_00"], scale, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (lambda: Summary(rank=3), r"gives embeddings of shape \(1, 1, 4\)"),
        (lambda: Summary(keras.layers.BatchNormalization()), "changes .* in training"),
        (lambda: Summary(keras.layers.Dropout(0.5)), "changes .* in training"),
        (Pair, "cannot read these rollouts; it takes mmaml_tf.rl.Trajectories"),
        (lambda: Summary(keras.layers.Dense(4, dtype="float64")), "the learner is float32, and no"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(encoder, message):
    with pytest.raises(ValueError, match=message) as caught:
        with_encoder(encoder()).build([(None, None, None, 3), (None, None, None, 2)])
    assert "\n" not in str(caught.value)


def test_an_encoder_without_any_step_would_be_ignored():
    with pytest.raises(ValueError, match="inner steps is 0"):
        policies.learner("MultimodalProMP", steps=0)
