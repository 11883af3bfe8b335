import csv
import json

import numpy as np
import pytest
import reports
from reports import (
    estimate,
    markdown_tables,
    parts_of,
    pictures_of,
    rows_of,
    rows_of_markdown,
)
from repository import stages

from mmaml_tf.tasks import class_split
from pipelines import embedding_maps, report_images, report_images_inputs, report_page

# Aircraft has no images here, and flowers stand in.
MODES = ("omniglot", "mini_imagenet", "fc100", "cub", "flowers")
CURVE = (0, 1, 5, 10)
LEVELS = {"maml": 0.5, "film": 0.6, "film_body": 0.62, "protonet": 0.55, "single": 0.65}
LEVELS |= {"film_clip": 0.63, "maml_clip": 0.52}
WAYS = {"flowers": 16, "cub": 20}  # at most


class Inputs(reports.Inputs):
    """Synthetic outputs of the stages before the report, in the working directory."""

    def __init__(self, seeds=(0,), tasks=20, scale="laptop", **trained):
        super().__init__("classification", seeds, scale)
        self.trained = self.params["classification"]["trained"]
        self.trained |= trained
        self.tasks = tasks

    def write(self):
        self.write_params()
        (self.models / "modes").mkdir()
        for name in [*self.trained["mode_sets"], *self.trained["members"]]:
            self.modes(name, self.modes_of(name))
        for protocol in self.trained["protocols"]:
            for seed in self.params["seeds"]:
                for mode_set in self.trained["mode_sets"]:
                    for method in self.trained["methods"]:
                        self.model(method, mode_set, protocol, seed)
                for member in self.trained["members"]:
                    self.model("single", member, protocol, seed)
        return self

    def modes(self, name, modes, left_out=()):
        stand_ins = {"aircraft": "flowers"} if "flowers" in modes else {}
        found = {"modes": dict.fromkeys(modes, "00"), "stand_ins": stand_ins}
        found["left_out"] = list(left_out)
        (self.models / "modes" / f"{name}.json").write_text(json.dumps(found))

    def modes_of(self, name):
        wanted = self.params["classification"]["mode_sets"][name]
        return ["flowers" if mode == "aircraft" else mode for mode in wanted]

    def model(self, method, mode_set, protocol, seed=0, tasks=None, digest=None):
        """Writes a model's evaluation and history."""
        name, modes = f"{method}-{mode_set}-{protocol}", self.modes_of(mode_set)
        rng = np.random.default_rng([seed, *name.encode()])
        asked = int(protocol.partition("w")[0])
        ways = {mode: min(asked, WAYS.get(mode, asked)) for mode in modes}
        mode = np.repeat(np.arange(len(modes), dtype=np.int32), tasks or self.tasks)
        chance = np.array([1 / ways[m] for m in modes])[mode]
        steps = 0 if method == "protonet" else 1 if name.startswith("single-omniglot-5") else 5
        reached = np.array([0, 0.6, 1, 1])[:, None] if steps else np.ones((4, 1))
        level = LEVELS[method] / (1 + 0.3 * mode) * 5 / asked
        accuracy = chance + (level - chance / 2) * reached
        accuracy = np.clip(accuracy + rng.normal(0, 0.08, (4, len(mode))), 0, 1)
        arrays = {"accuracy": accuracy, "loss": (1 - accuracy).astype("f4"), "mode": mode}
        arrays |= {"modes": np.array(modes), "steps": steps, "curve": np.array(CURVE)}
        if method == "film":
            centres = 4 * np.random.default_rng(5).normal(size=(5, 64))
            centres[2] = centres[1]  # mini-ImageNet and FC100 are not told apart
            own = np.array([MODES.index(m) for m in modes])[mode]
            noise = rng.normal(size=(len(mode), 64))
            arrays |= {"embeddings": (centres[own] + noise).astype("f4"), "embeddings_mode": mode}
        np.savez(self.models / "evaluation" / f"{name}-{seed}.npz", **arrays)
        metrics = {"cell": name, "seed": seed, "iterations": 300 if method == "single" else 400}
        metrics |= {"ways": ways, "inner_steps": steps}
        metrics["skipped_updates"] = 3 if name == "maml-2-5w1s" else 0
        metrics["held_out_digest"] = digest or f"digest of {mode_set} {protocol}"
        (self.results / "metrics" / f"{name}-{seed}.json").write_text(json.dumps(metrics))
        best = 200 if method == "film" else metrics["iterations"]
        self.history(name, seed, metrics["iterations"], best, np.mean(chance))

    def history(self, name, seed, iterations, best, chance):
        with open(self.results / "history" / f"{name}-{seed}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "accuracy", "loss", "skipped", "validation_score"])
            for step in range(20, iterations + 1, 20):
                accuracy = chance + 0.4 * (1 - np.exp(-step / 150))
                score = accuracy - 0.05 + (0.1 if step == best else 0)
                writer.writerow([step, accuracy, 1, 0, score if step % 100 == 0 else ""])

    def images(self, queries=5):
        """Writes prepared images of the test classes."""
        size = self.params["scales"][self.scale]["classification"]["image_size"]
        for index, mode in enumerate(MODES):
            directory = self.models / "images" / mode
            directory.mkdir(parents=True)
            classes = class_split(mode).test
            channels = 1 if mode == "omniglot" else 3
            images = np.zeros((len(classes), 1 + queries, size, size, channels), np.uint8)
            # The brightness tells the class, the corner the mode.
            images += np.linspace(20, 250, len(classes)).astype(np.uint8)[:, None, None, None, None]
            images[:, :, : 4 + index, : 4 + index] = 0
            np.save(directory / f"{mode}-{size}.npy", images.reshape(-1, size, size, channels))
            about = {"format": 1, "channels": channels, "digest": "00", "sha256": "00"}
            about["classes"] = [[name, 1 + queries] for name in classes]
            (directory / f"{mode}-{size}.json").write_text(json.dumps(about))
            altered = {"not_as_published": ["one.tgz", "two.mat"] if mode == "cub" else []}
            (directory / "status.json").write_text(json.dumps({"images": 10000} | altered))


def run(monkeypatch, *options, scale="laptop"):
    reports.run(monkeypatch, report_images, *options, scale=scale)


def percent(values, mode=None, sign=""):
    mean, interval = estimate(values, mode)
    return f"{100 * mean:{sign}.1f} ± {100 * interval:.1f}"


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The whole report of one seed, written once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("report"))
        inputs = Inputs().write()
        inputs.images()
        run(patch)
        reports.run(patch, report_page)
        inputs.models, inputs.results = inputs.models.absolute(), inputs.results.absolute()
        yield inputs


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two methods and one protocol, without images; nothing is drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report_images, "draw", lambda *arguments: None)
    return lambda **settings: Inputs(
        **{"protocols": ["5w1s"], "mode_sets": ["2"], "methods": ["maml", "film"]} | settings
    ).write()


