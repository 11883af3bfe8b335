"""What is exported or saved adapts and acts like the learner, elsewhere and later."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import modulations
import numpy as np
import policies
import pytest
import states
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf import rl

ROOT = Path(__file__).parents[2]
CASES = {
    "ProMP": ("ProMP", {}),
    "ProMP head only": ("ProMP", {"loop": {"head_only": True}}),
    "MultiProMP": ("MultiProMP", {}),
    "MultimodalProMP": ("MultimodalProMP", {}),
    "MultimodalProMP film": (
        "MultimodalProMP",
        {"modulation": lambda: mm.modulation.FiLM(blocks=[1], seed=4)},
    ),
    "MultimodalProMP softmax": ("MultimodalProMP", {"modulation": lambda: "softmax"}),
    "MultimodalProMP kml": ("MultimodalProMP", {"modulation": "kml"}),
}
HORIZON, RANGE = 3, 4.0
#: none of them the default
OTHER_SETTINGS = {
    "clip": 0.2, "kl_penalty": 0.01, "epochs": 3, "discount": 0.8, "gae_lambda": 0.7,
    "outer_clip": 1.5, "on_nonfinite": "skip",
}  # fmt: skip
#: numbers of tasks, rollouts and observations acted on at once
SHAPES = [(2, 4, 4), (1, 1, 1), (3, 2, 5)]


def make(case):
    recipe, settings = CASES[case]
    settings = {k: v() if callable(v) else v for k, v in settings.items()}
    settings |= {"horizon": HORIZON, "action_range": RANGE, **OTHER_SETTINGS}
    made = policies.ready(recipe, **settings)
    if made.modulation is not None:
        modulations.randomise(made.modulation)  # some change nothing at first
    return made


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Returns a function from a case to its learner, its SavedModel's directory, and the model."""
    folder = tmp_path_factory.mktemp("exported")
    made = {}

    def get(case):
        if case not in made:
            learner = make(case)
            learner.export(folder / case)
            made[case] = learner, folder / case, tf.saved_model.load(folder / case)
        return made[case]

    return get


def inputs(shape, step):
    """Observations and noise to act on, and rollouts to adapt to, at one step."""
    tasks, rollouts, acting = shape
    rng = np.random.default_rng([*shape, step])
    act = [
        rng.normal(size=(tasks, acting, size)) for size in (policies.OBSERVATION, policies.ACTION)
    ]
    given = policies.trajectories(tasks, max(rollouts, 2), HORIZON, seed=step)
    adapt = [part[:, :rollouts].numpy() for part in given[:3]]
    return [a.astype("f") for a in act], adapt


def start(shape, learner):
    """The argument of `initial`."""
    if not learner.needs_mode:
        return tf.constant(shape[0])
    return tf.constant(np.arange(shape[0])[::-1] % 2, tf.int32)


def actions_of_learner(learner, shape):
    """The actions before and after each of three inner steps, by the learner."""
    given = start(shape, learner)
    parameters = learner.initial_parameters(shape[0], given if learner.needs_mode else None)
    actions = []
    for step in range(4):
        (x, noise), adapt = inputs(shape, step)
        policy = learner.network.distribution(parameters.weights, x, parameters.modulation)
        actions.append(policy.mean() + policy.stddev() * noise)
        ones = np.ones_like(adapt[2])
        parameters = learner.adapt(rl.Trajectories(*adapt, ones), parameters)
    return np.stack(actions)


def actions_of_model(model, shape, initial):
    """The same, by an exported model."""
    parameters, actions = model.initial(initial), []
    for step in range(4):
        (x, noise), adapt = inputs(shape, step)
        acted = model.act(x, noise, parameters)
        # Actions of ± this are the bounds ± 10 of the bandits'.
        control = np.clip(acted["action"] / RANGE, -1, 1) * 10
        np.testing.assert_allclose(acted["control"], control, rtol=1e-5, atol=1e-5)
        actions.append(acted["action"].numpy())
        parameters = model.adapt(*adapt, parameters)
    assert int(parameters["steps"]) == 4
    return np.stack(actions)


