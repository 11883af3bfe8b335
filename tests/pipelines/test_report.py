"""The reports and the page, of results that are written here and of those that are committed."""

import json
import re
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from repository import ROOT

from pipelines import embedding_maps, page, scores
from pipelines import params as parameters
from pipelines.report import __main__ as report
from pipelines.report import claims, facts, tables
from pipelines.report import rates as rates_of
from pipelines.report.domains import CLASSIFICATION, DOMAINS, REGRESSION
from pipelines.report.frame import read

PARAMS = parameters.load(ROOT / "params.yaml")
WITH_SCORES = sorted({path.parents[1] for path in ROOT.glob("results/*/*/scores/*.npz")})
TASKS = 6


class Results:
    """Results of a domain in the working directory, whose values are drawn from a seed."""

    def __init__(self, domain, modes):
        self.folder = Path("results/laptop", domain)
        self.modes, self.rng = modes, np.random.default_rng(len(modes))
        self.mode = np.repeat(np.arange(len(modes)), TASKS)

    def add(self, name, values, steps=2, seed=0, kept=(), modes=None, **metrics):
        """Writes an evaluation; `values` are arrays by name, each `[steps + 1, N]`."""
        modes = modes or self.modes
        mode = np.repeat(np.arange(len(modes)), TASKS)
        path = self.folder / "metrics" / f"{name}-{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        common = {"cell": name, "seed": seed, "iterations": 40, "skipped_updates": 0}
        path.write_text(json.dumps(common | {"held_out_digest": "d" * 64} | metrics))
        measured = {"mode": mode, "modes": np.array(modes), "steps": np.array(steps)}
        scores.save(path, **measured, curve=np.arange(steps + 1), **values, **dict(kept))

    def draw(self, mean, steps=2, count=None):
        """Values that fall or rise to `mean`."""
        path = mean * (1 + np.linspace(1, 0, steps + 1))[:, None]
        return path + 0.1 * self.rng.normal(size=(steps + 1, count or len(self.mode)))

    def history(self, name, **columns):
        """Writes what training logged, as columns of ten rows."""
        path = self.folder / "history" / f"{name}-0.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {"step": np.arange(1, 11) * 4, "skipped": 0}
        pd.DataFrame(rows | columns).to_csv(path, index=False)

    def embedded(self, domain):
        """What an evaluation keeps of embeddings that tell the modes apart."""
        values = self.rng.normal(size=(len(self.mode), 4)) + 9 * self.mode[:, None]
        return embedding_maps.arrays(domain, values, self.mode)


def regression():
    results = Results("regression", ["sinusoid", "linear"])
    examples = {
        "example_support_x": np.zeros((4, 5, 1)), "example_support_y": np.ones((4, 5, 1)),
        "example_mode": np.array([0, 0, 1, 1]), "example_x": np.linspace(-5, 5, 7),
        "example_truth": np.ones((4, 7)), "example_predictions": np.ones((3, 4, 7)),
    }  # fmt: skip
    for name, mean in (("maml", 2.0), ("film", 1.0)):
        kept = examples | (results.embedded("regression") if name == "film" else {})
        values = {f"losses_{target}": results.draw(mean) for target in ("noisy", "noise_free")}
        results.add(f"{name}_2", values, kept=kept)
        results.history(f"{name}_2", loss=np.geomspace(10, mean, 10))
    described = {"tasks_per_mode": TASKS, "digest": "d" * 64, "bayes_particles_per_family": 10}
    tasks = {"support": 5, "queries": 5, "noise": 0.3, "x_range": [-5.0, 5.0]}
    described["distribution"] = tasks
    (results.folder / "held_out.json").write_text(json.dumps(described))
    optimum = np.full(2 * TASKS, 0.1, np.float32)
    bayes = {f"2_{name}": optimum for name in ("noisy", "noise_free", "effective")}
    np.savez(results.folder / "bayes.npz", **bayes)
    return results


