import pathlib

import numpy as np
import yaml
from reports import PARAMS, parts_of, pictures_of, run

from pipelines import embeddings_figure, report_page, scores


def write(domain, name, seed, **arrays):
    path = pathlib.Path("models/laptop") / domain / "evaluation" / f"{name}-{seed}.npz"
    metrics = pathlib.Path("results/laptop") / domain / "metrics" / f"{name}-{seed}.json"
    for file in (path, metrics):
        file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    metrics.write_text("{}" if arrays else '{"left_out": true}')
    return metrics


def test_each_panel_has_its_settings_or_is_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = tmp_path / "plots" / "embeddings.png"
    drawn, notes = embeddings_figure.draw("laptop", [0, 1], picture)
    assert notes == [f"{title}: not run." for title in embeddings_figure.PANELS]
    assert not drawn
    assert not picture.exists()
    write("regression", "film_5", 1, accuracy=np.zeros(3))  # no embeddings
    _, (regression, *others) = embeddings_figure.draw("laptop", [0, 1], picture)
    assert regression == "Regression, 5 modes: the arrays of its evaluation are not here."
    assert all(note.endswith("not run.") for note in others)
    rng = np.random.default_rng(0)
    mode = np.repeat(np.arange(2), 420)
    modes = np.array(["a", "b", "c", "d"])
    embeddings = rng.normal(size=(len(mode), 80))
    # The first seed that ran; of each mode at most 400 tasks.
    maps = {"embeddings": embeddings, "mode": mode, "modes": modes[:2]}
    write("regression", "film_5", 1, **maps)
    mode = np.repeat(np.arange(4), 5)
    embeddings = rng.normal(size=(len(mode), 64))
    write("reinforcement", "mmaml-reacher-4", 0, embeddings=embeddings, embeddings_mode=mode,
          mode=np.repeat(np.arange(4), 9), modes=modes)  # fmt: skip
    # A set none of whose modes has data leaves an empty file.
    write("classification", "film-5-5w1s", 0)
    drawn, notes = embeddings_figure.draw("laptop", [0, 1], picture)
    regression, images, reacher, point_mass = notes
    assert drawn
    assert "800 of 840 held-out tasks, perplexity 30" in regression
    assert "embeddings of size 80" in regression
    assert images == "Image classification, 5 modes: not run."
    assert "20 of 20 held-out tasks" in reacher and "not run" in point_mass
    assert picture.stat().st_size > 10_000
    # Arrays of an earlier evaluation than that of the scores are not shown.
    write("regression", "film_5", 1, accuracy=np.zeros(3))
    scores.save(write("classification", "film-5-5w1s", 1, **maps), accuracy=np.ones(3))
    _, notes = embeddings_figure.draw("laptop", [0, 1], picture)
    assert notes[1] == "Image classification, 5 modes: the arrays of its evaluation are not here."


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


def test_the_page_tells_an_earlier_figure_from_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("params.yaml").write_text(PARAMS.read_text())
    results = pathlib.Path("results/laptop")
    report_page.write_domain(results / "regression" / "section.html", "R", [])
    rng = np.random.default_rng(0)
    mode = np.repeat(np.arange(5), 8)
    write("regression", "film_5", 0, embeddings=rng.normal(size=(len(mode), 6)), mode=mode,
          modes=np.array(["a", "b", "c", "d", "e"]))  # fmt: skip
    for here in (True, False):
        run(monkeypatch, module=report_page)
        new, earlier = parts_of(results / "embeddings" / "section.html")
        shown, other = (new, earlier) if here else (earlier, new)
        assert pictures_of(shown) == {"embeddings.png"} and not pictures_of(other)
        assert ("Regression, 5 modes: the arrays of its evaluation are not here." in new) != here
        pathlib.Path("models/laptop/regression/evaluation/film_5-0.npz").unlink(missing_ok=True)