def test_headline_table_has_the_arrays_numbers_beside_the_published_ones(full):
    table = markdown_tables(full.results / "table.md")[0]
    arrays = full.arrays("film-3-5w5s")
    assert table["3 modes, MMAML (FiLM)"][2] == percent(arrays["accuracy"][2], arrays["mode"])
    assert table["3 modes, MMAML (FiLM)"][1::2] == ["57.47", "70.15", "36.27"]
    arrays = full.arrays("protonet-2-20w1s")
    assert table["2 modes, Prototypical network"][4] == percent(
        arrays["accuracy"][0], arrays["mode"]
    )
    assert table["2 modes, Prototypical network"][1::2] == ["–"] * 3
    found = [cell for row in table.values() for cell in row[1::2] if cell not in ("–", "--:")]
    assert len([cell for cell in found if cell.replace(".", "").isdigit()]) == 27


def test_files_that_are_not_the_published_ones_are_named(full):
    text = (full.results / "table.md").read_text()
    assert "by their checksums, and may hold other images: cub (one.tgz, two.mat)." in text


def test_settings_other_than_the_published_ones_are_named(small, monkeypatch):
    inputs = small()
    run(monkeypatch)
    rates = "inner 0.05, its gradient clipped to elements of 20.0; outer 0.001 (Adam), its gradient"
    text = (inputs.results / "table.md").read_text()
    assert f"{rates} not clipped." in text
    assert "other than the published" not in text
    settings = inputs.params["classification"]
    settings["defaults"] |= {"outer_clip": 2.0, "first_order": True}
    settings["splits"] = {"omniglot": "vinyals"}
    inputs.write_params()
    run(monkeypatch)
    text = (inputs.results / "table.md").read_text()
    assert f"{rates} clipped to a norm of 2.0." in text
    assert (
        "other than the published ones: first_order True (published: False), outer_clip 2.0 "
        "(published: None), the split 'vinyals' of omniglot."
    ) in text