def classification(modes=("omniglot", "fc100")):
    results = Results("classification", list(modes))
    ways = dict.fromkeys(modes, 5)
    images = {
        "example_support": np.zeros((2, 5, 8, 8, 3), np.uint8),
        "example_query": np.zeros((2, 5, 8, 8, 3), np.uint8),
        "example_labels": np.zeros((2, 5), int),
    }
    for name, mean in (("maml", 0.3), ("film", 0.4)):
        kept = images | results.embedded("classification") if name == "film" else {}
        results.add(f"{name}-2-5w1s", {"accuracy": results.draw(mean)}, kept=kept, ways=ways)
        scored = np.where(np.arange(10) % 5, np.nan, mean)
        results.history(f"{name}-2-5w1s", accuracy=mean, validation_score=scored)
    for mode in modes:
        one = {"accuracy": results.draw(0.5, count=TASKS)}
        results.add(f"single-{mode}-5w1s", one, modes=[mode], ways={mode: 5}, held_out_digest=mode)
        results.history(f"single-{mode}-5w1s", accuracy=0.5, validation_score=0.5)
    (results.folder / "data.json").write_text(json.dumps({modes[0]: {"images": 10}}))
    return results


def reinforcement(environment="point_mass", modes=("deg225", "deg45")):
    results = Results("reinforcement", list(modes))
    common = {"environment_steps": 1000, "rollouts": 2, "unstable_rollouts": 0}
    goals = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    for name, mean in (("promp", -300.0), ("mmaml", -200.0)):
        kept = {"examples_goals": goals}
        if environment == "point_mass":
            kept["example_positions"] = results.rng.normal(size=(3, 4, 10, 2))
        if name == "mmaml":
            kept |= results.embedded("reinforcement")
            if environment != "point_mass":
                kept |= {
                    "frames_observations": np.zeros((2, 2, 3, 29)),
                    "frames_goals": goals[:2], "frames_times": np.array([0, 5, 9]),
                }  # fmt: skip
        tasks = f"{environment}-2"
        results.add(f"{name}-{tasks}", {"return": results.draw(mean)}, kept=kept, **common)
        returns = {f"return_after_{n}": np.linspace(3, 1, 10) * mean for n in range(3)}
        results.history(f"{name}-{tasks}", **returns)
    return results


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(report, "draw", lambda numbers, directory: {})


def write(results, params=PARAMS, **options):
    report.write(results.folder.name, "laptop", params, **{"partial": True} | options)
    return results.folder


MAKERS = [regression, classification, reinforcement]
DRAWN = {
    "regression": {"functions_2", "embeddings", "confusions", "per_mode"},
    "classification": {"episodes", "embeddings", "confusions"},
    "reinforcement": {"trajectories", "embeddings_point_mass", "confusions_point_mass"},
}


@pytest.mark.parametrize("make", MAKERS)
def test_a_report_has_its_tables_and_draws_all_that_was_kept(project, make):
    folder = write(make())
    domain = DOMAINS[folder.name]
    pictures = {path.stem for path in (folder / "plots").glob("*.png")}
    assert pictures == {"training_curves", "inner_steps"} | DRAWN[domain.name]
    section = (folder / "section.html").read_text()
    assert set(re.findall(r'src="plots/(\w+)\.png"', section)) == pictures
    markdown = (folder / "table.md").read_text()
    for name in (domain.method, *domain.baselines[:1]):
        assert f"| {tables.label(name)} |" in markdown
    assert "{{" not in section and "nan" not in markdown
    values = pd.read_csv(folder / "table.csv")
    final = values[(values["mode"] == "all") & (values["step"] == "adapted")]
    own = final[final["method"] == tables.label(domain.method)].iloc[0]
    tasks = "point_mass-2" if domain.name == "reinforcement" else "2"
    shown = domain.text(own["mean"], own["spread"], tasks)
    assert shown in markdown and shown in section


def test_equal_results_make_equal_files(project):
    folder = write(classification())
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    write(classification())
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


