"""What is exported or saved predicts what the learner predicts, elsewhere and later."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import factory
import keras
import numpy as np
import pytest
import states
import tensorflow as tf

import mmaml_tf as mm

ROOT = Path(__file__).parents[1]
CASES = {
    "MAML": ("MAML", {}),
    "MAML for XLA": ("MAML", {"jit": True}),
    "MultiMAML": ("MultiMAML", {}),
    "MMAML film": ("MMAML", {}),
    "LSTMLearner": ("LSTMLearner", {}),
    "MAML generic": ("MAML", {"network": factory.keras_mlp}),
    "MMAML generic": ("MMAML", {"network": factory.keras_mlp}),
}
#: (T, K, Q); more points than the encoder unrolls are among them
SHAPES = [(4, 3, 2), (3, 40, 7), (1, 1, 20)]


def make(case, steps=2):
    recipe, settings = CASES[case]
    settings = settings | {"loop": factory.inner_loop(steps)}
    if "network" in settings:
        settings = settings | {"network": settings["network"]()}
    return factory.learner(recipe, **settings)


def inputs(shape, needs_mode=False):
    tasks, support, query = shape
    x, y, q = factory.episodes(tasks, support, query, seed=sum(shape))[:3]
    mode = [tf.constant(np.arange(tasks)[::-1] % 2, tf.int32)] if needs_mode else []
    return [x, y, q, *mode]


def adapted(learner, x, y, q, *mode):
    return learner.adapt(x, y, *mode)(q).numpy()


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


@pytest.mark.parametrize("case", CASES)
def test_the_saved_model_adapts_like_the_learner(exported, case):
    learner, _, loaded = exported(case)
    outputs = []
    for shape in SHAPES:
        arguments = inputs(shape, learner.needs_mode)
        predictions = loaded.adapt_and_predict(*arguments)
        assert predictions.shape == (shape[0], shape[2], 1)
        expected = adapted(learner, *arguments)
        np.testing.assert_allclose(predictions, expected, rtol=1e-5, atol=1e-5)
        names = ("support_x", "support_y", "query_x", "mode")
        named = dict(zip(names, arguments, strict=False))
        (signed,) = loaded.signatures["adapt_and_predict"](**named).values()
        np.testing.assert_array_equal(signed, predictions)
        outputs.append(expected)
    arguments[1] = arguments[1] + 1.0  # it does look at the support targets
    assert not np.allclose(loaded.adapt_and_predict(*arguments), outputs[-1], atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_embeddings_are_exported_where_there_is_an_encoder(exported, case):
    learner, _, loaded = exported(case)
    has_encoder = learner.encoder is not None
    assert hasattr(loaded, "embed") == ("embed" in loaded.signatures) == has_encoder
    for shape in SHAPES if has_encoder else ():
        x, y = inputs(shape)[:2]
        expected = learner.embed(x, y)
        assert expected.shape == (shape[0], 6)
        np.testing.assert_allclose(loaded.embed(x, y), expected, rtol=1e-5, atol=1e-5)
        (signed,) = loaded.signatures["embed"](support_x=x, support_y=y).values()
        np.testing.assert_allclose(signed, expected, rtol=1e-5, atol=1e-5)


ALONE = """
import sys

class Blocked:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ("mmaml_tf", "factory", "pipelines"):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Blocked())
try:
    import mmaml_tf
except ImportError:
    import numpy as np
    import tensorflow as tf

    folder, *cases = sys.argv[1:]
    for case in cases:
        with np.load(f"{folder}/{case}.npz") as file:
            arguments = [tf.constant(file[name]) for name in file]
        model = tf.saved_model.load(f"{folder}/{case}")
        outputs = [model.adapt_and_predict(*arguments)]
        if hasattr(model, "embed"):
            outputs.append(model.embed(*arguments[:2]))
        np.savez(f"{folder}/{case}-outputs.npz", *outputs)
    assert "mmaml_tf" not in sys.modules