def joined(full, modes, protocol, step=None):
    """The members' accuracies, after their own inner steps or after `step`."""
    members = []
    for mode in modes:
        arrays = full.arrays(f"single-{'aircraft' if mode == 'flowers' else mode}-{protocol}")
        chosen = CURVE.index(int(arrays["steps"]) if step is None else step)
        members.append(arrays["accuracy"][chosen])
    return np.concatenate(members)


def test_multi_maml_joins_its_members_after_their_own_steps(full):
    values = joined(full, MODES, "5w1s")
    mode = np.repeat(np.arange(5), full.tasks)
    table = markdown_tables(full.results / "table.md")[0]
    assert table["5 modes, Multi-MAML"][0] == percent(values, mode) + "³"
    # One step is not five for the member of Omniglot, in its 5-way tasks alone.
    assert not np.allclose(values, joined(full, MODES, "5w1s", 5))
    rows = {
        (r["method"], r["modes"], r["protocol"], r["mode"]): r
        for r in rows_of(full.results / "table.csv")
    }
    row = rows["Multi-MAML", "5", "5w1s", "all"]
    assert row["inner_steps"] == "1/5"
    assert float(row["accuracy"]) == pytest.approx(values.mean(), rel=1e-5)
    for step in CURVE:
        after = joined(full, MODES, "5w1s", step).mean()
        assert float(row[f"accuracy_{step}_steps"]) == pytest.approx(after, rel=1e-5)
    row = rows["Multi-MAML", "5", "20w1s", "flowers"]
    assert (row["inner_steps"], row["ways"], row["tasks"]) == ("5", "16", str(full.tasks))


def test_differences_are_paired(full):
    rows = {
        (r["method"], r["reference"], r["modes"], r["protocol"], r["mode"]): r
        for r in rows_of(full.results / "differences.csv")
    }
    film = full.arrays("film-3-5w1s")
    paired = joined(full, MODES[:3], "5w1s") - film["accuracy"][2]
    found = rows["Multi-MAML", "MMAML (FiLM)", "3", "5w1s", "all"]
    values = [float(found[name]) for name in ("mean", "ci95")]
    np.testing.assert_allclose(values, estimate(paired, film["mode"]), rtol=1e-4)
    found = rows["Multi-MAML", "MMAML (FiLM)", "3", "5w1s", "fc100"]
    assert float(found["mean"]) == pytest.approx(paired[film["mode"] == 2].mean(), rel=1e-4)
    table = markdown_tables(full.results / "table.md")[-1]
    assert table["3 modes, Multi-MAML"][1] == percent(paired, film["mode"], "+")
    assert table["3 modes, MAML"][0] == "–"


def test_chance_is_the_mean_over_modes(full):
    chance = markdown_tables(full.results / "table.md")[1]["5 modes, MAML"][6:]
    arrays = full.arrays("maml-5-20w1s")
    mean, interval = estimate(arrays["accuracy"][2], arrays["mode"])
    expected = (4 / 20 + 1 / 16) / 5
    assert chance[:2] == [f"{100 * expected:.1f}", f"{100 * (mean - interval):.1f}"]
    assert chance[2] == "yes"


def test_what_is_not_as_published_is_told(full):
    text = (full.results / "table.md").read_text()
    assert "flowers stands in for aircraft" in text
    assert "flowers in 20w1s: 16 ways" in text and "flowers in 5w1s" not in text
    assert "MAML, 2 modes, 5w1s: 3 of 400" in text
    assert "mini_imagenet 10000 (published: 60000)" in text and "flowers 10000" in text
    assert "300 of 4 or 10 for each member" in text
    assert "Multi-MAML 1 for omniglot in 5w1s" in text
    table = markdown_tables(full.results / "table.md")[0]
    assert table["5 modes, MAML"][4].endswith("¹³") and table["5 modes, MAML"][0].endswith("³")
    assert table["2 modes, MAML"][0].endswith("²") and table["2 modes, MAML"][2][-1].isdigit()
    by_mode = markdown_tables(full.results / "table.md")[4]
    flowers = full.arrays("film-5-20w1s")["accuracy"][2, -full.tasks :]
    assert by_mode["5 modes, flowers (16-way)"][2] == percent(flowers)
    assert "5 modes, cub" in by_mode