@pytest.mark.usefixtures("no_pictures")
def test_joined_members_have_the_tasks_of_their_modes(project):
    folder = write(classification())
    values = pd.read_csv(folder / "table.csv").set_index(["method", "mode", "step"])
    for mode in ("omniglot", "fc100"):
        member = read(CLASSIFICATION, "laptop").frame
        member = member[(member["method"] == "single") & (member["set"] == f"{mode}-5w1s")]
        expected = member[member["step"] == 2]["value"].mean()
        found = values.loc[("Multi-MAML", mode, "adapted"), "mean"]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    differences = pd.read_csv(folder / "differences.csv")
    assert {"Multi-MAML", "MMAML (FiLM)"} <= set(differences["method"])


def test_the_page_is_one_file_that_begins_with_the_claims(project, monkeypatch):
    picture = [("plots/some.png", "A picture")]
    monkeypatch.setattr(report, "draw", lambda numbers, directory: {"Training": picture})
    for make in MAKERS:
        folder = write(make())
        (folder / "plots").mkdir()
        (folder / "plots/some.png").write_bytes(b"picture")
    text = page.assemble(Path("results/laptop"))
    assert not re.search(r'(?:src|href)="(?!data:|#)', text) and "url(" not in text
    assert text.count("data:image/png;base64,") == len(MAKERS)
    anchors = re.findall(r'<a href="#([^"]+)"', text)
    assert len(anchors) > 20 and all(f'id="{anchor}"' in text for anchor in anchors)
    first = text.index("Results beside the published ones</h3>")
    assert text.index("MMAML (FiLM) above MAML") < first and text.index("<svg") < first
    assert "prefers-color-scheme: dark" in text
    rows = {
        name: {(r["set"], r["baseline"]): r for r in claims.judge(d, Path("results/laptop", name))}
        for name, d in DOMAINS.items()
    }
    assert rows["regression"]["2", "MAML"]["verdict"] == claims.HOLDS
    np.testing.assert_allclose(rows["regression"]["2", "MAML"]["theirs"], 1.085 - 0.336)
    assert 0.8 < rows["regression"]["2", "MAML"]["mean"] < 1.2  # less error is an advantage
    assert rows["regression"]["5", "MAML"]["verdict"] == claims.NOT_RUN
    assert rows["classification"]["2-5w1s", "MAML"]["trained"] == "40 of 60,000"
    assert rows["classification"]["2-5w1s", "Multi-MAML"]["verdict"] == claims.OPPOSITE
    assert rows["reinforcement"]["point_mass-2", "ProMP"]["theirs"] == 397 - 136


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1, 2, 0.5), claims.HOLDS), ((-1, -2, 0.5), claims.HOLDS), ((1, -2, 0.5), claims.OPPOSITE),
        ((1, 0.4, 0.5), claims.OPEN), ((1, 2, np.nan), claims.OPEN),
        ((1, np.nan, np.nan), claims.NOT_RUN),
    ],
)  # fmt: skip
def test_a_claim_is_judged_by_sign_and_interval(values, expected):
    assert claims.verdict(*values) == expected


@pytest.mark.usefixtures("no_pictures")
def test_remarks_hold_under_their_condition(project):
    with_fc100 = write(classification(("omniglot", "fc100"))) / "table.md"
    text = with_fc100.read_text()
    assert "inverts the colours of FC100" in text and "Aircraft" not in text
    shutil.rmtree("results")
    text = (write(classification(("omniglot", "aircraft"))) / "table.md").read_text()
    assert "loses one test class of Aircraft" in text and "FC100" not in text


def test_every_remark_can_be_written():
    for folder in WITH_SCORES:
        found = read(DOMAINS[folder.name], folder.parent.name, ROOT / "results")
        written = facts.remarks(facts.collect(found, PARAMS), folder.name)
        assert all(written[place] for place in facts.PLACES)


def test_pictures_of_what_was_not_kept_come_from_the_records(project):
    results = regression()
    for name in ("film_2", "maml_2"):
        path = results.folder / "scores" / f"{name}-0.npz"
        with np.load(path) as file:
            kept = {k: file[k] for k in file if not k.startswith(("example", "map", "conf"))}
        np.savez(path, **kept)
    records = results.folder / "records"
    records.mkdir()
    for name in ("embeddings.png", "functions_2.png", "unknown.png"):
        (records / name).write_bytes(b"picture")
    section = (write(results) / "section.html").read_text()
    assert set(re.findall(r'src="records/([^"]+)"', section)) == {
        "embeddings.png",
        "functions_2.png",
    }
    assert section.count("Drawn by an earlier version of the report") == 4  # with the alt texts


