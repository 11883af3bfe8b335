import base64
import csv
import html.parser
import json
import pathlib
import re

import numpy as np
import pytest
import reports
import yaml
from reports import (
    PARAMS,
    estimate,
    markdown_tables,
    parts_of,
    pictures_of,
    rows_of,
    rows_of_markdown,
)
from repository import stages

from mmaml_tf.tasks.held_out import HeldOut
from pipelines import report_data, report_page, report_regression

MODES = ("sinusoid", "linear", "quadratic", "tanh", "absolute")
LEVELS = {  # (before, after) adaptation
    "maml": (4.0, 1.1),
    "multi_maml": (5.0, 0.45),
    "lstm": (0.37, 0.37),
    "softmax": (1.6, 0.36),
    "film": (2.3, 0.33),
    "sigmoid": (1.9, 0.5),
    "film_layer1": (2.4, 0.4),
    "softmax_layer1": (2.0, 0.35),
}


class Inputs(reports.Inputs):
    """Synthetic outputs of the stages before the report, in the working directory."""

    def __init__(self, seeds=(0,), evaluated=None, tasks=24, scale="laptop", iterations=2000):
        super().__init__("regression", seeds, scale)
        if evaluated:
            self.params["regression"]["evaluated"] = list(evaluated)
        self.tasks, self.iterations = tasks, iterations

    def write(self):
        self.write_params()
        self._held_out(np.random.default_rng(99))
        for seed in self.params["seeds"]:
            for index, mode in enumerate(MODES):
                self._history(f"single_{mode}", [mode], seed, 0.5, np.random.default_rng(index))
            for index, name in enumerate(self.params["regression"]["evaluated"]):
                self._cell(name, seed, np.random.default_rng([seed, index]))
        return self

    def _held_out(self, rng):
        count, shape = 5 * self.tasks, (5 * self.tasks, 5, 1)
        x, y = rng.uniform(-5, 5, (2, *shape)).astype(np.float32)
        clean = rng.normal(size=shape).astype(np.float32)
        noisy = clean + 0.3 * rng.normal(size=shape).astype(np.float32)
        # Shuffled, so that choosing a mode set's tasks is not a matter of cutting them off.
        mode = rng.permutation(np.repeat(np.arange(5, dtype=np.int32), self.tasks))
        np.savez(
            self.models / "held_out.npz",
            modes=np.array(MODES), support_x=x, support_y=y, query_x=x, query_y=noisy, mode=mode,
            origin=np.array([7, 0]), target_noisy=noisy, target_noise_free=clean,
        )  # fmt: skip
        np.savez(
            self.models / "bayes.npz",
            log_evidence=rng.normal(-3, 3, (5, count)).astype(np.float32),
            mean=clean[None, ..., 0] + 0.4 * rng.normal(size=(5, count, 5)).astype(np.float32),
            effective=rng.uniform(2, 400, (5, count)).astype(np.float32),
            families=np.array(MODES),
        )
        description = {
            "digest": "ab" * 32,
            "distribution": {
                "modes": MODES, "support": 5, "query": 5, "noise": 0.3, "x_range": [-5.0, 5.0]
            },
            "tasks_per_mode": self.tasks,
            "bayes_particles_per_family": 20000,
        }  # fmt: skip
        (self.results / "held_out.json").write_text(json.dumps(description))

    def _cell(self, name, seed, rng):
        kind = name.rpartition("_")[0]
        modes = self.params["regression"]["cells"][name]["modes"]
        steps = 0 if kind == "lstm" else 5
        before, after = (value * len(modes) / 2 for value in LEVELS[kind])
        decay = np.exp(-0.7 * np.arange(11))[:, None]
        size = rng.gamma(1.2, size=(1, len(modes) * self.tasks))
        clean = (after + (before - after) * decay) * size * rng.uniform(0.8, 1.2, (11, size.size))
        mode = np.repeat(np.arange(len(modes), dtype=np.int32), self.tasks)
        arrays = {
            "losses_noisy": (clean + 0.09).astype(np.float32),
            "losses_noise_free": clean.astype(np.float32),
            "mode": mode,
            "modes": np.array(modes),
            "steps": steps,
        }
        if kind not in ("maml", "multi_maml"):
            centres = np.random.default_rng(5).normal(size=(5, 80))
            arrays["embeddings"] = (centres[mode] + rng.normal(size=(len(mode), 80))).astype("f4")
        arrays |= self._examples(modes, steps, after, rng)
        np.savez(self.models / "evaluation" / f"{name}-{seed}.npz", **arrays)
        skipped = 3 if name == "maml_2" else 0
        metrics = {"cell": name, "seed": seed, "iterations": self.iterations, "inner_steps": steps}
        metrics |= {"skipped_updates": skipped}
        (self.results / "metrics" / f"{name}-{seed}.json").write_text(json.dumps(metrics))
        if kind != "multi_maml":
            self._history(name, modes, seed, after, rng)

    def _examples(self, modes, steps, after, rng):
        same = np.random.default_rng(len(modes))
        slope, bias = same.uniform(-1, 1, (2, 3 * len(modes), 1))
        x = np.linspace(-5, 5, 101)
        mode = np.repeat(np.arange(len(modes)), 3)[:, None]

        def curve(x):
            return slope * 3 * np.sin(x + mode) + bias * (1 + 0.2 * x * mode)

        support = same.uniform(-5, 5, (3 * len(modes), 5))
        wrong = after * rng.normal(size=(len(slope), 1)) * np.cos(x)
        path = [curve(x) + wrong + 2 * np.exp(-0.5 * n) * np.sin(x / 2) for n in range(steps + 1)]
        return {
            "example_support_x": support[..., None],
            "example_support_y": curve(support)[..., None] + 0.3 * same.normal(size=(1, 5, 1)),
            "example_mode": mode[:, 0],
            "example_x": x,
            "example_truth": curve(x),
            "example_predictions": np.array(path),
        }

    def _history(self, name, modes, seed, after, rng):
        with open(self.results / "history" / f"{name}-{seed}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "loss", *(f"loss_{mode}" for mode in modes), "skipped"])
            every = max(100, self.iterations // 700 // 100 * 100)
            for step in range(every, self.iterations + 1, every):
                loss = (after + 20 * np.exp(-step / 300) + 2 * np.exp(-step / 4000)) * len(modes)
                loss *= rng.uniform(0.85, 1.15) / 2
                skipped = 2 if name == "single_linear" else 0
                writer.writerow([step, loss, *[loss] * len(modes), skipped])


def run(monkeypatch, *options, module=report_regression, scale="laptop"):
    reports.run(monkeypatch, module, *options, scale=scale)


def text(values, mode=None):
    return "{:.3f} ± {:.3f}".format(*estimate(values, mode))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The whole report of one seed, written once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("report"))
        inputs = Inputs().write()
        run(patch)
        run(patch, module=report_page)
        inputs.models, inputs.results = inputs.models.absolute(), inputs.results.absolute()
        yield inputs


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_headline_table_has_the_arrays_numbers_beside_the_published_ones(full):
    table, noise_free, per_mode, _ = markdown_tables(full.results / "table.md")
    three, five = full.arrays("film_3")["mode"], full.arrays("maml_5")["mode"]
    film = full.arrays("film_3")["losses_noisy"]
    before, after = (text(film[steps], three) for steps in (0, 5))
    assert table["MMAML (FiLM)"][4:8] == [before, "1.923", after, "0.444"]
    maml = full.arrays("maml_5")["losses_noisy"]
    assert table["MAML"][8:] == ["–", "–", text(maml[5], five), "1.668"]
    lstm = full.arrays("lstm_5")
    assert table["LSTM learner"][8:] == [text(lstm["losses_noisy"][0], five), "0.898", "–", "–"]
    assert noise_free["LSTM learner"][2] == text(lstm["losses_noise_free"][0], five)
    film_noise_free = full.arrays("film_3")["losses_noise_free"][5]
    assert noise_free["MMAML (FiLM)"][1] == text(film_noise_free, three)
    linear = film[5][three == 1]
    assert per_mode["MMAML (FiLM)"][3] == text(linear)
    assert table["MMAML (FiLM, layer 1 only)"][4:] == ["–"] * 8


def test_every_published_number_is_in_the_table(full):
    table = markdown_tables(full.results / "table.md")[0]
    published = {label: " ".join(row[1::2]) for label, row in table.items()}
    assert published["MAML"] == "– 1.085 – 1.231 – 1.668"
    assert published["Multi-MAML"] == "– 0.433 – 0.713 – 1.082"
    assert published["LSTM learner"] == "0.362 – 0.548 – 0.898 –"
    assert published["MMAML (softmax)"] == "1.548¹ 0.361¹ 2.213 0.444 2.421 0.939"
    assert published["MMAML (FiLM)"] == "2.421¹ 0.336¹ 1.923 0.444 2.166 0.868"
    assert published["MMAML (FiLM, layer 1 only)"] == "2.421¹ 0.336¹ – – – –"
    assert published["MMAML (sigmoid)"] == published["Bayes-optimal"] == "– – – – – –"


def test_skipped_updates_are_told(full):
    note = next(
        line for line in (full.results / "table.md").read_text().split("\n") if "²" in line[:4]
    )
    assert "finite: MAML, 2 modes: 3 of 2000" in note
    assert "Multi-MAML, 5 modes: 2 of 10000" in note  # what its member skipped


def test_bayes_rows_mix_the_families_of_the_mode_set(full):
    with (
        np.load(full.models / "held_out.npz") as held_out,
        np.load(full.models / "bayes.npz") as bayes,
    ):
        losses, sizes = [], []
        mode = held_out["mode"][held_out["mode"] < 3]
        for task in np.flatnonzero(held_out["mode"] < 3):
            odds = np.exp(bayes["log_evidence"][:3, task].astype(np.float64))
            odds /= odds.sum()
            mean = sum(odds[f] * bayes["mean"][f, task] for f in range(3))
            losses.append(np.mean((held_out["target_noisy"][task, :, 0] - mean) ** 2))
            sizes.append(1 / sum(odds[f] ** 2 / bayes["effective"][f, task] for f in range(3)))
    summary = json.loads((full.results / "summary.json").read_text())["bayes"]["3"]
    found = summary["overall"]["noisy"]
    np.testing.assert_allclose([found["mean"], found["ci95"]], estimate(losses, mode), rtol=1e-5)
    assert found["n"] == len(losses) == 3 * full.tasks
    size = summary["effective_sample_size"]
    np.testing.assert_allclose(
        [size["median"], size["percentile_5"]], np.percentile(sizes, [50, 5]), rtol=1e-5
    )
    table = markdown_tables(full.results / "table.md")[0]
    assert table["Bayes-optimal"][6] == text(losses, mode)


def test_table_csv_has_every_mode_and_target(full):
    rows = {(r["method"], r["modes"], r["mode"]): r for r in rows_of(full.results / "table.csv")}
    arrays = full.arrays("softmax_5")
    for mode in ("all", *MODES):
        row = rows["MMAML (softmax)", "5", mode]
        chosen = slice(None) if mode == "all" else arrays["mode"] == MODES.index(mode)
        for target in ("noisy", "noise_free"):
            for name, step in (("post_modulation", 0), ("post_adaptation", 5)):
                found = [float(row[f"{target}_{name}{end}"]) for end in ("", "_spread")]
                values = arrays[f"losses_{target}"][step, chosen]
                expected = estimate(values, arrays["mode"] if mode == "all" else None)
                np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert rows["MMAML (softmax)", "5", "all"]["published_post_adaptation"] == "0.939"
    assert rows["MAML", "2", "all"]["skipped_updates"] == "3"
    assert rows["MAML", "2", "all"]["noisy_post_modulation"] == ""
    assert ("MMAML (FiLM, layer 1 only)", "3", "all") not in rows


def test_differences_are_paired(full):
    rows = rows_of(full.results / "differences.csv")
    found = {(r["method"], r["reference"], r["modes"], r["mode"]): r for r in rows}
    ours, other = full.arrays("lstm_3"), full.arrays("film_3")
    paired = ours["losses_noisy"][0].astype(np.float64) - other["losses_noisy"][5]
    row = found["LSTM learner", "MMAML (FiLM)", "3", "all"]
    np.testing.assert_allclose(
        [float(row["mean"]), float(row["ci95"])], estimate(paired, ours["mode"]), rtol=1e-4
    )
    row = found["LSTM learner", "MMAML (FiLM)", "3", "quadratic"]
    np.testing.assert_allclose(float(row["mean"]), paired[ours["mode"] == 2].mean(), rtol=1e-4)
    assert int(row["n"]) == full.tasks
    assert ("Bayes-optimal", "MAML", "5", "all") in found
    assert ("MAML", "MAML", "5", "all") not in found


def test_tails_are_told(full):
    losses = np.sort(full.arrays("film_5")["losses_noisy"][5].astype(np.float64))
    median, worst = np.median(losses), losses[-(len(losses) // 100) :]
    found = markdown_tables(full.results / "table.md")[3]["MMAML (FiLM)"][2]
    assert found == f"{median:.3f}; {100 * worst.sum() / losses.sum():.0f}%"


def learned_rates(modes, steps):
    """Rates as evaluations leave them, of two weights."""
    return [
        {"mode": mode, "variable": f"mlp/dense/{part}", "step": step}
        | dict.fromkeys(("mean", "min", "max"), 0.1 * (1 + len(str(mode)) + (step or 0)))
        for mode in modes
        for part in ("kernel", "bias")
        for step in steps
    ]


@pytest.mark.parametrize(("modes", "steps"), [([None], range(5)), (["a", "bc"], [None])])
def test_learned_rates_are_drawn_for_the_runs_that_have_some(workspace, monkeypatch, modes, steps):
    inputs = Inputs(evaluated=["maml_2", "film_2"]).write()
    path = inputs.results / "metrics/maml_2-0.json"
    metrics = json.loads(path.read_text()) | {"learned_rates": learned_rates(modes, steps)}
    path.write_text(json.dumps(metrics))
    run(monkeypatch)
    pictures = sorted(p.name for p in (inputs.results / "plots").glob("rates_*"))
    assert pictures == ["rates_maml_2-0.png"]
    page = (inputs.results / "section.html").read_text()
    assert "Learned inner rates of maml_2-0" in page
    assert ("the same in all steps" in page) == (None in steps)


def test_variants_are_compared_with_their_cell(workspace, monkeypatch):
    inputs = Inputs(evaluated=["maml_2", "softmax_2", "film_2"]).write()
    run(monkeypatch)
    assert len(markdown_tables(inputs.results / "table.md")) == 4
    inputs._cell("softmax_layer1_2", 0, np.random.default_rng(50))
    inputs._cell("softmax_2", 3, np.random.default_rng(51))
    run(monkeypatch)
    rows = rows_of_markdown(inputs.results / "table.md", "variant")
    cell = inputs.arrays("softmax_2")["losses_noisy"][5].astype(np.float64)
    mode = inputs.arrays("softmax_2")["mode"]
    for (name, seed), (_, *row) in zip(
        (("softmax_2", 3), ("softmax_layer1_2", 0)), rows, strict=True
    ):
        variant = inputs.arrays(name, seed)["losses_noisy"][5].astype(np.float64)
        change = "seed: 3 (not 0)" if seed else "blocks: [0] (not None)"
        difference = "{:+.3f} ± {:.3f}".format(*estimate(variant - cell, mode))
        both = text(variant, mode), text(cell, mode)
        assert row == ["softmax_2", change, *both, difference, "0 (0)"]
    found = json.loads((inputs.results / "summary.json").read_text())["ablations"]
    assert set(found) == {"softmax_2-3", "softmax_layer1_2-0"}
    assert "softmax_layer1_2" in (inputs.results / "section.html").read_text()


def test_silhouette_is_that_of_the_raw_embeddings(full):
    scores = json.loads((full.results / "summary.json").read_text())["embedding_silhouette"]
    assert set(scores) == {"film_2-0", "film_3-0", "film_5-0"}
    arrays = full.arrays("film_3")
    points, mode = arrays["embeddings"].astype(np.float64), arrays["mode"]
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    values = []
    for i in range(len(points)):
        means = [distance[i, mode == m].mean() for m in range(3)]
        own = means[mode[i]] * full.tasks / (full.tasks - 1)  # without the point itself
        nearest = min(means[m] for m in range(3) if m != mode[i])
        values.append((nearest - own) / max(nearest, own))
    np.testing.assert_allclose(scores["film_3-0"], np.mean(values), rtol=1e-4)


class Loads(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.sources, self.anchors, self.links = set(), [], set(), []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        self.anchors.add(attrs.get("id"))
        self.links += [attrs["href"]] if "href" in attrs else []
        self.sources += [
            attrs[name] for name in ("src", "srcset", "data", "poster") if name in attrs
        ]


def test_page_needs_no_other_file(full):
    page = (full.results.parent / "report.html").read_text()
    loads = Loads()
    loads.feed(page)
    assert not loads.tags & {"script", "link", "iframe", "object", "embed", "base"}
    assert not re.search(r"url\(|@import", page)
    assert all(link.removeprefix("#") in loads.anchors for link in loads.links)
    names = {"training_curves", "adaptation_steps", "per_mode", "embeddings"}
    names |= {f"functions_{size}" for size in (2, 3, 5)}
    files = {path.stem: path.read_bytes() for path in (full.results / "plots").iterdir()}
    assert set(files) == names
    # That of all domains is the page's own.
    files["all"] = (full.results.parent / "embeddings/plots/embeddings.png").read_bytes()
    embedded = [
        base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in loads.sources
    ]
    assert sorted(embedded) == sorted(files.values())
    assert "Matplotlib" not in str(embedded[0][:400])


def test_several_seeds_are_summarised_over_seeds(workspace, monkeypatch):
    inputs = Inputs(seeds=(0, 1, 2), evaluated=["maml_2", "film_2"]).write()
    monkeypatch.setattr(report_regression, "draw", lambda *arguments: None)
    run(monkeypatch)
    means = [
        {name: inputs.arrays(name, seed)["losses_noisy"][5].astype(np.float64).mean()
         for name in ("maml_2", "film_2")}
        for seed in range(3)
    ]  # fmt: skip
    films = [m["film_2"] for m in means]
    table = markdown_tables(inputs.results / "table.md")[0]
    assert table["MMAML (FiLM)"][2] == f"{np.mean(films):.3f} ± {np.std(films, ddof=1):.3f}"
    assert "3 seeds (0, 1, 2)" in (inputs.results / "table.md").read_text()
    rows = rows_of(inputs.results / "differences.csv")
    rows = [
        r for r in rows
        if (r["method"], r["reference"], r["mode"]) == ("MMAML (FiLM)", "MAML", "all")
    ]  # fmt: skip
    assert [r["seed"] for r in rows] == ["0", "1", "2", "all"]
    differences = [m["film_2"] - m["maml_2"] for m in means]
    found = [float(r["mean"]) for r in rows]
    np.testing.assert_allclose(found, [*differences, np.mean(differences)], rtol=1e-4)
    assert float(rows[-1]["sd_over_seeds"]) == pytest.approx(np.std(differences, ddof=1), rel=1e-4)


def test_a_missing_input_is_named_with_its_stage(workspace, monkeypatch):
    inputs = Inputs(evaluated=["maml_2", "multi_maml_2"]).write()
    (inputs.models / "evaluation/multi_maml_2-0.npz").unlink()
    with pytest.raises(SystemExit) as error:
        run(monkeypatch)
    assert str(inputs.models / "evaluation/multi_maml_2-0.npz") in str(error.value)
    assert "dvc repro evaluate_multi_maml_2@laptop-multi_maml_2-0`" in str(error.value)
    assert "--partial" in str(error.value)
    (inputs.models / "evaluation/maml_2-0.npz").unlink()
    with pytest.raises(SystemExit, match=r"dvc repro evaluate@laptop-maml_2-0`\. 1 more"):
        run(monkeypatch)
    (inputs.models / "bayes.npz").unlink()
    with pytest.raises(SystemExit, match="dvc repro prepare@laptop`"):
        run(monkeypatch, "--partial")
    with pytest.raises(SystemExit, match=r"with `scale: paper` in params\.yaml"):
        run(monkeypatch, scale="paper")


def test_stages_that_make_inputs_exist():
    params = yaml.safe_load(PARAMS.read_text())
    cells = report_data.table_cells(params)
    missing = report_data.Files("paper-of-nowhere").missing(params, cells)
    names = {stage.rpartition(":")[2].partition("@")[0] for stage in missing.values()}
    assert names <= set(stages())
    assert len(names) == 6


def test_partial_reports_what_there_is_and_twice_the_same(workspace, monkeypatch):
    cells = ["maml_2", "film_2", "sigmoid_2", "maml_3", "film_3"]
    inputs = Inputs(seeds=(0, 1), evaluated=cells, scale="paper", tasks=12).write()
    for name in ("sigmoid_2-0", "sigmoid_2-1", "maml_3-0", "maml_3-1", "film_3-0", "maml_2-1"):
        (inputs.models / f"evaluation/{name}.npz").unlink()
    (inputs.results / "history/film_2-0.csv").unlink()
    outputs = []
    for _ in range(2):
        run(monkeypatch, "--partial", scale="paper")
        run(monkeypatch, module=report_page, scale="paper")
        outputs.append(reports.written())
    assert outputs[0] == outputs[1]
    table = markdown_tables(inputs.results / "table.md")[0]
    assert table["MMAML (sigmoid)"][:4] == ["not run", "–", "not run", "–"]
    assert table["MAML"][2].endswith(" (1 seed)²")
    assert table["MAML"][6] == "not run"
    assert json.loads((inputs.results / "summary.json").read_text())["not_run"] == [
        "sigmoid_2", "maml_3",
    ]  # fmt: skip
    rows = rows_of(inputs.results / "table.csv")
    assert [r["spread"] for r in rows if r["method"] == "MMAML (sigmoid)"] == ["not run"] * 3


def test_scores_that_were_kept_are_enough_for_all_tables(workspace, monkeypatch):
    inputs = Inputs(evaluated=["maml_2", "film_2", "maml_3", "film_3"], tasks=12).write()
    run(monkeypatch)
    names = ("table.md", "table.csv", "differences.csv")
    whole = [(inputs.results / name).read_bytes() for name in names]
    before = json.loads((inputs.results / "summary.json").read_text())["embedding_silhouette"]
    assert before.keys() == {"film_2-0", "film_3-0"}
    new = inputs.arrays("film_3")
    inputs.keep_scores_alone(["losses_noisy", "losses_noise_free"])
    run(monkeypatch, "--partial")
    assert [(inputs.results / name).read_bytes() for name in names] == whole
    new_part, earlier = parts_of(inputs.results / "section.html")
    assert pictures_of(new_part) >= {"adaptation_steps.png"}
    assert pictures_of(earlier) == {"embeddings.png", "functions_2.png", "functions_3.png"}
    assert new_part.count("MMAML (FiLM): the arrays of its evaluation are not here.") == 2
    # Beside them, one that was evaluated here is drawn.
    np.savez(inputs.models / "evaluation/film_3-0.npz", **new)
    run(monkeypatch, "--partial")
    new_part, earlier = parts_of(inputs.results / "section.html")
    assert pictures_of(new_part) >= {"embeddings.png", "functions_3.png"}
    assert pictures_of(earlier) == {"functions_2.png"}
    summary = json.loads((inputs.results / "summary.json").read_text())
    assert summary["embedding_silhouette"] == {"film_3-0": before["film_3-0"]}
    kept = {"embedding_silhouette": {"film_2-0": before["film_2-0"]}}
    assert summary["of_an_earlier_report"] == kept


def test_other_tasks_are_not_compared(workspace, monkeypatch):
    inputs = Inputs(evaluated=["maml_2", "film_2"], tasks=12).write()
    digest = HeldOut.load(inputs.models / "held_out.npz").only(MODES[:2]).digest()
    path = inputs.results / "metrics/film_2-0.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"held_out_digest": digest}))
    run(monkeypatch)
    path.write_text(json.dumps(metrics | {"held_out_digest": "other"}))
    with pytest.raises(SystemExit, match="film_2-0 was evaluated on other tasks"):
        run(monkeypatch)


def test_nothing_at_all_can_be_reported(workspace, monkeypatch):
    inputs = Inputs(evaluated=["maml_2", "film_2"]).write()
    for path in (inputs.models / "evaluation").iterdir():
        path.unlink()
    run(monkeypatch, "--partial")
    assert markdown_tables(inputs.results / "table.md")[0]["MAML"][2] == "not run"


def test_an_unknown_cell_is_an_error(workspace, monkeypatch):
    inputs = Inputs()
    inputs.params["regression"]["evaluated"] = ["single_tanh"]
    pathlib.Path("params.yaml").write_text(yaml.safe_dump(inputs.params))
    with pytest.raises(SystemExit, match="single_tanh"):
        run(monkeypatch)


def test_page_joins_domains_in_order_and_refuses_foreign_pictures(workspace, monkeypatch):
    results = pathlib.Path("results/smoke")
    pathlib.Path("params.yaml").write_text(PARAMS.read_text())
    # That of the embeddings, which the page writes itself, makes no page.
    report_page.write_domain(results / "embeddings" / "section.html", "E", [])
    with pytest.raises(SystemExit, match=r"section\.html"):
        run(monkeypatch, module=report_page, scale="smoke")
    for domain in ("zoo", "classification", "regression"):
        section = report_page.Section("A < B", report_page.paragraph(f"text & {domain}"))
        report_page.write_domain(results / domain / "section.html", domain, [section])
    run(monkeypatch, module=report_page, scale="smoke")
    page = (results / "report.html").read_text()
    domains = "regression", "classification", "embeddings", "zoo"
    order = [page.index(f'<article id="{domain}">') for domain in domains]
    assert order == sorted(order)
    assert "Regression, 5 modes: not run." in page
    assert "A &lt; B" in page and "text &amp; zoo" in page
    for source in ("https://example.org/x.png", "absent.png", "/x.png"):
        section = report_page.Section("P", report_page.figure(source, "caption"))
        report_page.write_domain(results / "zoo" / "section.html", "zoo", [section])
        with pytest.raises(SystemExit, match="no file beside it"):
            run(monkeypatch, module=report_page, scale="smoke")


def test_pictures_that_a_report_cannot_draw_stay_with_their_captions(tmp_path):
    path = tmp_path / "zoo" / "section.html"
    maps, curves, frames = (
        report_page.figure(f"plots/{name}.png", f"{name} & caption")
        for name in ("maps", "curves", "frames")
    )

    def write(*figures, drawn):
        (path.parent / "plots").mkdir(parents=True, exist_ok=True)
        for name in drawn:
            (path.parent / "plots" / f"{name}.png").write_bytes(name.encode())
        report_page.write_domain(path, "Zoo", [report_page.Section("S", "".join(figures))])
        pictures = sorted(file.stem for file in (path.parent / "plots").iterdir())
        return pictures, *parts_of(path)

    assert write(maps, curves, drawn=["maps", "curves"])[2] == ""
    for _ in range(2):  # also in the report after the next
        pictures, new, earlier = write(curves, drawn=["curves"])
        assert pictures == ["curves", "maps"]
        assert curves in new and maps not in new
        assert earlier.count("<figure>") == 1 and maps in earlier
    pictures, new, earlier = write(maps, frames, drawn=["maps", "frames"])
    assert pictures == ["curves", "frames", "maps"]
    assert maps in new and curves in earlier and maps not in earlier
    # Neither what nothing shows any more, nor what is shown but not there.
    path.unlink()
    assert write(frames, drawn=[]) == (["frames"], path.read_text(), "")
    (path.parent / "plots" / "frames.png").unlink()
    assert write(drawn=[])[::2] == ([], "")