def test_summary_has_the_chosen_iterations_and_the_confusion(full):
    summary = json.loads((full.results / "summary.json").read_text())
    assert summary["chosen_iterations"]["film-2-5w1s-0"] == [200]
    assert summary["chosen_iterations"]["multi_maml-3-5w1s-0"] == [300] * 3
    assert summary["held_out_digests"]["3-5w5s"] == "digest of 3 5w5s"
    assert summary["nearest_centroid_accuracy"]["2"] == 1
    assert 0.5 < summary["nearest_centroid_accuracy"]["3"] < 1
    assert summary["not_run"] == summary["not_above_chance"] == []


def test_confusion_classifies_the_second_half_by_centroids_of_the_first():
    # Interleaved modes; the last of the first has strayed to the other.
    mode = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    values = np.array([0, 10, 2, 12, 1, 11, 9, 11.0])[:, None]
    embeddings = embedding_maps.Embeddings(values, mode, ["a", "b"])
    assert embedding_maps.confusion(embeddings).tolist() == [[1, 1], [0, 2]]


def test_all_pictures_are_on_the_page_and_small(full):
    names = {"training_curves", "inner_steps", "embeddings", "confusions", "episodes"}
    files = {path.stem: path.read_bytes() for path in (full.results / "plots").iterdir()}
    assert set(files) == names
    assert sum(map(len, files.values())) < 500_000
    page = (full.results.parent / "report.html").read_text()
    # One more shows the embeddings of all domains.
    assert page.count('<img src="data:image/png;base64,') == len(names) + 1


def test_example_tasks_show_each_class_beside_its_queries(full, monkeypatch):
    monkeypatch.chdir(full.results.parents[2])
    files = report_images_inputs.Files("laptop")
    cells = report_images_inputs.table_cells(full.params, files)
    results = report_images_inputs.load(full.params, files, cells)
    examples, why = report_images.example_tasks(full.params, results)
    assert list(examples) == list(MODES) and not why
    for example in examples.values():
        brightness = example.support[:, -1, -1, 0]
        assert len(set(brightness.tolist())) == 5, "one image of each class"
        queries = example.query[:, -1, -1, 0]
        if example is not examples["omniglot"]:  # whose images are turned
            np.testing.assert_array_equal(queries, brightness[example.labels])


def test_images_that_are_not_there_are_named(small, monkeypatch):
    inputs = small(mode_sets=["3"])
    run(monkeypatch)
    assert "Not shown: omniglot is not prepared" in (inputs.results / "section.html").read_text()


def test_several_seeds_are_summarised_over_seeds(small, monkeypatch):
    inputs = small(seeds=(0, 1, 2))
    run(monkeypatch)
    means = [inputs.arrays("film-2-5w1s", seed)["accuracy"][2].mean() for seed in range(3)]
    table = markdown_tables(inputs.results / "table.md")[0]
    expected = f"{100 * np.mean(means):.1f} ± {100 * np.std(means, ddof=1):.1f}"
    assert table["2 modes, MMAML (FiLM)"][0] == expected


def test_a_missing_input_is_named_with_its_stage(small, monkeypatch):
    inputs = small()
    (inputs.models / "evaluation/single-omniglot-5w1s-0.npz").unlink()
    with pytest.raises(SystemExit) as error:
        run(monkeypatch)
    assert str(inputs.models / "evaluation/single-omniglot-5w1s-0.npz") in str(error.value)
    stages_file = "stages/classification/dvc.yaml"
    stage = f"{stages_file}:evaluate_image_members@laptop-single-omniglot-5w1s-0"
    assert f"dvc repro {stage}`" in str(error.value)
    assert "--partial" in str(error.value)
    (inputs.results / "history/maml-2-5w1s-0.csv").unlink()
    with pytest.raises(SystemExit, match=r"train_images@laptop-maml-2-5w1s-0`\. 1 more"):
        run(monkeypatch)
    (inputs.models / "modes/2.json").unlink()
    with pytest.raises(SystemExit, match=f"dvc repro {stages_file}:mode_sets@laptop`"):
        run(monkeypatch, "--partial")


