"""Every learner of images keeps the promises of all."""

import copy
import shutil

import images
import keras
import numpy as np
import pytest
import states
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.checkpoint import Checkpoints
from mmaml_tf.training import train

WAYS = 3
#: recipe, network, modulation, whether the encoder sees labels, statistics
CASES = [
    ("MAML", "strided", None, None, "query"),
    ("MMAML", "strided", "film", False, "query"),
    ("MMAML", "conv4", "sigmoid", True, "support"),
    ("MMAML", "strided", "softmax", False, "query"),
    ("MMAML", "conv4", "kml", False, "query"),
    ("ProtoNet", "conv4", None, None, "query"),
    ("MProtoNet", "strided", "kml", True, "support"),
    ("ProtoMAML", "conv4", None, None, "support"),
    ("ProtoMMAML", "strided", "kml", False, "query"),
]
NETWORKS = {"strided": {}, "conv4": {"halving": "max", "features": "all", "affine": True}}


def make(recipe, network, modulation, sees_labels, statistics):
    """An untrained learner, compiled and built."""
    outputs = None if recipe.endswith("ProtoNet") else WAYS
    network = mm.networks.ConvNet((3, 3), outputs, statistics, **NETWORKS[network])
    parts = {"modes": ("a", "b"), "fewer_ways": True}
    if modulation:
        labels = WAYS if sees_labels else 0
        encoder = mm.encoders.ImageEncoder((3, 3), 4, label_classes=labels)
        parts |= {"encoder": encoder, "modulation": modulation}
    if recipe.endswith("ProtoNet"):
        return ready(mm.ProtoNet(network, ways=WAYS, **parts))
    head = "prototypes" if recipe.startswith("Proto") else "learned"
    kind = getattr(mm, recipe.removeprefix("Proto"))
    return ready(kind(network, inner_loop=mm.InnerLoop(1, 0.1), head=head, **parts))


def ready(learner):
    learner.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
        jit_compile=False,
    )
    learner.build_for(BATCH)
    return learner


def learn(learner, directory, iterations):
    """Trains with a checkpoint after every second step."""
    settings = {"batch_size": 2, "seed": 0, "log_every": 2, "checkpoint_every": 2}
    checkpoints = Checkpoints(directory, {})
    return train(learner, TASKS, iterations=iterations, checkpoints=checkpoints, **settings)


TASKS = images.tasks(ways=WAYS)
BATCH = images.tasks(ways=WAYS, support=2).sample(2, seed=3)


def predict(learner):
    return learner.adapt(BATCH.support_x, BATCH.support_y)(BATCH.query_x).numpy()


class Trained:
    """A learner trained for four steps, with its checkpoints."""

    def __init__(self, case, directory):
        self.case = case
        self.directory = directory
        self.learner = make(*case)
        self.history = learn(self.learner, directory, 4)
        self.predictions = predict(self.learner)


@pytest.fixture(
    scope="module", params=CASES, ids=lambda case: "-".join(map(str, filter(None, case)))
)
def trained(request, tmp_path_factory):
    return Trained(request.param, tmp_path_factory.mktemp("trained"))


def test_predictions_are_those_of_each_task_alone(trained):
    assert trained.predictions.shape == (2, 6, WAYS)
    assert np.isfinite(trained.predictions).all()
    for task in range(2):
        x, y, q = (array[task] for array in BATCH[:3])
        single = trained.learner.adapt(x, y)(q)
        np.testing.assert_allclose(single, trained.predictions[task], rtol=1e-4, atol=1e-4)


def test_resumed_training_ends_alike(trained, tmp_path):
    """And, as another learner of the same seeds does it, training is a function of its seeds."""
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
    same = [v.path for v, w in pairs if np.array_equal(v, w)]
    # Prototypes take the place of a head.
    assert same == [v.path for v in first.network.head if first.head == "prototypes"]


def test_the_configuration_makes_the_same_learner(trained):
    config = trained.learner.get_config()
    clone = ready(type(trained.learner).from_config(copy.deepcopy(config)))
    assert clone.get_config() == config
    clone.set_weights(trained.learner.get_weights())
    np.testing.assert_array_equal(predict(clone), trained.predictions)


def test_a_keras_file_predicts_the_same(trained, tmp_path):
    trained.learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    states.assert_same(trained.learner, loaded)
    np.testing.assert_array_equal(predict(loaded), trained.predictions)


def test_a_saved_model_gives_the_probabilities(trained, tmp_path):
    trained.learner.export(tmp_path / "model")
    loaded = tf.saved_model.load(tmp_path / "model")
    found = loaded.adapt_and_predict(*BATCH[:3])
    np.testing.assert_allclose(found, tf.nn.softmax(trained.predictions), atol=1e-5)
