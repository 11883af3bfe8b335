"""Every network, modulation and learner keeps the promises of all, in combination.

The cases cover each pair of a network, a learner, a modulation and an encoder, where a learner has
them, and each pair of an inner loop with a network and with a learner. Keras's three styles of
models, which differ in how they are stored, take turns as one kind of network.
"""

import copy
import itertools
import shutil

import factory
import keras
import numpy as np
import pytest
import states
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.checkpoint import Checkpoints
from mmaml_tf.training import train
from mmaml_tf.update_rules import UPDATE_RULES

NETWORKS = {
    "MLP": lambda seed: factory.mlp(seed, hidden=(4, 3)),
    "MLP with bias": lambda seed: factory.mlp(seed, hidden=(4, 3), bias_transformation=2),
    "functional": lambda seed: factory.keras_mlp((4, 3), "functional"),
    "sequential": lambda seed: factory.keras_mlp((4, 3), "sequential"),
    "subclassed": lambda seed: factory.keras_mlp((4, 3), "subclassed"),
}
STYLES = ("functional", "sequential", "subclassed")
MODULATIONS = {
    **mm.modulation.MODULATIONS,
    "film without shift": lambda: mm.modulation.FiLM(shift=False),
}
ENCODERS = {
    "sequence": lambda: mm.encoders.SequenceEncoder(units=2, layers=1),
    "attention": lambda: mm.encoders.AttentionEncoder(units=4, layers=1, num_heads=2),
    "reconstruction": lambda: mm.encoders.Reconstruction(
        mm.encoders.AttentionEncoder(units=4, layers=1, num_heads=1), weight=0.1, units=3
    ),
}
UNMODULATED, MODULATED = ("MAML", "MultiMAML"), ("MMAML", "LSTMLearner")
KINDS = ("MLP", "MLP with bias", "Keras")
PLAIN = "gradient_descent"
LOOPS = {
    **{name: {"steps": 1, "update": name} for name in UPDATE_RULES},
    # They change while a learner is trained, see `Trained`.
    "annealed": {
        "steps": 2, "update": "layer_step_rates", "multi_step_until": 3, "first_order_until": 2,
    },
}  # fmt: skip


def cases():
    """All kinds of networks with all modulations, and without any.

    Learners and encoders take turns. Then, all inner loops with each learner that has one, whose
    networks take turns.
    """
    styles = itertools.cycle(STYLES)
    for i, kind in enumerate(KINDS):
        chosen = [(learner, PLAIN) for learner in UNMODULATED]
        for j, modulation in enumerate(MODULATIONS):
            encoder = [*ENCODERS][(i + j) % 3]
            chosen.append((MODULATED[(i + j) % 2], PLAIN, modulation, encoder))
        for parts in chosen:
            yield next(styles) if kind == "Keras" else kind, *parts
    others = [loop for loop in LOOPS if loop != PLAIN]
    for i, learner in enumerate((*UNMODULATED, "MMAML")):
        for j, loop in enumerate(others):
            kind = KINDS[(i + j) % 3]
            network = next(styles) if kind == "Keras" else kind
            modulated = ("film", "sequence") if learner == "MMAML" else ()
            yield network, learner, loop, *modulated


#: those whose training is resumed: what a checkpoint holds does not depend on which network is
#: modulated in which way, so each kind of network with each learner and each modulation are enough
RESUMED = [
    case
    for i, case in enumerate(case for case in cases() if case[2] == PLAIN)
    if len(case) == 3 or i % 7 in ((2, 3), (4, 5), (6, 5))[i // 7]
]


def make(network, learner, loop, modulation=None, encoder=None):
    """An untrained learner, compiled and built."""
    shared = {"modes": factory.MODES}
    parts = {}
    if learner != "LSTMLearner":
        parts["inner_loop"] = factory.inner_loop(**LOOPS[loop])
    if learner == "MultiMAML":
        parts["networks"] = [NETWORKS[network](seed) for seed in (0, 1)]
    else:
        parts["network"] = NETWORKS[network](0)
    if learner in MODULATED:
        parts["encoder"] = ENCODERS[encoder]()
        parts["modulation"] = MODULATIONS[modulation]()
    made = getattr(mm, learner)(**parts, **shared)
    return ready(made)


def ready(learner):
    learner.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=False)
    learner.build_for(BATCH)
    return learner


