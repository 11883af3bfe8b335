"""`python -m mmaml_tf adapt` prints what `adapt` predicts, or says what is wrong with its input."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import factory
import numpy as np
import policies
import pytest
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.__main__ import main

SUPPORT = [[0.5, 1.25], [-2.0, 3.0], [1e-1, -4.5]]
QUERY = [[0.0], [2.5]]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Learners by name, exported into one folder."""
    folder = tmp_path_factory.mktemp("models")
    learners = {recipe: factory.learner(recipe) for recipe in ("MAML", "MultiMAML", "MMAML")}
    wide = mm.MAML(
        mm.networks.MLP((4,), outputs=2, kernel_initializer="glorot_uniform"),
        inner_loop=factory.inner_loop(),
    )
    wide.compile(loss="mse", jit_compile=False)
    wide.build(((None, None, 3), (None, None, 2)))
    learners["wide"] = wide
    for name, learner in learners.items():
        learner.export(folder / name)
    tf.saved_model.save(tf.Module(), str(folder / "foreign"))
    policies.ready("ProMP").export(folder / "policy")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "saved_model.pb").write_text("nothing of the kind")
    (folder / "empty").mkdir()
    (folder / "file.keras").write_bytes(b"PK")
    return folder, learners


@pytest.fixture
def adapt(models, tmp_path, monkeypatch, capsys):
    """Returns a function that runs the command on two tables or texts."""
    monkeypatch.chdir(tmp_path)

    def run(model, support, query, *options):
        model = model if str(model).startswith("~") else models[0] / model
        for name, content in (("support.csv", support), ("query.csv", query)):
            if content is not None:
                text = content if isinstance(content, str) else table(*content)
                Path(name).write_text(text)
        capsys.readouterr()
        files = ["--support", "support.csv", "--query", "query.csv"]
        status = main(["adapt", str(model), *files, *options])
        return status, *capsys.readouterr()

    return run


def table(header, rows):
    return "\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n"


def read(text):
    header, *rows = csv.reader(io.StringIO(text))
    return header, np.array(rows, np.float64)


@pytest.mark.parametrize(
    ("model", "options", "mode"),
    [("MAML", (), None), ("MMAML", (), None), ("MultiMAML", ("--mode", "1"), 1)],
)
def test_it_prints_queries_with_predictions(models, adapt, model, options, mode):
    status, out, err = adapt(model, ("xy", SUPPORT), ("x", QUERY), *options)
    assert (status, err) == (0, "")
    header, rows = read(out)
    assert header == ["x", "y"]
    np.testing.assert_array_equal(rows[:, :1], QUERY)
    x, y = np.split(np.array(SUPPORT, np.float32), 2, axis=1)
    expected = models[1][model].adapt(x, y, mode)(np.array(QUERY))
    np.testing.assert_allclose(rows[:, 1:], expected, rtol=1e-5, atol=1e-6)


def test_the_mode_chooses_the_network(adapt):
    outputs = [
        read(adapt("MultiMAML", ("xy", SUPPORT), ("x", QUERY), "--mode", m)[1]) for m in "01"
    ]
    assert not np.allclose(outputs[0][1], outputs[1][1])


def test_columns_are_found_by_name(models, adapt):
    """Inputs keep the support file's order, whatever order the query file has."""
    rng = np.random.default_rng(0)
    support, query = rng.normal(size=(4, 5)).round(3), rng.normal(size=(2, 3)).round(3)
    # In the support file: input a, target u, input b, input c, target v.
    status, out, _ = adapt("wide", ("aubcv", support), ("cab", query))
    assert status == 0
    header, rows = read(out)
    assert header == [*"abcuv"]
    inputs = query[:, [1, 2, 0]]
    np.testing.assert_array_equal(rows[:, :3], inputs)
    expected = models[1]["wide"].adapt(support[:, [0, 2, 3]], support[:, [1, 4]])(inputs)
    np.testing.assert_allclose(rows[:, 3:], expected, rtol=1e-5, atol=1e-6)
    _, reordered, _ = adapt("wide", ("aubcv", support), ("abc", inputs))
    assert reordered == out