@pytest.mark.parametrize("case", CASES)
def test_the_saved_model_adapts_and_acts_like_the_learner(exported, case):
    learner, _, model = exported(case)
    for shape in SHAPES:
        found = actions_of_model(model, shape, start(shape, learner))
        expected = actions_of_learner(learner, shape)
        assert found.shape == (4, shape[0], shape[2], policies.ACTION)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(found[:, :, 0] / RANGE).max() > 0.5


def test_adapting_changes_how_it_acts(exported):
    *_, model = exported("MultimodalProMP")
    (x, _), adapt = inputs(SHAPES[0], 0)
    parameters = [model.initial(tf.constant(2))]
    for _ in range(2):
        parameters.append(model.adapt(*adapt, parameters[-1]))
    still = tf.zeros([2, 4, policies.ACTION])
    first, second, third = (model.act(x, still, p)["action"].numpy() for p in parameters)
    assert not np.allclose(first, second, atol=1e-2)
    assert not np.allclose(second, third, atol=1e-2)
    scales = [p["modulation_00"].numpy() for p in parameters[1:]]
    assert scales[0].shape == (2, 4)
    np.testing.assert_array_equal(*scales)


def test_what_would_silently_be_wrong_is_refused_by_the_saved_model(exported):
    *_, model = exported("MultiProMP")
    for modes in ([0, 2], [-1]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="must be the index of one of"):
            model.initial(tf.constant(modes))
    *_, model = exported("ProMP")
    (x, noise), adapt = inputs(SHAPES[0], 0)
    for tasks in (1, 3):
        parameters = model.initial(tf.constant(tasks))
        for call in (lambda p: model.act(x, noise, p), lambda p: model.adapt(*adapt, p)):
            with pytest.raises(tf.errors.InvalidArgumentError, match="differ in the number of ta"):
                call(parameters)
    with pytest.raises(TypeError):
        model.adapt(*(part[:, :, :-1] for part in adapt), model.initial(tf.constant(2)))
    observations, actions, rewards = adapt
    two = model.initial(tf.constant(2))
    with pytest.raises(tf.errors.InvalidArgumentError, match="rewards hold values that are not"):
        model.adapt(observations, actions, rewards * np.nan, two)
    with pytest.raises(tf.errors.InvalidArgumentError, match="observations hold values that are"):
        model.act(x * np.nan, noise, two)
    with pytest.raises(tf.errors.InvalidArgumentError, match="rewards are of no rollout"):
        model.adapt(*(part[:, :0] for part in adapt), two)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least one task"):
        model.initial(tf.constant(0))


def test_only_a_learner_with_weights_and_an_environment_is_exported(tmp_path):
    without_weights = policies.learner("ProMP")
    without_weights.compile(rollouts=policies.Rollouts("Bandit-v0", 2), jit_compile=False)
    for learner, message in (
        (without_weights, "only a built and compiled learner"),
        (policies.built("ProMP"), "no environment to act in"),
    ):
        with pytest.raises(ValueError, match=message):
            learner.export(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_learner_of_another_environment_is_not_exported(tmp_path):
    made = policies.built("ProMP")
    made.compile(rollouts=policies.Rollouts("mmaml_tf/PointMass-v0", 1), jit_compile=False)
    with pytest.raises(ValueError, match=r"of sizes 3 and 2, those of .* of \(4, 2\)"):
        made.export(tmp_path / "model")


def run_python(code, *arguments, path=()):
    """Runs Python code in another process and directory, with some directories to import from."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment, cwd="/", capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


ALONE = """
import sys

MISSING = ("mmaml_tf", "tf_agents", "tensorflow_probability", "gymnasium", "gym", "tf_keras")

class Blocked:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in MISSING:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Blocked())
import numpy as np
import tensorflow as tf