def learn(learner, directory, iterations):
    """Trains with a checkpoint after every second step."""
    settings = {"batch_size": 2, "seed": 0, "log_every": 2, "checkpoint_every": 2}
    checkpoints = Checkpoints(directory, {})
    return train(learner, TASKS, iterations=iterations, checkpoints=checkpoints, **settings)


TASKS = mm.tasks.FunctionTasks(support=3, queries=2)
BATCH = factory.episodes(tasks=3, support=4, query=5)


def predict(learner):
    return learner.adapt(BATCH.support_x, BATCH.support_y, BATCH.mode)(BATCH.query_x).numpy()


class Trained:
    """A learner trained for four steps, with its checkpoints."""

    def __init__(self, case, directory):
        self.case = case
        self.directory = directory
        self.learner = make(*case)
        self.history = learn(self.learner, directory, 4)
        self.predictions = predict(self.learner)


def name(case):
    return "-".join(map(str, case))


@pytest.fixture(scope="module", params=list(cases()), ids=name)
def trained(request, tmp_path_factory):
    return Trained(request.param, tmp_path_factory.mktemp("trained"))


def test_predictions_are_those_of_each_task_alone(trained):
    assert trained.predictions.shape == (3, 5, 1)
    assert np.isfinite(trained.predictions).all()
    for t in range(3):
        one = slice(t, t + 1)
        x, y, q, _, mode = (a[one] for a in BATCH[:5])
        batch_of_one = trained.learner.adapt(x, y, mode)(q)
        np.testing.assert_allclose(batch_of_one, trained.predictions[one], rtol=1e-4, atol=1e-5)
    single = trained.learner.adapt(x[0], y[0], mode[0])(q[0])
    assert single.shape == (5, 1)
    np.testing.assert_allclose(single, batch_of_one[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trained", RESUMED, indirect=True, ids=name)
def test_resumed_training_ends_alike(trained, tmp_path):
    shutil.copytree(trained.directory, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "step-000000004")
    learner = make(*trained.case)
    assert learn(learner, tmp_path, 4) == trained.history
    states.assert_same(trained.learner, learner)
    np.testing.assert_array_equal(predict(learner), trained.predictions)


def test_all_learners_start_alike_and_training_changes_every_weight(trained):
    first, second = make(*trained.case), make(*trained.case)
    states.assert_same(first, second)
    pairs = zip(first.trainable_variables, trained.learner.trainable_variables, strict=True)
    assert not [v.path for v, w in pairs if np.array_equal(v, w)]


def test_the_configuration_makes_the_same_learner(trained):
    config = trained.learner.get_config()
    # Keras takes apart the configuration that it makes a functional model from.
    clone = ready(type(trained.learner).from_config(copy.deepcopy(config)))
    assert clone.get_config() == config
    clone.set_weights(trained.learner.get_weights())
    np.testing.assert_array_equal(predict(clone), trained.predictions)


def test_a_keras_file_predicts_the_same(trained, tmp_path):
    trained.learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    states.assert_same(trained.learner, loaded)
    np.testing.assert_array_equal(predict(loaded), trained.predictions)


def test_a_saved_model_predicts_the_same(trained, tmp_path):
    trained.learner.export(tmp_path / "model")
    loaded = tf.saved_model.load(tmp_path / "model")
    mode = [BATCH.mode] if trained.learner.needs_mode else []
    predictions = loaded.adapt_and_predict(*BATCH[:3], *mode)
    np.testing.assert_allclose(predictions, trained.predictions, rtol=1e-5, atol=1e-5)


def pairs_of(cases):
    found = [("Keras" if n in STYLES else n, *others) for n, *others in cases]
    return {(a, b) for case in found for a in case for b in case}


def test_the_cases_cover_all_pairs():
    pairs, resumed = pairs_of(cases()), pairs_of(RESUMED)
    learners = (*UNMODULATED, *MODULATED)
    for network in KINDS:
        assert all((network, other) in pairs for other in (*learners, *MODULATIONS, *ENCODERS))
        assert all((network, learner) in resumed for learner in learners)
    for kinds in itertools.combinations((MODULATED, MODULATIONS, ENCODERS), 2):
        assert all(pair in pairs for pair in itertools.product(*kinds))
    assert all((part, part) in resumed for part in (*MODULATIONS, *ENCODERS))
    assert {network for network, *_ in cases()} == set(NETWORKS)
    for loop, learner in itertools.product(LOOPS, (*UNMODULATED, "MMAML")):
        assert (loop, learner) in pairs
    assert all(pair in pairs for pair in itertools.product(LOOPS, KINDS))
