"""`python -m mmaml_tf classify` on folders of images."""

import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import factory
import images
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import mmaml_tf as mm
from mmaml_tf.__main__ import main

NAMES = ["ant", "bee", "cat"]


def save(path, seed, size=(8, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(path)


def task(folder, names=NAMES, **kwargs):
    """Writes a task with two support images of every class but the last, which has one."""
    for label, name in enumerate(names):
        for i in range(1 + (name != names[-1])):
            save(folder / "support" / name / f"{i}.png", 10 * label + i, **kwargs)
    for i in range(4):
        save(folder / "query" / f"q{i}.png", 100 + i, **kwargs)
    (folder / "support" / ".hidden").mkdir(exist_ok=True)
    (folder / "query" / ".DS_Store").write_text("no image")


def pixels(paths, mode="RGB", size=8, invert=False):
    """The images as they are on disk, resized; written apart from what the command uses."""
    loaded = []
    for path in paths:
        image = Image.open(path).convert(mode).resize((size, size), Image.Resampling.LANCZOS)
        loaded.append(np.asarray(image, np.float64).reshape(size, size, -1) / 255)
    loaded = np.stack(loaded).astype("f")
    return 1 - loaded if invert else loaded


def expected(learner, folder, names=NAMES, **kwargs):
    """The probabilities that the learner gives for the classes of a task."""
    paths = [path for name in names for path in sorted((folder / "support" / name).iterdir())]
    labels = np.array([names.index(path.parent.name) for path in paths])
    queries = pixels(sorted((folder / "query").glob("*.png")), **kwargs)
    logits = learner.adapt(pixels(paths, **kwargs), labels)(queries)[:, : len(names)]
    return tf.nn.softmax(logits).numpy()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Learners by name, exported into one folder."""
    folder = tmp_path_factory.mktemp("models")
    gray = mm.ProtoNet(mm.networks.ConvNet((4,), None), ways=3)
    wide = mm.ProtoNet(mm.networks.ConvNet((4,), None), ways=3)
    vectors = mm.MAML(mm.networks.MLP((4,), outputs=3), inner_loop=mm.InnerLoop(1, 0.1))
    learners = {"MAML": images.learner("MAML"), "fewer": images.learner("MMAML", fewer_ways=True)}
    for name, learner, shape in (
        ("gray", gray, (12, 12, 1)),
        ("wide", wide, (8, 12, 3)),
        ("vectors", vectors, (5,)),
    ):
        learner.compile(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
        )
        learner.build(((None, None, *shape), (None, None)))
        learners[name] = learner
    learners["regression"] = factory.learner("MAML")
    for name, learner in learners.items():
        learner.export(folder / name)
    return folder, learners


@pytest.fixture
def classify(models, tmp_path, monkeypatch, capsys):
    """Returns a function that runs the command in a folder with `support` and `query`."""
    monkeypatch.chdir(tmp_path)

    def run(model, *options):
        capsys.readouterr()
        folders = ["--support", "support", "--query", "query"]
        status = main(["classify", str(models[0] / model), *folders, *options])
        return status, *capsys.readouterr()

    return run


def read(result):
    status, out, err = result
    assert (status, err) == (0, "")
    header, *rows = csv.reader(io.StringIO(out))
    return header, rows


def check(rows, probabilities, names=NAMES):
    assert [row[0] for row in rows] == [f"q{i}.png" for i in range(4)]
    assert [row[1] for row in rows] == [names[i] for i in probabilities.argmax(1)]
    np.testing.assert_allclose([float(row[2]) for row in rows], probabilities.max(1), atol=2e-5)


def test_it_prints_labels_with_probabilities(models, classify, tmp_path):
    task(tmp_path)
    header, rows = read(classify("MAML"))
    assert header == ["file", "label", "probability"]
    probabilities = expected(models[1]["MAML"], tmp_path)
    check(rows, probabilities)
    header, rows = read(classify("MAML", "--all"))
    assert header == ["file", "label", "probability", *NAMES]
    check(rows, probabilities)
    found = np.array([row[3:] for row in rows], float)
    np.testing.assert_allclose(found, probabilities, atol=2e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("model", ["fewer", "MAML"])
def test_a_task_may_have_fewer_classes_than_the_model(models, classify, tmp_path, model):
    task(tmp_path, NAMES[:2])
    header, rows = read(classify(model, "--all"))
    assert header[3:] == NAMES[:2]
    probabilities = expected(models[1][model], tmp_path, NAMES[:2])
    check(rows, probabilities, NAMES[:2])
    np.testing.assert_allclose(np.array([r[3:] for r in rows], float), probabilities, atol=2e-5)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_images_are_resized_and_converted_as_the_model_needs(
    models, classify, tmp_path, mode, invert
):
    task(tmp_path, size=(20, 16), mode=mode)
    _, rows = read(classify("gray", *["--invert"] * invert))
    images_of = {"mode": "L", "size": 12}
    probabilities = expected(models[1]["gray"], tmp_path, invert=invert, **images_of)
    found = np.array([float(row[2]) for row in rows])
    np.testing.assert_allclose(found, probabilities.max(1), atol=2e-5)
    other = expected(models[1]["gray"], tmp_path, invert=not invert, **images_of)
    assert not np.allclose(found, other.max(1), atol=1e-4)


def test_gray_files_are_colour_images_of_equal_channels(models, classify, tmp_path):
    task(tmp_path, mode="L")
    check(read(classify("MAML"))[1], expected(models[1]["MAML"], tmp_path))


def test_what_is_no_image_is_named(classify, tmp_path):
    task(tmp_path)
    plain = classify("MAML")
    (tmp_path / "support" / "bee" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "query" / "notes.txt").write_text("no image")
    save(tmp_path / "support" / ".ipynb_checkpoints" / "ant.png", 0)
    save(tmp_path / "support" / "ant" / "@eaDir" / "0.png", 0)
    status, out, err = classify("MAML")
    assert (status, out) == plain[:2]
    assert err.splitlines() == [
        "note: support: left out, for they are no images: bee/Thumbs.db.",
        "note: query: left out, for they are no images: notes.txt.",
    ]


def test_folders_may_be_nested_and_packed(classify, tmp_path):
    """A class is the path of its folder, and a query image has its own."""
    task(tmp_path)
    _, plain = read(classify("MAML"))
    (tmp_path / "support").rename(tmp_path / "insects")
    (tmp_path / "support").mkdir()
    (tmp_path / "insects").rename(tmp_path / "support" / "insects")
    (tmp_path / "query" / "more").mkdir()
    (tmp_path / "query" / "q3.png").rename(tmp_path / "query" / "more" / "q3.png")
    _, rows = read(classify("MAML"))
    assert [row[0] for row in rows] == ["more/q3.png", "q0.png", "q1.png", "q2.png"]
    assert [row[1] for row in rows[1:]] == [f"insects/{row[1]}" for row in plain[:3]]
    for name in ("support", "query"):
        shutil.make_archive(tmp_path / name, "zip", tmp_path / name)
        remove(tmp_path / name)
        (tmp_path / f"{name}.zip").rename(tmp_path / name)
    assert read(classify("MAML"))[1] == rows


def remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def too_many(folder):
    for name in "defg":
        save(folder / "support" / name / "0.png", 1)


def broken(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:60])


ERRORS = {
    "no support": (lambda f: remove(f / "support"), "MAML", ["support is no folder"]),
    "no query": (lambda f: remove(f / "query"), "MAML", ["query is no folder"]),
    "support is a file": (
        lambda f: (remove(f / "support"), (f / "support").write_text("x")),
        "MAML",
        ["support is no folder"],
    ),
    "one class": (
        lambda f: [remove(f / "support" / name) for name in NAMES[1:]],
        "MAML",
        ["support has 1 class folders", "at least 2"],
    ),
    "no class": (
        lambda f: [remove(f / "support" / name) for name in NAMES],
        "MAML",
        ["support has 0 class folders"],
    ),
    "too many classes": (too_many, "MAML", ["support has 7 class folders", "at most 3 classes"]),
    "empty class": (
        lambda f: (
            (f / "support" / "bee" / "0.png").rename(f / "bee.png")
            and (f / "support" / "bee" / "1.png").rename(f / "bee.txt")
        ),
        "MAML",
        ["support/bee has no images", ".png"],
    ),
    "no query images": (
        lambda f: [path.unlink() for path in (f / "query").glob("*.png")],
        "MAML",
        ["query has no images", ".png"],
    ),
    "image without class": (
        lambda f: save(f / "support" / "lost.png", 0),
        "MAML",
        ["support/lost.png is in no class folder"],
    ),
    "images of a format that is not read": (
        lambda f: (f / "query" / "IMG_1.HEIC").write_bytes(b"x"),
        "MAML",
        ["query has images", "IMG_1.HEIC", "JPEG"],
    ),
    "images beside folders of images": (
        lambda f: save(f / "support" / "bee" / "more" / "1.png", 0),
        "MAML",
        ["support/bee has images beside folders of images"],
    ),
    "a link to nothing": (
        lambda f: (f / "support" / "bee" / "2.png").symlink_to("gone.png"),
        "MAML",
        ["support/bee/2.png is a link to gone.png"],
    ),
    "damaged support image": (
        broken("support/bee/1.png"),
        "MAML",
        ["support/bee/1.png cannot be read as an image"],
    ),
    "damaged query image": (
        broken("query/q2.png"),
        "MAML",
        ["query/q2.png cannot be read as an image"],
    ),
    "text with the suffix of an image": (
        lambda f: (f / "query" / "a.jpg").write_text("hello"),
        "MAML",
        ["query/a.jpg cannot be read as an image"],
    ),
    "folder with the suffix of an image": (
        lambda f: (f / "query" / "a.png").mkdir(),
        "MAML",
        ["query/a.png has no images"],
    ),
    "no model": (lambda f: None, "nowhere", ["nowhere is no SavedModel", "learner.export"]),
    "regression": (lambda f: None, "regression", ["regression predicts numbers", "command adapt"]),
    "vectors": (lambda f: None, "vectors", ["vectors takes points of shape (5,)", "square images"]),
    "oblong": (lambda f: None, "wide", ["wide takes points of shape (8, 12, 3)", "square images"]),
}


@pytest.mark.parametrize(("change", "model", "parts"), ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_used_is_named(classify, tmp_path, change, model, parts):
    task(tmp_path)
    change(tmp_path)
    status, out, err = classify(model)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    for part in parts:
        assert part in err


def test_the_images_need_pillow(classify, tmp_path, monkeypatch):
    task(tmp_path)
    for name in [n for n in sys.modules if n.startswith("mmaml_tf.datasets")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(mm, "datasets", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, _, err = classify("MAML")
    assert status == 2
    assert "PIL" in err and "mmaml_tf[images]" in err


def test_a_classifier_takes_no_tables(models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("support.csv").write_text("x,y\n1,2\n")
    Path("query.csv").write_text("x\n1\n")
    files = ["--support", "support.csv", "--query", "query.csv"]
    assert main(["adapt", str(models[0] / "MAML"), *files]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "MAML is a classifier" in err and "command classify" in err


def test_the_help_warns_of_the_statistics_of_the_queries(capsys):
    with pytest.raises(SystemExit):
        main(["classify", "--help"])
    assert "depends on the other query images" in " ".join(capsys.readouterr().out.split())


def test_it_runs_as_a_module(models, tmp_path):
    task(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "mmaml_tf", "classify", str(models[0] / "MAML"),
         "--support", "support", "--query", "query"],
        env={**os.environ, "PYTHONPATH": str(Path(mm.__file__).parents[1])},
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _, *rows = csv.reader(io.StringIO(done.stdout))
    check(rows, expected(models[1]["MAML"], tmp_path))