"""


def run_python(code, *arguments, path=()):
    """Runs Python code in another process and directory, with some directories to import from."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment, cwd="/", capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_saved_models_need_tensorflow_alone(exported):
    learners = {}
    for case in CASES:
        learners[case], path, _ = exported(case)
        np.savez(path.with_name(f"{case}.npz"), *inputs((2, 5, 3), learners[case].needs_mode))
    run_python(ALONE, path.parent, *CASES)
    for case, learner in learners.items():
        arguments = inputs((2, 5, 3), learner.needs_mode)
        with np.load(path.with_name(f"{case}-outputs.npz")) as file:
            predictions, *embedding = (file[name] for name in file)
        expected = adapted(learner, *arguments)
        np.testing.assert_allclose(predictions, expected, rtol=1e-5, atol=1e-5, err_msg=case)
        assert len(embedding) == (learner.encoder is not None)
        for found in embedding:
            np.testing.assert_allclose(found, learner.embed(*arguments[:2]), rtol=1e-5, atol=1e-5)


def predictions(path, *arguments):
    loaded = tf.saved_model.load(path)
    return loaded.adapt_and_predict(*arguments).numpy()


def test_an_export_replaces_an_older_one(tmp_path):
    path = tmp_path / "some" / "model"
    first, second = factory.learner("MAML"), factory.learner("MAML", network=factory.mlp(seed=9))
    arguments = inputs(SHAPES[0])
    first.export(str(path))
    np.testing.assert_allclose(predictions(path, *arguments), adapted(first, *arguments), 1e-5)
    (path / "variables" / "stale").touch()
    second.export(str(path))
    np.testing.assert_allclose(predictions(path, *arguments), adapted(second, *arguments), 1e-5)
    assert not (path / "variables" / "stale").exists()
    assert [p.name for p in path.parent.iterdir()] == ["model"]


