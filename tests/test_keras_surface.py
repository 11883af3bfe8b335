"""Every public method of `keras.Model` works on batches of tasks, or names what to call instead."""

import copy
import io
import pickle
import threading

import factory
import keras
import numpy as np
import pytest
import states
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.checkpoint import learner_state

BATCH = factory.episodes()
learner = states.reused(factory.learner)


def arrays(batch=BATCH):
    return mm.Episodes(*(a.numpy() for a in batch))


FORMS = {
    "Episodes": lambda: BATCH,
    "arrays": arrays,
    "float64": lambda: mm.Episodes(*(a.astype("f8") for a in arrays()[:4]), *arrays()[4:]),
    "a tuple": lambda: tuple(arrays()),
    "a tuple without modes": lambda: tuple(arrays()[:4]),
    "a dictionary": lambda: arrays()._asdict(),
    "a dataset": lambda: tf.data.Dataset.from_tensors(BATCH),
    "a dataset of tuples": lambda: tf.data.Dataset.from_tensors(tuple(arrays()[:4])),
    "a dataset of dictionaries": lambda: tf.data.Dataset.from_tensors(arrays()._asdict()),
}


def test_every_form_of_data_gives_the_same():
    made = learner("MAML")
    weights, losses = [], []
    for form in FORMS.values():
        made = learner("MAML")
        history = made.fit(form(), validation_data=form(), verbose=0).history
        losses.append(
            [history["loss"][0], history["val_loss"][0], made.evaluate(form(), verbose=0)[0]]
        )
        weights.append(np.concatenate([np.ravel(w) for w in made.trainable_variables]))
    np.testing.assert_allclose(losses, losses[:1] * len(losses), rtol=1e-5)
    np.testing.assert_allclose(weights, weights[:1] * len(weights), rtol=1e-4, atol=1e-6)


def test_predict_adapts_to_each_task():
    made = learner("MAML")
    expected = made.adapt(*BATCH[:2])(BATCH.query_x)
    twice = tf.data.Dataset.from_tensors(BATCH).repeat(2)
    for found in (made.predict(BATCH, verbose=0), made.predict_on_batch(BATCH), made(BATCH)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.predict(twice, verbose=0)[4:], expected, rtol=1e-5, atol=1e-6)
    for form in (BATCH._replace(query_y=None), tuple(BATCH[:3])):
        np.testing.assert_allclose(made.predict_on_batch(form), expected, rtol=1e-5, atol=1e-6)


