import factory
import keras
import numpy as np
import pytest
import states
import tensorflow as tf
from factory import dataset

import mmaml_tf as mm
from mmaml_tf import evaluation, nonfinite

like_new = states.reused(factory.learner)


def test_fit_takes_the_clipped_step_of_the_meta_gradient():
    """One step of plain gradient descent, each group's gradient clipped by its own norm."""
    learner = factory.learner("MMAML", outer_clip=0.01)
    learner.compile(keras.optimizers.SGD(1.0), loss="mse", jit_compile=True)
    batch = factory.episodes()
    _, gradients = factory.outer_gradient(learner, batch)
    before = [v.numpy() for v in learner.trainable_variables]
    learner.fit(dataset(batch), verbose=0)
    sizes = [len(group) for group in learner.gradient_groups()]
    assert sizes == [6, 6 + 4]
    for start, stop in ((0, sizes[0]), (sizes[0], sum(sizes))):
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients[start:stop]))
        assert norm > 0.01
        for i in range(start, stop):
            moved = before[i] - learner.trainable_variables[i].numpy()
            np.testing.assert_allclose(moved, gradients[i] * 0.01 / norm, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("recipe", factory.RECIPES)
def test_training_reduces_the_loss_and_reports_it_by_mode(recipe):
    learner = like_new(recipe)
    history = learner.fit(dataset(factory.episodes(), 40), epochs=4, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    by_mode = [history[f"loss_{mode}"] for mode in factory.MODES]
    np.testing.assert_allclose(np.mean(by_mode, axis=0), history["loss"], rtol=1e-4)


def test_an_ordinary_keras_model_trains():
    loop = mm.InnerLoop(2, learning_rate=0.01)
    learner = factory.learner("MMAML", network=factory.keras_mlp(), loop=loop, jit="auto")
    tasks = mm.tasks.FunctionTasks(queries=10)
    history = learner.fit(tasks.dataset(8, seed=0), epochs=4, steps_per_epoch=30, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    report = mm.evaluate(learner, tasks, tasks_per_mode=6, batch_size=5)
    batch = tasks.held_out(6, seed=7).episodes
    predictions = learner.adapt(batch.support_x, batch.support_y)(batch.query_x)
    expected = np.mean((predictions - batch.query_y) ** 2)
    np.testing.assert_allclose(report.estimate().mean, expected, rtol=1e-4)


def test_keras_evaluate_equals_the_mean_task_loss():
    learner = like_new("MMAML")
    batch = factory.episodes()
    predictions = learner.call(batch[:3])
    expected = np.mean((predictions - batch.query_y) ** 2)
    loss = learner.evaluate(dataset(batch), verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("recipe", factory.RECIPES)
def test_adapting_one_task_equals_adapting_a_batch(recipe):
    learner, batch = like_new(recipe), factory.episodes()
    together = learner.adapt(batch.support_x, batch.support_y, mode=batch.mode)(batch.query_x)
    for t in range(len(batch.mode)):
        alone = learner.adapt(batch.support_x[t], batch.support_y[t], mode=batch.mode[t])
        np.testing.assert_allclose(alone(batch.query_x[t]), together[t], rtol=1e-4, atol=1e-5)


def test_steps_can_be_chosen_when_adapting():
    learner, batch = like_new("MAML"), factory.episodes()
    x, y, q = batch[:3]
    no_step = learner.adapt(x, y, steps=0)(q)
    np.testing.assert_allclose(no_step, learner.network(q), rtol=1e-5, atol=1e-6)
    ten = learner.adapt(x, y, steps=10)
    support_loss = [
        float(tf.reduce_mean((learner.adapt(x, y, steps=s)(x) - y) ** 2)) for s in (0, 2, 10)
    ]
    assert support_loss[0] > support_loss[1] > support_loss[2]
    assert ten.weights[0].shape == (4, 1, 5)


def test_lstm_learner_takes_no_inner_step():
    learner, batch = like_new("LSTMLearner"), factory.episodes()
    path, affine = learner.adaptation_path(batch.support_x, batch.support_y)
    assert len(path) == 1
    assert affine is not None


def test_modulation_depends_on_the_support_set_and_changes_the_output():
    learner, batch = like_new("MMAML"), factory.episodes()
    x, y, q = batch[:3]
    a, b = (learner.adapt(x, targets, steps=0)(q) for targets in (y, y + 1.0))
    assert not np.allclose(a, b)


def test_a_bank_trains_like_its_members_apart():
    """Multi-MAML equals one MAML per mode, each on its own tasks with its own clip."""
    loop = factory.inner_loop(2)
    bank = factory.learner("MultiMAML", loop=loop, outer_clip=0.05)
    batch = factory.episodes(tasks=6)
    bank.fit(dataset(batch, 3), verbose=0)
    alone = []
    for mode in range(2):
        single = factory.learner("MAML", network=factory.mlp(seed=mode), loop=loop, outer_clip=0.05)
        rows = [a[mode::2] for a in batch[:5]]
        single.fit(dataset(mm.Episodes(*rows, batch.origin), 3), verbose=0)
        alone.append(single)
        for a, b in zip(
            bank.networks[mode].get_weights(), single.network.get_weights(), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    joined = mm.MultiMAML.from_learners(alone, factory.MODES)
    joined.compile(loss="mse")
    x, y, q = batch[:3]
    np.testing.assert_allclose(
        joined.adapt(x, y, mode=batch.mode)(q),
        bank.adapt(x, y, mode=batch.mode)(q),
        rtol=1e-3,
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="no mode was given"):
        bank.adapt(x, y)


def test_a_bank_joins_learners_of_the_same_settings_alone():
    learners = [factory.learner("MAML") for _ in range(2)]
    others = [learners[0], factory.learner("MAML", loop=mm.InnerLoop(4, 0.3))]
    modulated = [factory.learner("MMAML") for _ in range(2)]
    wider = [factory.learner("MAML", network=factory.mlp(hidden=(n, 4))) for n in (5, 6)]
    keras_models = [factory.learner("MAML", network=factory.keras_mlp((n, 4))) for n in (5, 6)]
    for given, message in (
        ([], "at least one"),
        (others, r"\['inner_loop'\] differ"),
        (modulated, "would lose their modulation"),
        (wider, r"\['hidden'\] differ"),
        (keras_models, r"\['settings of layers'\] differ"),
        ([learners[0], keras_models[0]], r"\['types'\] differ"),
    ):
        with pytest.raises(ValueError, match=message):
            mm.MultiMAML.from_learners(given, factory.MODES)
    with pytest.raises(ValueError, match="a network is given twice"):
        mm.MultiMAML.from_learners(learners[:1] * 2, factory.MODES)
    with pytest.raises(ValueError, match="2 networks for 1 modes"):
        mm.MultiMAML.from_learners(learners, factory.MODES[:1])


def keras_member(activation="relu", frozen=False, scale=1.0, statistics=None, dropout=0.0):
    """A trained member of a bank whose network is a Keras model."""
    layers = [keras.layers.Dense(3, activation), keras.layers.Dense(1)]
    if dropout:
        layers.insert(1, keras.layers.Dropout(dropout))
    if statistics:
        layers.insert(1, keras.layers.BatchNormalization())
    model = keras.Sequential([keras.Input((1,)), *layers])
    if frozen:
        model.layers[0].kernel.assign(scale * tf.ones((1, 3)))
        model.layers[0].trainable = False
    return factory.learner(
        "MAML", mm.networks.KerasNetwork(model, statistics=statistics or "query")
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([{}, {"activation": "tanh"}], r"\['settings of layers'\] differ"),
        ([{"frozen": True}, {"frozen": True, "scale": 2.0}], "other outputs of the same weights"),
        ([{}, {"frozen": True}], r"\['trainable_layers'\] differ"),
        ([{"dropout": 0.1}, {"dropout": 0.5}], r"\['settings of layers'\] differ"),
        ([{"statistics": "query"}, {"statistics": "support"}], "differ"),
        ([{"statistics": "moving"}] * 2, "moving averages of their own"),
    ],
)
def test_a_bank_refuses_networks_that_compute_differently(settings, message):
    learners = [keras_member(**member) for member in settings]
    with pytest.raises(ValueError, match=message):
        mm.MultiMAML.from_learners(learners, factory.MODES)


def test_two_runs_of_one_seed_are_identical_and_two_seeds_are_not():
    tasks = mm.tasks.FunctionTasks(support=3, queries=2)

    def train(learner, seed):
        learner.fit(tasks.dataset(4, seed=seed), steps_per_epoch=5, verbose=0)
        return np.concatenate([w.ravel() for w in learner.get_weights()])

    first = train(like_new("MMAML"), seed=0)
    again, other = train(factory.learner("MMAML"), seed=0), train(like_new("MMAML"), seed=1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def bad_batch(value=1e30):
    batch = factory.episodes()
    y = batch.query_y.numpy()
    y[1] = value
    return batch._replace(query_y=tf.constant(y), origin=tf.constant([3, 17], tf.int64))


@pytest.mark.parametrize("value", [1e30, -3e38])
def test_a_non_finite_update_stops_training_and_leaves_the_weights(value):
    learner = like_new("MMAML")
    good = factory.episodes()
    learner.fit(dataset(good, 2), verbose=0)
    before = learner.get_weights()[: len(learner.trainable_variables)]
    state = [v.numpy() for v in learner.optimizer.variables]
    with pytest.raises(mm.NonFiniteError) as caught:
        learner.fit(dataset(bad_batch(value)).concatenate(dataset(good, 3)), verbose=0)
    message = str(caught.value)
    for part in ("step 17", "task seed 3", "loss", "mode: linear", "kernel"):
        assert part in message
    for a, b in zip(before, learner.get_weights(), strict=False):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(state, learner.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_non_finite_meta_gradient_alone_is_noticed():
    """A finite loss whose gradient overflows names the weights, not the loss."""
    learner = factory.learner("MAML", loop=factory.inner_loop(0))
    learner.compile("sgd", loss=lambda y, p: tf.sqrt(tf.abs(p - p)), jit_compile=False)
    with pytest.raises(mm.NonFiniteError, match=r"every task loss is finite") as caught:
        learner.fit(dataset(factory.episodes()), verbose=0)
    assert ": loss" not in str(caught.value)


@pytest.mark.parametrize("clip", [2.0, None])
def test_finite_gradients_whose_norm_overflows_are_left_out(clip):
    learner = factory.learner("MAML", loop=factory.inner_loop(0), outer_clip=clip)
    learner.compile("adam", loss=lambda y, p: 1e25 * p, jit_compile=False)
    before = [w.numpy() for w in learner.trainable_variables]
    with pytest.raises(mm.NonFiniteError, match=r"every task loss is finite"):
        learner.fit(dataset(factory.episodes()), verbose=0)
    for a, b in zip(before, learner.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_stopping_is_at_the_first_bad_step_even_when_many_run_at_once():
    learner = factory.learner("MAML")
    learner.compile("sgd", "mse", steps_per_execution=4, jit_compile=False)
    good = factory.episodes()
    data = dataset(good).concatenate(dataset(bad_batch())).concatenate(dataset(good, 6))
    with pytest.raises(mm.NonFiniteError, match="step 17"):
        learner.fit(data, verbose=0)
    assert int(learner.optimizer.iterations) == 1


def test_skipping_leaves_bad_updates_out_and_counts_them():
    good = factory.episodes()
    clean = like_new("MMAML", on_nonfinite="skip")
    clean.fit(dataset(good, 3), verbose=0)
    expected = [v.numpy() for v in clean.trainable_variables]
    skipping = like_new("MMAML", on_nonfinite="skip")
    data = dataset(good, 2).concatenate(dataset(bad_batch(), 9)).concatenate(dataset(good))
    history = skipping.fit(data, verbose=0).history
    for a, b in zip(skipping.trainable_variables, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(skipping.guard.skipped) == 9
    assert int(skipping.guard.skipped_in_row) == 0
    assert np.isfinite(history["loss"][0])


def test_skipping_stops_after_more_than_ten_in_a_row():
    learner = like_new("MAML", on_nonfinite="skip")
    learner.fit(dataset(bad_batch(), nonfinite.MOST_SKIPPED_IN_ROW), verbose=0)
    with pytest.raises(mm.NonFiniteError, match="11 updates in a row"):
        learner.fit(dataset(bad_batch(), 20), verbose=0)
    assert int(learner.guard.skipped) == 11


@pytest.mark.parametrize("policy", nonfinite.POLICIES)
def test_a_learner_that_was_stopped_trains_when_fit_is_called_again(policy):
    good = dataset(factory.episodes(), 2)
    fresh = like_new("MAML", on_nonfinite=policy)
    fresh.fit(good, verbose=0)
    expected = [v.numpy() for v in fresh.trainable_variables]
    stopped = like_new("MAML", on_nonfinite=policy)
    with pytest.raises(mm.NonFiniteError):
        stopped.fit(dataset(bad_batch(), 11), verbose=0)
    stopped.fit(good, verbose=0)
    for a, b in zip(stopped.trainable_variables, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    # As many may be bad in a row as at first.
    if policy == "skip":
        stopped.fit(dataset(bad_batch(), 10), verbose=0)


def test_tracing_does_not_grow_with_the_number_of_tasks():
    sizes = []
    for tasks in (2, 50):
        learner, batch = factory.learner("MMAML"), factory.episodes(tasks)
        graph = tf.function(learner.train_step, autograph=False)
        learner.optimizer.build(learner.trainable_variables)
        sizes.append(len(graph.get_concrete_function(batch).graph.get_operations()))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, b: m.adapt(b.support_x[0, 0], b.support_y), "expected \\[T, K"),
        (lambda m, b: m.adapt(b.support_x, b.support_y[:2]), "differ on axis 0"),
        (lambda m, b: m.adapt(b.support_x[:, :0], b.support_y[:, :0]), "at least one point"),
        (lambda m, b: m.adapt(tf.ones((4, 3, 2)), b.support_y), "points of shape \\(2,\\)"),
        (lambda m, b: m.adapt(b.support_x, b.support_y, steps=-1), "inner steps=-1"),
        (lambda m, b: m.adapt(*b[:2])(b.query_x[:2]), "differ on axis 0"),
        (lambda m, b: m.adapt(*b[:2])(b.query_x[..., 0]), "expected rank 3"),
        (lambda m, b: m.fit(dataset(tuple(b[:2]))), "expected mmaml_tf Episodes"),
        (lambda m, b: m.fit(np.zeros((4, 3, 1))), "x is a ndarray; expected mmaml_tf Episodes"),
        (lambda m, b: m.build_for(b._replace(query_y=b.query_y[:, :1])), "differ on axis 1"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(like_new("MMAML"), factory.episodes())


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ([0, 1, 2, 0], "from 0 to 1"),
        ([0, 1, -1, 0], "from 0 to 1"),
        ([0, 1], "one integer for each of the 4 tasks"),
        (0, "one integer for each of the 4 tasks"),
        ([0.0, 1.0, 0.0, 1.0], "type float64"),
        (None, "no mode was given"),
    ],
)
def test_modes_that_a_bank_does_not_have_are_refused(mode, message):
    batch = factory.episodes()
    with pytest.raises(ValueError, match=message):
        like_new("MultiMAML").adapt(batch.support_x, batch.support_y, mode=mode)


def test_batches_of_modes_that_a_bank_does_not_have_are_refused():
    learner = like_new("MultiMAML")
    for mode in ([0, 1, 2, 0], [0, -1, 1, 0]):
        batch = factory.episodes()._replace(mode=tf.constant(mode))
        with pytest.raises(
            ValueError, match=r"^mode must be the index of one of .'sinusoid', 'linear'"
        ):
            learner.fit(dataset(batch), verbose=0)


@pytest.mark.parametrize("modes", [("linear", "sinusoid"), ("sinusoid",), (*factory.MODES, "tanh")])
def test_a_bank_is_evaluated_on_its_own_modes_alone(modes):
    tasks = mm.tasks.FunctionTasks(modes=modes)
    with pytest.raises(ValueError, match=r"modes are \('sinusoid', 'linear'\), .* same order"):
        mm.evaluate(like_new("MultiMAML"), tasks, tasks_per_mode=2)
    report = mm.evaluate(like_new("MAML"), tasks, tasks_per_mode=2)
    assert report.modes == modes


def test_episodes_of_double_precision_train_and_are_evaluated_like_single():
    wide = mm.Episodes(*(np.asarray(a, "f8") for a in factory.episodes()[:4]))
    trained = []
    for batch in (factory.episodes(), wide):
        learner = like_new("MAML")
        batch = batch._replace(mode=[0, 1, 0, 1], origin=[0, 0])
        learner.fit(dataset(batch), verbose=0)
        trained.append([v.numpy() for v in learner.trainable_variables])
    for a, b in zip(*trained, strict=True):
        np.testing.assert_array_equal(a, b)
    assert learner.evaluate(dataset(wide), verbose=0, return_dict=True)["loss"] > 0
    curves = [evaluation.predictions(learner, e, 2) for e in (wide, factory.episodes())]
    np.testing.assert_array_equal(*curves)


def test_a_network_without_an_axis_of_outputs_trains_on_targets_without_one():
    layers = [keras.Input((1,)), keras.layers.Dense(1), keras.layers.Reshape(())]
    learner = mm.MAML(keras.Sequential(layers), inner_loop=mm.InnerLoop(1, 0.1))
    learner.compile(loss=lambda y, p: tf.square(y - p))
    batch = factory.episodes()
    flat = batch._replace(support_y=batch.support_y[..., 0], query_y=batch.query_y[..., 0])
    learner.fit(dataset(flat), verbose=0)
    assert not learner.predicts_classes
    assert learner.adapt(*flat[:2])(flat.query_x).shape == flat.query_y.shape


def test_a_learner_compiled_again_adapts_by_the_new_loss():
    batch = factory.episodes()
    learner, other = factory.learner("MAML"), factory.learner("MAML")
    first = learner.adapt(batch.support_x, batch.support_y)(batch.query_x)
    for made in (learner, other):
        made.compile(loss="mae")
    expected, found = (
        made.adapt(batch.support_x, batch.support_y)(batch.query_x) for made in (other, learner)
    )
    np.testing.assert_array_equal(found, expected)
    assert not np.allclose(first, expected)


@pytest.mark.parametrize("recipe", ["MAML", "MMAML"])
def test_mixed_precision_for_all_of_keras_trains(recipe):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        learner = factory.learner(recipe)
        history = learner.fit(dataset(factory.episodes(), 3), verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert learner.compute_dtype == "float32"
    assert np.isfinite(history["loss"][0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mm.MMAML(factory.mlp(), encoder=None), "needs an encoder"),
        (
            lambda: mm.MAML(factory.mlp(), inner_loop=mm.InnerLoop(), modulation="film"),
            "MAML has no",
        ),
        (lambda: mm.MAML("mlp", inner_loop=mm.InnerLoop()), "a task network is"),
        (
            lambda: mm.MAML(factory.mlp(), inner_loop=mm.InnerLoop(), outer_clip=0),
            "outer_clip=0: expected a finite positive",
        ),
        (lambda: factory.learner("MAML", on_nonfinite="ignore"), "on_nonfinite is 'ignore'"),
        (
            lambda: mm.MultiMAML([factory.mlp()], inner_loop=mm.InnerLoop(), modes=("a", "b")),
            "one per mode",
        ),
        (lambda: factory.learner("MAML", jit=None).call(factory.episodes()[:3]), "compile"),
        (
            lambda: mm.MAML(factory.mlp(), inner_loop=mm.InnerLoop()).adapt([[1.0]], [[1.0]]),
            "no weights yet",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_outputs_that_do_not_fit_the_targets_are_refused():
    batch = factory.episodes()
    wide = batch._replace(support_y=tf.ones((4, 3, 2)), query_y=tf.ones((4, 2, 2)))
    learner = mm.MAML(factory.mlp(), inner_loop=mm.InnerLoop())
    learner.compile()
    with pytest.raises(ValueError, match=r"outputs of shape \(1,\) per point, the targets have"):
        learner.fit(dataset(wide), verbose=0)
    flat = batch._replace(support_y=tf.ones((4, 3)), query_y=tf.ones((4, 2)))
    with pytest.raises(ValueError, match=r"the targets have \(\); they must be equal"):
        learner.fit(dataset(flat), verbose=0)


def test_an_encoder_that_does_not_fit_is_refused():
    class Bad(mm.encoders.SequenceEncoder):
        def call(self, support_x, support_y):
            return support_x

    learner = mm.MMAML(factory.mlp(), encoder=Bad(units=2))
    with pytest.raises(ValueError, match=r"expected \[T, E\]"):
        learner.build_for(factory.episodes())