def test_blank_lines_and_windows_line_ends_are_no_points(adapt):
    plain = adapt("MAML", ("xy", SUPPORT), ("x", QUERY))
    support = table("xy", SUPPORT).replace("\n", "\r\n\r\n")
    assert adapt("MAML", support, ("x", QUERY)) == plain


GOOD = "x,y\n1,2\n3,4\n"
ERRORS = {
    "support missing": (None, "x\n1\n", ["support.csv", "No such file"]),
    "query missing": (GOOD, None, ["query.csv", "No such file"]),
    "support empty": ("", "x\n1\n", ["support.csv", "header line and at least one point"]),
    "query empty": (GOOD, "\n\n", ["query.csv", "header line and at least one point"]),
    "support without points": ("x,y\n", "x\n1\n", ["support.csv", "at least one point"]),
    "query without points": (GOOD, "x\n", ["query.csv", "at least one point"]),
    "line too short": ("x,y\n1,2\n3\n", "x\n1\n", ["support.csv line 3", "1 values", "has 2"]),
    "line too long": (GOOD, "x\n1\n2\n3,4\n", ["query.csv line 4", "2 values", "has 1"]),
    "line after blank ones": ("x,y\n\n\n1,2\n3\n", "x\n1\n", ["support.csv line 5"]),
    "no number": ("x,y\n1,two\n", "x\n1\n", ["support.csv line 2", "two", "not all numbers"]),
    "no number in the query": (GOOD, "x\n1\n\nabc\n", ["query.csv line 4", "abc"]),
    "empty value": ("x,y\n1,\n", "x\n1\n", ["support.csv line 2", "not all numbers"]),
    "NaN": ("x,y\n1,2\n1,nan\n", "x\n1\n", ["support.csv line 3", "nan", "finite"]),
    "infinity": (GOOD, "x\n-inf\n", ["query.csv line 2", "-inf", "finite"]),
    "column twice": ("x,y,x\n1,2,3\n", "x\n1\n", ["support.csv", "names a column twice"]),
    "column twice in the query": (GOOD, "x,x\n1,2\n", ["query.csv", "names a column twice"]),
    "unknown column": (GOOD, "x,z\n1,2\n", ["query.csv", "support.csv", "z", "must be the inputs"]),
    "no common column": (GOOD, "z\n1\n", ["query.csv", "support.csv", "must be the inputs"]),
    "no target": (GOOD, "x,y\n1,2\n", ["query.csv", "support.csv", "are the targets"]),
    "no text": (b"x,y\n\xff\xfe,1\n", "x\n1\n", ["support.csv", "cannot be read"]),
    "too many inputs": ("x,z,y\n1,2,3\n", "x,z\n1,2\n", ["takes 1 values", "support_x", "give 2"]),
    "too many targets": ("x,y,z\n1,2,3\n", "x\n1\n", ["takes 1 values", "support_y", "give 2"]),
}


@pytest.mark.parametrize(("support", "query", "parts"), ERRORS.values(), ids=ERRORS)
def test_bad_files_are_refused(adapt, support, query, parts):
    if isinstance(support, bytes):
        Path("support.csv").write_bytes(support)
        support = None
    assert_refused(adapt("MAML", support, query), parts)


def assert_refused(result, parts):
    status, out, err = result
    assert status == 2
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert "Traceback" not in err
    for part in parts:
        assert part in err


def test_a_directory_is_no_table(adapt):
    Path("query.csv").mkdir()
    assert_refused(adapt("MAML", GOOD, None), ["query.csv", "directory"])