def test_the_methods_for_one_batch_are_steps_of_fit():
    made = learner("MAML")
    made.fit(BATCH, verbose=0)
    expected = made.get_weights()
    made = learner("MAML")
    before = made.test_on_batch(BATCH, return_dict=True)["loss"]
    loss = made.train_on_batch(BATCH, return_dict=True)["loss"]
    np.testing.assert_allclose(loss, before, rtol=1e-5)
    for a, b in zip(expected, made.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


ENDLESS = mm.tasks.FunctionTasks(factory.MODES, support=3, queries=2)
WRONG = {
    "fit on an endless dataset": (lambda m: m.fit(ENDLESS.dataset(4, 0)), "steps_per_epoch"),
    "validation on an endless dataset": (
        lambda m: m.fit(BATCH, validation_data=ENDLESS.dataset(4, 0)),
        "validation_steps",
    ),
    "evaluate on an endless dataset": (lambda m: m.evaluate(ENDLESS.dataset(4, 0)), "give steps"),
    "predict on an endless dataset": (lambda m: m.predict(ENDLESS.dataset(4, 0)), "give steps"),
    "a repeated dataset": (
        lambda m: m.fit(tf.data.Dataset.from_tensors(BATCH).repeat()),
        "steps_per_epoch",
    ),
    "targets apart": (lambda m: m.fit(BATCH, BATCH.query_y), "fit got y"),
    "class_weight": (lambda m: m.fit(BATCH, class_weight={0: 2.0}), "class_weight"),
    "sample_weight": (lambda m: m.fit(BATCH, sample_weight=np.ones(4)), "sample_weight"),
    "a size of batches": (lambda m: m.fit(BATCH, batch_size=2), "batch_size"),
    "validation_split": (lambda m: m.fit(BATCH, validation_split=0.2), "validation_split"),
    "shuffle": (lambda m: m.fit(BATCH, shuffle=True), "shuffle"),
    "weights in evaluate": (lambda m: m.evaluate(BATCH, sample_weight=[1.0]), "sample_weight"),
    "loss_weights": (lambda m: m.compile("sgd", "mse", loss_weights=[2.0]), "loss_weights"),
    "an array": (lambda m: m.fit(np.zeros((4, 3, 1))), "expected mmaml_tf Episodes"),
    "inputs alone": (lambda m: m.predict(BATCH.query_x), "learner.adapt"),
    "nothing": (lambda m: m.fit(None), "expected mmaml_tf Episodes"),
    "ragged support sets": (
        lambda m: m.fit(
            tf.data.Dataset.from_tensors((tf.ragged.constant([[[1.0]], [[1.0], [2.0]]]),) * 4)
        ),
        "support_x is ragged",
    ),
    "lists of other lengths": (
        lambda m: m.adapt([[[1.0]], [[1.0], [2.0]]], BATCH[1]),
        "ArrayTasks",
    ),
    "no targets": (lambda m: m.fit(BATCH._replace(query_y=None)), "need query_y"),
    "no targets to measure": (lambda m: m.evaluate(tuple(BATCH[:3])), "need query_y"),
    "no task": (lambda m: m.fit(tuple(a[:0] for a in BATCH[:4])), "at least one task"),
    "no query": (lambda m: m.adapt(*BATCH[:2])(BATCH[2][:, :0]), "at least one query"),
    "modes of other tasks": (
        lambda m: m.fit(BATCH._replace(mode=np.int32([0, 1]))),
        "one index for each",
    ),
    "unknown modes": (
        lambda m: m.fit(BATCH._replace(mode=np.int32([0, 7, 0, 1])), verbose=0),
        "mode must be the index",
    ),
    "names of modes": (lambda m: m.fit(BATCH._replace(mode=["a"] * 4)), "whole numbers"),
    "half an origin": (lambda m: m.fit(BATCH._replace(origin=[1])), r"expected \(seed, step\)"),
    "no callback": (lambda m: m.fit(BATCH, callbacks=["x"]), "keras.callbacks.Callback"),
    "an inner loop that diverges": (
        lambda m: m.adapt(BATCH[0] * 1e15, BATCH[1])(BATCH[2]),
        "task 0 are not finite: its inner loop diverged",
    ),
    "True as steps": (lambda m: m.adapt(*BATCH[:2], steps=True), "whole number"),
    "steps between": (lambda m: m.adapt(*BATCH[:2], steps=1.5), "whole number"),
    "another shape": (
        lambda m: m.fit(BATCH._replace(support_x=tf.ones((4, 3, 2)), query_x=tf.ones((4, 2, 2)))),
        "points of shape",
    ),
    "onnx": (lambda m: m.export("m.onnx", format="onnx"), "tf_saved_model"),
    "a signature": (lambda m: m.export("m", input_signature=[]), "input_signature"),
    "no path": (lambda m: m.export(), "one directory"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_has_no_meaning_is_refused_in_a_sentence(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call(learner("MAML"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("built", [False, True])
def test_a_learner_is_copied_and_described(built, tmp_path):
    made = learner("MMAML")
    if not built:
        made = mm.MMAML(
            factory.mlp(),
            encoder=mm.encoders.SequenceEncoder(3, 1),
            inner_loop=factory.inner_loop(),
        )
    made.save(tmp_path / "learner.keras")
    copies = [keras.models.load_model(tmp_path / "learner.keras")]
    copies += [pickle.loads(pickle.dumps(made)), copy.deepcopy(made)]
    copies += [keras.models.model_from_json(made.to_json())]
    for other in copies:
        assert type(other) is mm.MMAML
        assert other.inner_loop.get_config() == made.inner_loop.get_config()
        if built:
            assert len(other.get_weights()) == len(made.get_weights())
    shown = io.StringIO()
    made.summary(print_fn=lambda text: shown.write(text))
    assert "SequenceEncoder" in shown.getvalue()


def test_weights_are_saved_and_loaded(tmp_path):
    made = learner("MMAML")
    expected = made.get_weights()
    made.save_weights(tmp_path / "w.weights.h5")
    made.fit(BATCH, verbose=0)
    made.load_weights(tmp_path / "w.weights.h5")
    for a, b in zip(expected, made.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("generic", [False, True])
def test_layers_are_frozen_and_released_between_calls_of_fit(again, generic):
    """With and without `compile` in between; frozen layers neither train nor adapt."""
    network = factory.keras_mlp() if generic else factory.mlp()
    made = factory.learner("MAML", network)
    made.fit(BATCH, verbose=0)
    first = network.layers[1] if generic else network.dense[0]
    first.trainable = False
    kept = [v.numpy() for v in first.weights]
    if again:
        made.compile("sgd", "mse", jit_compile=False)
    made.fit(BATCH, verbose=0)
    for a, b in zip(kept, first.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    adapted = made.adapt(*BATCH[:2])
    assert len(adapted.weights) == len(made.trainable_variables) == 4
    first.trainable = True
    if again:
        with pytest.raises(ValueError, match="call compile again"):
            made.fit(BATCH, verbose=0)
        made.compile("sgd", "mse", jit_compile=False)
    made.fit(BATCH, verbose=0)
    assert not np.array_equal(kept[0], first.weights[0])


def test_a_frozen_learner_is_refused():
    made = factory.learner("MAML")
    made.trainable = False
    with pytest.raises(ValueError, match="no trainable weights"):
        made.fit(BATCH, verbose=0)
    made.trainable = True
    made.compile("sgd", "mse", jit_compile=False)
    made.fit(BATCH, verbose=0)


def test_parts_of_another_keras_are_refused():
    class Sequential:
        pass

    Sequential.__module__ = "tf_keras.src.engine.sequential"
    with pytest.raises(ValueError, match=r"got a tf_keras\.src\.engine\.sequential\.Sequential"):
        mm.MAML(Sequential(), inner_loop=mm.InnerLoop())
    with pytest.raises(ValueError, match=r"the encoder is a tf_keras"):
        mm.MMAML(factory.mlp(), encoder=Sequential(), inner_loop=mm.InnerLoop())


def test_other_strategies_are_refused(monkeypatch):
    monkeypatch.setattr(tf.distribute, "has_strategy", lambda: True)
    with pytest.raises(ValueError, match="cannot be made under"):
        factory.learner("MAML")


SNAPSHOTS = {
    "MAML": lambda: factory.learner("MAML", loop=factory.inner_loop(head_only=True)),
    "MMAML": lambda: factory.learner("MMAML"),
    "frozen": lambda: factory.learner("MAML", factory.keras_mlp()),
    "ProtoNet": lambda: prototypes(),
}


def prototypes():
    made = mm.ProtoNet(factory.mlp(outputs=2), ways=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile("sgd", loss, jit_compile=False)
    return made


@pytest.mark.parametrize("kind", SNAPSHOTS)
def test_a_predictor_is_a_snapshot(kind):
    made, batch = SNAPSHOTS[kind](), BATCH
    if kind == "ProtoNet":
        labels = [tf.cast(tf.tile([[[0], [1], [1]][:k]], [4, 1, 1]), tf.int32) for k in (3, 2)]
        batch = batch._replace(support_y=labels[0][..., 0], query_y=labels[1][..., 0])
        made.build_for(batch)
    if kind == "frozen":
        made.network.model.layers[1].trainable = False
        made.compile("sgd", "mse")
    predictor = made.adapt(*batch[:2])
    before = predictor(batch.query_x).numpy()
    for variable in made.variables:
        if variable.dtype == "float32":
            variable.assign_add(tf.ones_like(variable))
    np.testing.assert_array_equal(predictor(batch.query_x), before)
    assert not np.allclose(made.adapt(*batch[:2])(batch.query_x), before)


def test_threads_adapt_at_the_same_time():
    made = factory.learner("MMAML")
    rng = np.random.default_rng(0)
    tasks = [rng.normal(size=(2, k, 1)).astype("f") for k in range(2, 10)]
    found = [None] * len(tasks)

    def adapt(index):
        x, y = tasks[index]
        found[index] = made.adapt(x, y)(x).numpy()

    tasks = [task[:, None] for task in tasks]
    expected = [made.call((x, y, x)).numpy() for x, y in tasks]
    threads = [threading.Thread(target=adapt, args=(i,)) for i in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_learner_of_doubles_is_one_after_loading(float64, tmp_path):
    made = factory.learner("MMAML")
    made.save(tmp_path / "learner.keras")
    keras.config.set_dtype_policy("float32")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.compute_dtype == "float64"
    batch = factory.episodes(dtype=np.float64)
    np.testing.assert_array_equal(
        made.adapt(*batch[:2])(batch.query_x), loaded.adapt(*batch[:2])(batch.query_x)
    )


def test_more_than_a_thousand_variables_keep_their_order():
    net = keras.Sequential([keras.Input((1,))])
    for units in (2, 3) * 260:
        net.add(keras.layers.Dense(units))
    made = mm.MAML(keras.Sequential([net, keras.layers.Dense(1)]), inner_loop=mm.InnerLoop(0))
    made.compile("sgd", "mse")
    made.build(((None, None, 1), (None, None, 1)))
    state = learner_state(made)
    assert len(state) > 1000
    for (name, array), variable in zip(state.items(), made.weights, strict=False):
        assert array.shape == tuple(variable.shape), name


@pytest.mark.parametrize("part", ["network", "encoder", "modulation"])
def test_what_is_frozen_is_frozen_after_loading(part, tmp_path):
    made = factory.learner("MMAML")
    frozen = made.network.dense[0] if part == "network" else getattr(made, part)
    frozen.trainable = False
    made.compile("sgd", "mse", jit_compile=False)
    made.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    for a, b in zip(made.trainable_variables, loaded.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        loaded.adapt(*BATCH[:2])(BATCH.query_x), made.adapt(*BATCH[:2])(BATCH.query_x)
    )


def test_settings_may_be_changed_between_calls():
    made = factory.learner("MAML")
    before = made.adapt(*BATCH[:2])(BATCH.query_x)
    made.inner_loop.learning_rate = 0.5
    other = factory.learner("MAML", loop=mm.InnerLoop(2, 0.5))
    after = made.adapt(*BATCH[:2])(BATCH.query_x)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, other.adapt(*BATCH[:2])(BATCH.query_x), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int16"])
def test_modes_are_whole_numbers_of_any_type(dtype):
    made = learner("MultiMAML")
    expected = made.test_on_batch(BATCH)
    batch = BATCH._replace(mode=BATCH.mode.numpy().astype(dtype))
    np.testing.assert_allclose(made.test_on_batch(batch), expected)
    with pytest.raises(ValueError, match=r"mode has shape .* and type float32"):
        made.fit(batch._replace(mode=BATCH.mode.numpy().astype("f")), verbose=0)
