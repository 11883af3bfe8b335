"""The README's Python blocks, run as a reader would, with fewer steps and filters."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmaml_tf.tasks import FAMILIES

README = Path(__file__).parent.parent / "README.md"
FEWER = {"epochs": 1, "steps_per_epoch": 2, "steps": 2, "tasks_per_mode": 4}
FILTERS = "(32, 32, 32, 32)", "(4, 4)"


def block(first: str) -> str:
    """The README's one Python block which contains `first`, with fewer steps and filters."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    (found,) = [text for text in blocks if first in text]
    for name, value in FEWER.items():
        found = re.sub(rf"\b{name}=\d+", f"{name}={value}", found)
    return found.replace(*FILTERS)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs text as a script in an empty folder; families registered by it are forgotten."""
    monkeypatch.chdir(tmp_path)
    families = dict(FAMILIES)

    def run_block(text, **names):
        script = tmp_path / "script.py"
        script.write_text(text)
        return runpy.run_path(str(script), names)

    yield run_block
    FAMILIES.clear()
    FAMILIES.update(families)


def test_regression_trains_saves_and_exports(run):
    made = run(block("register_family"))
    support, learner = made["support"], made["learner"]
    assert set(made["tasks"].modes) == {"damped", "linear"}
    assert np.shape(made["predict"](made["queries"])) == (2, 2, 1)

    queries = np.asarray(made["queries"], np.float32)
    exported = run(
        block("tf.saved_model.load"),
        learner=learner,
        support_x=support.support_x,
        support_y=support.support_y,
        query_x=queries,
    )
    np.testing.assert_allclose(exported["y"], made["predict"](queries), rtol=1e-4, atol=1e-5)
    assert exported["v"].shape[0] == 2

    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(40), rng.integers(20, 60, size=40))
    x = rng.normal(size=(len(user), 1))
    run(block("ArrayTasks"), learner=learner, mm=made["mm"], x=x, y=x * user[:, None], user=user)


def test_what_an_inner_loop_learned_is_listed(run, capsys):
    without_xla = block("multi_step_until").replace('"mse")', '"mse", jit_compile=False)')
    made = run(without_xla)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("maml")]) == 8 * 5
    assert int(made["learner"].optimizer.iterations) == 2


def test_a_learner_of_a_strategy(run):
    made = run(block("MirroredStrategy"))
    assert made["learner"].replicas.strategy is made["strategy"]
    assert made["learner"].optimizer.iterations.numpy() == 2


def test_images_of_a_folder(run, tmp_path):
    pixels = np.random.default_rng(0)
    for name in range(80):
        folder = tmp_path / "my_images" / f"{name:02d}"
        folder.mkdir(parents=True)
        for i in range(6):
            picture = pixels.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(picture).save(folder / f"{i}.png")
    made = run(block("FolderDataset"))
    assert int(made["learner"].optimizer.iterations) == 2


def test_policies(run):
    made = run(block("MultimodalProMP"))
    learner = made["learner"]
    assert int(learner.optimizer.iterations) == 2 * learner.epochs