@pytest.mark.parametrize(("modes", "steps"), [([None], range(5)), (["a", "bc"], [None])])
def test_learned_rates_are_drawn_for_the_runs_that_have_some(project, modes, steps):
    rates = [
        {"mode": mode, "variable": f"mlp/dense/{part}", "step": step, "mean": 0.1 * i}
        for i, (mode, part, step) in enumerate(product(modes, ("kernel", "bias"), steps))
    ]
    results = regression()
    path = results.folder / "metrics/maml_2-0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"learned_rates": rates}))
    found = rates_of.learned_rates(tables.Numbers(read(REGRESSION, "laptop"), []), results.folder)
    assert [figure.name for figure in found] == ["rates_maml_2-0.png"]
    assert (results.folder / "rates_maml_2-0.png").stat().st_size > 1000
    assert ("the same in all steps" in found[0].caption) == (None in steps)


def test_a_report_without_scores_stays_as_it_is(project):
    results = regression()
    (results.folder / "table.md").write_text("a record")
    shutil.rmtree(results.folder / "scores")
    with pytest.raises(SystemExit, match="is a record of an earlier version"):
        write(results)
    assert (results.folder / "table.md").read_text() == "a record"


def test_what_is_missing_is_named(project):
    results = regression()
    with pytest.raises(SystemExit, match="multi_maml_2 was not evaluated at laptop scale"):
        write(results, partial=False)
    with pytest.raises(SystemExit, match="no results/paper/<domain>/section"):
        page.assemble(Path("results/paper"))


@pytest.mark.parametrize("change", [{"held_out_digest": "e" * 64}, {"ways": {"omniglot": 4}}])
def test_other_tasks_are_not_compared(project, change):
    results = classification(("omniglot", "fc100"))
    path = results.folder / "metrics/film-2-5w1s-0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SystemExit, match="were evaluated on different tasks"):
        write(results)


@pytest.mark.parametrize("folder", WITH_SCORES, ids=lambda folder: "-".join(folder.parts[-2:]))
def test_committed_tables_are_those_of_the_committed_scores(folder, tmp_path):
    domain = DOMAINS[folder.name]
    found = read(domain, folder.parent.name, ROOT / "results")
    numbers = tables.Numbers(found, domain.cells(PARAMS))
    tables.write_table(numbers, tmp_path / "table.csv")
    tables.write_differences(numbers, tmp_path / "differences.csv")
    for name in ("table.csv", "differences.csv"):
        assert (tmp_path / name).read_text() == (folder / name).read_text()


def test_a_regression_method_must_be_known():
    params = {"regression": PARAMS["regression"] | {"evaluated": ["film_3x"]}}
    params["regression"]["cells"] = PARAMS["regression"]["cells"] | {
        "film_3x": PARAMS["regression"]["cells"]["film_3"]
    }
    with pytest.raises(SystemExit, match="expected <kind>_3 for a cell of 3 modes"):
        REGRESSION.cells(params)


def test_kept_embeddings_tell_the_modes_apart():
    rng, mode = np.random.default_rng(0), np.repeat([0, 1, 2], 10)
    values = rng.normal(size=(30, 5)) + 20 * mode[:, None]
    kept = embedding_maps.arrays("classification", values, mode)
    assert kept["map"].shape == (30, 2) and kept["silhouette"] > 0.8
    np.testing.assert_array_equal(kept["confusion"], 5 * np.eye(3, dtype=int))
    one = embedding_maps.arrays("reinforcement", values[:10], mode[:10])
    assert "silhouette" not in one
    again = embedding_maps.arrays("classification", values, mode)
    np.testing.assert_array_equal(again["map"], kept["map"])