@pytest.mark.parametrize(
    ("model", "options", "parts"),
    [
        ("nowhere", (), ["nowhere is no SavedModel"]),
        ("empty", (), ["empty is no SavedModel", "none"]),
        (".", (), [" is no SavedModel", "MAML, MMAML, MultiMAML"]),
        ("file.keras", (), ["file.keras is no SavedModel", "a file of Keras", "learner.export"]),
        ("MAML/variables", (), ["variables is no SavedModel"]),
        ("policy", (), ["policy is a policy", "drive_policy.py"]),
        ("foreign", (), ["foreign", "learner.export"]),
        ("damaged", (), ["damaged", "learner.export"]),
        ("MultiMAML", (), ["this model needs --mode"]),
        ("MAML", ("--mode", "0"), ["this model takes no --mode"]),
        ("MultiMAML", ("--mode", "2"), ["mode must be the index of one of", "sinusoid", "linear"]),
        ("MultiMAML", ("--mode", str(2**40)), ["--mode 1099511627776"]),
        ("MultiMAML", ("--mode", "-1"), ["mode must be the index of one of", "sinusoid", "linear"]),
        ("wide", (), ["the model takes 3 values per point for support_x"]),
    ],
)
def test_models_that_do_not_fit_are_refused(adapt, model, options, parts):
    assert_refused(adapt(model, GOOD, "x\n1\n", *options), parts)


@pytest.mark.parametrize("place", ["MAML/saved_model.pb", "alone", "~/MAML"])
def test_a_model_is_found_by_its_file_or_its_folder(models, adapt, monkeypatch, place):
    (models[0] / "alone").mkdir(exist_ok=True)
    if not (models[0] / "alone" / "model").exists():
        (models[0] / "alone" / "model").symlink_to(models[0] / "MAML")
    monkeypatch.setenv("HOME", str(models[0]))
    path = place if place.startswith("~") else models[0] / place
    assert adapt(path, GOOD, "x\n1\n") == adapt("MAML", GOOD, "x\n1\n")


def test_an_index_is_left_out_with_a_note(adapt):
    plain = adapt("MAML", ("xy", SUPPORT), ("x", QUERY))
    support = table(["", "x", "y"], [[i, *row] for i, row in enumerate(SUPPORT)])
    status, out, err = adapt("MAML", support, ("x", QUERY))
    assert (status, out) == plain[:2]
    assert err == "note: support.csv: the first column has no name and is left out, as an index.\n"


@pytest.mark.parametrize(
    ("support", "query", "parts"),
    [
        ("x,y\n0,0.1\n1e39,0.9\n", "x\n1\n", ["support.csv line 3", "1e+39", "float32"]),
        (GOOD, "x\n\n-1e39\n", ["query.csv line 3", "-1e+39", "float32"]),
        ("x,y\n0,1e38\n1,-3e38\n", "x\n1\n", ["the model predicts", "query.csv line 2", "large"]),
    ],
)
def test_numbers_too_large_are_refused(adapt, support, query, parts):
    assert_refused(adapt("MAML", support, query), parts)


def test_a_model_of_another_precision_gets_it(adapt, models, float64):
    learner = mm.MAML(mm.networks.MLP((4,)), inner_loop=factory.inner_loop())
    learner.compile(loss="mse", jit_compile=False)
    learner.build(((None, None, 1), (None, None, 1)))
    learner.export(models[0] / "double")
    status, out, _ = adapt("double", ("xy", SUPPORT), ("x", QUERY))
    assert status == 0
    x, y = np.split(np.array(SUPPORT), 2, axis=1)
    np.testing.assert_allclose(
        read(out)[1][:, 1:], learner.adapt(x, y)(np.array(QUERY)), rtol=1e-12
    )


@pytest.mark.parametrize(
    "arguments",
    [[], ["adapt"], ["adapt", "model", "--support", "a.csv"], ["train"]],
    ids=" ".join,
)
def test_incomplete_commands_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage:" in err


def test_it_runs_as_a_module(models, tmp_path):
    folder, learners = models
    (tmp_path / "support.csv").write_text(table("xy", SUPPORT))
    (tmp_path / "query.csv").write_text(table("x", QUERY))
    files = ["--support", "support.csv", "--query", "query.csv"]
    done = subprocess.run(
        [sys.executable, "-m", "mmaml_tf", "adapt", str(folder / "MMAML"), *files],
        env={**os.environ, "PYTHONPATH": str(Path(mm.__file__).parents[1])},
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    x, y = np.split(np.array(SUPPORT, np.float32), 2, axis=1)
    expected = learners["MMAML"].adapt(x, y)(np.array(QUERY))
    np.testing.assert_allclose(read(done.stdout)[1][:, 1:], expected, rtol=1e-5, atol=1e-6)