folder, *cases = sys.argv[1:]
for case in cases:
    with np.load(f"{folder}/{case}.npz") as file:
        initial, x, noise, *adapt = (tf.constant(file[name]) for name in file)
    model = tf.saved_model.load(f"{folder}/{case}")
    parameters = model.adapt(*adapt, model.initial(initial))
    np.savez(f"{folder}/{case}-outputs.npz", **model.act(x, noise, parameters))
assert not set(MISSING) & set(sys.modules)
"""


def test_saved_models_need_tensorflow_alone(exported):
    cases = ("ProMP", "MultiProMP", "MultimodalProMP")
    shape = SHAPES[0]
    act, adapt = inputs(shape, 0)
    for case in cases:
        learner, path, _ = exported(case)
        np.savez(path.with_name(f"{case}.npz"), start(shape, learner), *act, *adapt)
    run_python(ALONE, path.parent, *cases)
    for case in cases:
        learner, path, model = exported(case)
        parameters = model.adapt(*adapt, model.initial(start(shape, learner)))
        with np.load(path.with_name(f"{case}-outputs.npz")) as found:
            assert set(found) == {"action", "control"}
            for name, expected in model.act(*act, parameters).items():
                np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-5)


# -- .keras files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["ProMP", "MultiProMP", "MultimodalProMP film"])
def test_a_keras_file_keeps_everything_but_the_environment(tmp_path, case):
    learner = make(case)
    for variable in learner.weights:  # also what counts steps and updates
        change = 0.05 if variable.dtype == "float32" else 1
        variable.assign_add(tf.cast(tf.fill(variable.shape, change), variable.dtype))
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert type(loaded) is type(learner)
    assert not loaded.compiled
    expected = OTHER_SETTINGS | {"modes": list(policies.MODES)}
    assert {name: loaded.get_config()[name] for name in expected} == expected
    for a, b in zip(learner.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(
        actions_of_learner(loaded, SHAPES[0]), actions_of_learner(learner, SHAPES[0])
    )
    # And trains on alike, from a new optimizer.
    loaded.compile(keras.optimizers.Adam(1e-2), learner.rollouts, jit_compile=False)
    for trained in (learner, loaded):
        trained.fit(policies.dataset(), verbose=0)
    states.assert_same(learner, loaded)


LOAD = """
import sys, keras, mmaml_tf.rl
import numpy as np

folder = sys.argv[1]
for case in sys.argv[2:]:
    learner = keras.models.load_model(f"{folder}/{case}.keras")
    with np.load(f"{folder}/{case}.npz") as file:
        trajectories = mmaml_tf.rl.Trajectories(*(file[name] for name in file))
    mode = [0] * len(trajectories.rewards) if learner.needs_mode else None
    initial = learner.initial_parameters(len(trajectories.rewards), mode)
    np.savez(f"{folder}/{case}-outputs.npz", *learner.adapt(trajectories, initial).weights)
assert "tf_agents" not in sys.modules
"""


def test_another_process_loads_keras_files(tmp_path):
    cases = ("MultiProMP", "MultimodalProMP")
    learners, given = {case: make(case) for case in cases}, policies.trajectories(steps=HORIZON)
    for case, learner in learners.items():
        learner.save(tmp_path / f"{case}.keras")
        np.savez(tmp_path / f"{case}.npz", *given)
    run_python(LOAD, tmp_path, *cases, path=[ROOT])
    for case, learner in learners.items():
        initial = learner.initial_parameters(3, [0] * 3 if learner.needs_mode else None)
        with np.load(tmp_path / f"{case}-outputs.npz") as found:
            expected = learner.adapt(given, initial).weights
            for a, b in zip(found.values(), expected, strict=True):
                # The processes optimise graphs differently; see conftest.py.
                np.testing.assert_array_max_ulp(a, b.numpy(), maxulp=8)
