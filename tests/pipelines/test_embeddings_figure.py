import pathlib

import numpy as np
import yaml
from reports import PARAMS

from pipelines import embeddings_figure


def write(domain, name, seed, **arrays):
    path = pathlib.Path("models/laptop") / domain / "evaluation" / f"{name}-{seed}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def test_each_panel_has_its_settings_or_is_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = tmp_path / "plots" / "embeddings.png"
    drawn, notes = embeddings_figure.draw("laptop", [0, 1], picture)
    assert notes == [f"{title}: not run." for title in embeddings_figure.PANELS]
    assert not drawn
    assert not picture.exists()
    metrics = pathlib.Path("results/laptop/regression/metrics/film_5-1.json")
    metrics.parent.mkdir(parents=True)
    metrics.touch()
    _, (regression, *others) = embeddings_figure.draw("laptop", [0, 1], picture)
    assert regression == "Regression, 5 modes: the arrays of its evaluation are not here."
    assert all(note.endswith("not run.") for note in others)
    rng = np.random.default_rng(0)
    mode = np.repeat(np.arange(5), 420)
    modes = np.array(["a", "b", "c", "d", "e"])
    embeddings = rng.normal(size=(len(mode), 80))
    # The first seed that ran; of each mode at most 400 tasks.
    write("regression", "film_5", 1, embeddings=embeddings, mode=mode, modes=modes)
    mode = np.repeat(np.arange(4), 5)
    embeddings = rng.normal(size=(len(mode), 64))
    write("reinforcement", "mmaml-reacher-4", 0, embeddings=embeddings, embeddings_mode=mode,
          mode=np.repeat(np.arange(4), 9), modes=modes[:4])  # fmt: skip
    # A set none of whose modes has data leaves an empty file.
    write("classification", "film-5-5w1s", 0)
    drawn, notes = embeddings_figure.draw("laptop", [0, 1], picture)
    regression, images, reacher, point_mass = notes
    assert drawn
    assert "2000 of 2100 held-out tasks, perplexity 30" in regression
    assert "embeddings of size 80" in regression
    assert images == "Image classification, 5 modes: not run."
    assert "20 of 20 held-out tasks" in reacher and "not run" in point_mass
    assert picture.stat().st_size > 10_000


def test_the_models_of_the_panels_are_trained():
    params = yaml.safe_load(PARAMS.read_text())
    images, policies = (params[d]["trained"] for d in ("classification", "reinforcement"))
    trained = {
        "regression": params["regression"]["trained"],
        "classification": [
            f"{method}-{modes}-{protocol}"
            for method in images["methods"]
            for modes in images["mode_sets"]
            for protocol in images["protocols"]
        ],
        "reinforcement": [f"{m}-{name}" for m in policies["methods"] for name in policies["sets"]],
    }
    for domain, name in embeddings_figure.PANELS.values():
        assert name in trained[domain]