def test_stages_that_make_inputs_exist(small):
    inputs = small()
    for path in inputs.models.glob("evaluation/*"):
        path.unlink()
    for path in inputs.results.glob("history/*"):
        path.unlink()
    files = report_images_inputs.Files("laptop")
    cells = report_images_inputs.table_cells(inputs.params, files)
    missing = files.missing(inputs.params, cells).values()
    names = {stage.rpartition(":")[2].partition("@")[0] for stage in missing}
    assert names <= set(stages()) and len(names) == 4


def test_partial_reports_what_there_is_and_twice_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = Inputs(protocols=["5w1s", "20w1s"], mode_sets=["2", "3"], scale="paper").write()
    for name in ("single-fc100-5w1s", "protonet-2-20w1s", "film-2-5w1s"):
        (inputs.models / f"evaluation/{name}-0.npz").unlink()
    (inputs.results / "history/maml-2-5w1s-0.csv").unlink()
    outputs = []
    for _ in range(2):
        run(monkeypatch, "--partial", scale="paper")
        outputs.append(reports.written())
    assert outputs[0] == outputs[1]
    assert any(path.suffix == ".png" for path in outputs[0])
    table = markdown_tables(inputs.results / "table.md")[0]
    assert table["3 modes, Multi-MAML"][0] == "not run"
    assert table["2 modes, Multi-MAML"][0] != "not run"
    assert json.loads((inputs.results / "summary.json").read_text())["not_run"] == [
        "multi_maml-3-5w1s", "film-2-5w1s", "protonet-2-20w1s",
    ]  # fmt: skip


def test_scores_that_were_kept_are_enough_for_all_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = Inputs(protocols=["5w1s"], mode_sets=["2", "3"], scale="paper").write()
    run(monkeypatch, "--partial", scale="paper")
    names = ("table.md", "table.csv", "differences.csv")
    whole = [(inputs.results / name).read_bytes() for name in names]
    before = json.loads((inputs.results / "summary.json").read_text())
    inputs.keep_scores_alone(["accuracy", "loss"])
    for _ in range(2):
        run(monkeypatch, "--partial", scale="paper")
        summary = json.loads((inputs.results / "summary.json").read_text())
        numbers = before["nearest_centroid_accuracy"]
        assert summary["nearest_centroid_accuracy"] == {} != numbers
        assert summary["of_an_earlier_report"] == {"nearest_centroid_accuracy": numbers}
    assert [(inputs.results / name).read_bytes() for name in names] == whole
    new, earlier = parts_of(inputs.results / "section.html")
    assert pictures_of(earlier) == {"embeddings.png", "confusions.png"}
    assert "MMAML (FiLM): the arrays of its evaluation are not here." in new


def test_nothing_at_all_can_be_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = Inputs(protocols=["5w1s"]).write()
    for path in (inputs.models / "evaluation").iterdir():
        path.unlink()
    run(monkeypatch, "--partial")
    assert markdown_tables(inputs.results / "table.md")[0]["2 modes, MAML"][0] == "not run"


def test_modes_without_images_are_left_out(small, monkeypatch):
    inputs = small(mode_sets=["2", "3"], members=["omniglot", "mini_imagenet"])
    inputs.modes("2", [], left_out=["omniglot", "mini_imagenet"])
    for name in ("maml-2-5w1s-0", "film-2-5w1s-0"):
        np.savez(inputs.models / "evaluation" / f"{name}.npz")
        metrics = inputs.results / "metrics" / f"{name}.json"
        metrics.write_text(json.dumps({"left_out": True}))
    run(monkeypatch)
    table = markdown_tables(inputs.results / "table.md")[0]
    assert table["2 modes, MAML"][0] == "–" and table["3 modes, MAML"][0][0].isdigit()
    assert "3 modes, Multi-MAML" not in table, "one of its members is not trained"
    assert "omniglot is left out" in (inputs.results / "table.md").read_text()