def test_an_older_export_is_deleted_after_its_successor_is_there(tmp_path, monkeypatch):
    path, deleted, rmtree = tmp_path / "model", [], shutil.rmtree
    factory.learner("MAML").export(path)
    old = (path / "saved_model.pb").stat().st_ino

    def spy(folder, **kwargs):
        if Path(folder).exists():
            deleted.append((Path(folder) / "saved_model.pb").stat().st_ino)
            assert (path / "saved_model.pb").stat().st_ino != old
        rmtree(folder, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", spy)
    factory.learner("MAML").export(path)
    assert old in deleted


class CrashError(Exception):
    pass


@pytest.mark.parametrize("older", [False, True])
def test_an_interrupted_export_leaves_the_older_one(tmp_path, monkeypatch, older):
    path = tmp_path / "model"
    learner, arguments = factory.learner("MAML"), inputs(SHAPES[0])
    if older:
        learner.export(path)

    def crash(module, folder, *rest):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "saved_model.pb").touch()
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(tf.saved_model, "save", crash)
        with pytest.raises(CrashError):
            factory.learner("MAML", network=factory.mlp(seed=9)).export(path)
    assert path.exists() == older
    if older:
        np.testing.assert_allclose(
            predictions(path, *arguments), adapted(learner, *arguments), 1e-5
        )
    learner.export(path)
    np.testing.assert_allclose(predictions(path, *arguments), adapted(learner, *arguments), 1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_nothing_but_a_saved_model_is_replaced(tmp_path, kind):
    path = tmp_path / "important"
    file = path / "notes.txt" if kind == "directory" else path
    file.parent.mkdir(exist_ok=True)
    file.write_text("keep me")
    with pytest.raises(ValueError, match="important exists and is no SavedModel"):
        factory.learner("MAML").export(path)
    assert file.read_text() == "keep me"
    assert [p.name for p in tmp_path.iterdir()] == ["important"]


def unbuilt():
    learner = mm.MAML(factory.mlp(), inner_loop=factory.inner_loop())
    learner.compile()
    return learner


@pytest.mark.parametrize("make", [unbuilt, lambda: factory.learner("MAML", jit=None)])
def test_only_a_built_and_compiled_learner_is_exported(tmp_path, make):
    with pytest.raises(ValueError, match="only a built and compiled learner"):
        make().export(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_wrong_number_of_features_is_refused_by_the_saved_model(exported):
    *_, loaded = exported("MAML")
    x, y, q = inputs(SHAPES[0])
    with pytest.raises(TypeError, match="support_x"):
        loaded.adapt_and_predict(tf.concat([x, x], -1), y, q)


# -- .keras files ---------------------------------------------------------------------------------


def fit(learner, seed):
    """Takes two steps."""
    first, second = (factory.dataset(factory.episodes(seed=s)) for s in (seed, seed + 1))
    learner.fit(first.concatenate(second), verbose=0)


@pytest.mark.parametrize("case", [case for case in CASES if "XLA" not in case])
def test_a_keras_file_keeps_everything(tmp_path, case):
    learner = make(case, steps=1)
    fit(learner, seed=1)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert type(loaded) is type(learner)
    assert len(loaded.weights) == len(learner.weights)
    states.assert_same(learner, loaded)  # weights and the optimizer's variables
    assert int(loaded.optimizer.iterations) == 2
    arguments = inputs(SHAPES[0], learner.needs_mode)
    np.testing.assert_array_equal(adapted(loaded, *arguments), adapted(learner, *arguments))
    fit(learner, seed=5)
    fit(loaded, seed=5)
    states.assert_same(learner, loaded)


@pytest.mark.parametrize("jit", [False, True])
def test_a_keras_file_keeps_how_the_learner_was_compiled(tmp_path, jit):
    learner = factory.learner("MAML", jit=jit)
    learner.compile(keras.optimizers.SGD(0.5, momentum=0.9), "mae", jit_compile=jit)
    learner.optimizer.build(learner.trainable_variables)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.xla == jit
    assert loaded.loss == "mae"
    assert loaded.optimizer.get_config() == learner.optimizer.get_config()


def test_a_keras_file_of_a_learner_that_is_not_compiled(tmp_path):
    learner = factory.learner("MMAML", jit=None)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert not loaded.compiled
    states.assert_same(learner, loaded)


LOAD = """
import sys, mmaml_tf, keras
import numpy as np

folder = sys.argv[1]
for case in sys.argv[2:]:
    learner = keras.models.load_model(f"{folder}/{case}.keras")
    with np.load(f"{folder}/{case}-in.npz") as file:
        x, y, q, *mode = (file[name] for name in file)
    np.savez(f"{folder}/{case}-out.npz", learner.adapt(x, y, *mode)(q), *learner.get_weights())
"""


def test_another_process_loads_keras_files(tmp_path):
    cases = ["MultiMAML", "MMAML film", "LSTMLearner", "MMAML generic"]
    learners = {case: make(case, steps=1) for case in cases}
    for case, learner in learners.items():
        for variable in learner.trainable_variables:
            variable.assign_add(tf.fill(variable.shape, 0.05))
        learner.save(tmp_path / f"{case}.keras")
        np.savez(tmp_path / f"{case}-in.npz", *inputs(SHAPES[0], learner.needs_mode))
    run_python(LOAD, tmp_path, *cases, path=[ROOT])
    for case, learner in learners.items():
        with np.load(tmp_path / f"{case}-out.npz") as file:
            predictions, *weights = (file[name] for name in file)
        for found, expected in zip(weights, learner.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected, err_msg=case)
        # Sums are in another order where the process has another number of threads.
        expected = adapted(learner, *inputs(SHAPES[0], learner.needs_mode))
        np.testing.assert_allclose(predictions, expected, rtol=1e-6, atol=1e-6, err_msg=case)