def test_variants_are_compared_with_their_method(small, monkeypatch):
    inputs = small()
    run(monkeypatch, "--partial")
    assert "Ablations" not in (inputs.results / "section.html").read_text()
    inputs.model("film_body", "2", "5w1s")
    inputs.model("film", "2", "5w1s", seed=3)
    run(monkeypatch, "--partial")
    rows = rows_of_markdown(inputs.results / "table.md", "variant")
    cell = inputs.arrays("film-2-5w1s")
    for (name, seed), row in zip((("film", 3), ("film_body", 0)), rows, strict=True):
        variant = inputs.arrays(f"{name}-2-5w1s", seed)["accuracy"]
        change = "seed: 3 (not 0)" if seed else "blocks: [0, 1, 2] (not None)"
        both = [percent(accuracy[2], cell["mode"]) for accuracy in (variant, cell["accuracy"])]
        difference = percent(variant[2] - cell["accuracy"][2], cell["mode"], "+")
        assert row == [f"{name}-2-5w1s", "film-2-5w1s", change, *both, difference, "0 (0)"]
    found = json.loads((inputs.results / "summary.json").read_text())["ablations"]
    assert {name: list(cells) for name, cells in found.items()} == {
        "film-2-5w1s-3": ["film-2-5w1s"],
        "film_body-2-5w1s-0": ["film-2-5w1s"],
    }
    # With the same seed, where the method has it.
    for seed, of_cell, note in ((3, 3, "both"), (4, 0, "not 0")):
        inputs.model("film_body", "2", "5w1s", seed=seed)
        run(monkeypatch, "--partial")
        row = rows_of_markdown(inputs.results / "table.md", "variant")[-1]
        variant, of_method = (
            inputs.arrays(f"{name}-2-5w1s", s)["accuracy"][2]
            for name, s in (("film_body", seed), ("film", of_cell))
        )
        assert row[2] == f"blocks: [0, 1, 2] (not None), seed: {seed} ({note})"
        assert row[5] == percent(variant - of_method, cell["mode"], "+")
        (inputs.results / f"metrics/film_body-2-5w1s-{seed}.json").unlink()
    inputs.model("film_clip", "2", "5w1s")
    inputs.model("maml_clip", "2", "5w1s")
    run(monkeypatch, "--partial")
    rows = rows_of_markdown(inputs.results / "table.md", "variant")
    assert [row[:3] for row in rows[2:]] == [
        [
            "film_body-2-5w1s",
            "maml_clip-2-5w1s",
            "blocks: [0, 1, 2] (not None), modulation: film (not None), outer_clip: None (not 2.0)"
            ", method: MMAML (not MAML)",
        ],
        ["film_clip-2-5w1s", "film-2-5w1s", "outer_clip: 2.0 (not None)"],
        [
            "film_clip-2-5w1s",
            "maml-2-5w1s",
            "modulation: film (not None), outer_clip: 2.0 (not None), method: MMAML (not MAML)",
        ],
        [
            "film_clip-2-5w1s",
            "maml_clip-2-5w1s",
            "modulation: film (not None), method: MMAML (not MAML)",
        ],
        ["maml_clip-2-5w1s", "maml-2-5w1s", "outer_clip: 2.0 (not None)"],
    ]


def test_other_tasks_are_not_compared(small, monkeypatch):
    inputs = small()
    inputs.model("film", "2", "5w1s", digest="another")
    with pytest.raises(SystemExit, match="maml-2-5w1s-0 and film-2-5w1s-0 were evaluated on diff"):
        run(monkeypatch)
    inputs.model("film", "2", "5w1s")
    inputs.model("single", "omniglot", "5w1s", tasks=21)
    with pytest.raises(SystemExit, match="multi_maml-2-5w1s-0 were evaluated on different tasks"):
        run(monkeypatch)
    inputs.model("single", "omniglot", "5w1s")
    inputs.model("film_body", "2", "5w1s", digest="another")
    with pytest.raises(SystemExit, match="film-2-5w1s-0 and film_body-2-5w1s-0 were evaluated on"):
        run(monkeypatch)


def test_an_accuracy_of_guessing_is_not_above_chance(small, monkeypatch):
    inputs = small()
    arrays = inputs.arrays("film-2-5w1s")
    arrays["accuracy"] = np.random.default_rng(0).normal(0.2, 0.05, arrays["accuracy"].shape)
    np.savez(inputs.models / "evaluation/film-2-5w1s-0.npz", **arrays)
    run(monkeypatch)
    found = json.loads((inputs.results / "summary.json").read_text())["not_above_chance"]
    assert found == ["film-2-5w1s"]
    assert markdown_tables(inputs.results / "table.md")[1]["2 modes, MMAML (FiLM)"][2] == "no"


def test_the_report_needs_no_tensorflow_to_tell_what_is_missing(tmp_path):
    output = reports.run_without_inputs(tmp_path, "report_images")
    assert "mode_sets@laptop" in output and output.rstrip().endswith("False")
