import csv
import json

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

from mmaml_tf.rl.goals import GoalTasks
from pipelines import policy_frames, report_page, report_policies, report_policies_inputs

HORIZONS = {"point_mass": 100, "reacher": 50, "ant": 250}
OBSERVATIONS = {"point_mass": 4, "reacher": 7, "ant": 29}
#: of an environment the return that is lost before adaptation, and of a method a part of it
SIZES = {"point_mass": 700.0, "reacher": 20.0, "ant": 1100.0}
LEVELS = {"promp": 0.7, "mmaml": 0.35, "single": 0.2}
EXAMPLES = 4


class Inputs(reports.Inputs):
    """Synthetic outputs of the stages before the report, in the working directory."""

    def __init__(self, seeds=(0,), tasks=10, scale="laptop", **trained):
        super().__init__("reinforcement", seeds, scale)
        self.trained = self.params["reinforcement"]["trained"]
        self.trained |= trained
        self.tasks = tasks

    def write(self):
        self.write_params()
        for seed in self.params["seeds"]:
            for name in self.trained["sets"]:
                for method in self.trained["methods"]:
                    self.model(f"{method}-{name}", seed)
            for name in self.trained["members"]:
                self.model(f"single-{name}", seed)
        return self

    def model(self, name, seed=0, tasks=None, goals_seed=7):
        """Writes a model's evaluation and history."""
        method, environment, modes = name.split("-")
        goals = GoalTasks(environment, int(modes) if modes.isdigit() else [modes])
        held_out = goals.held_out(tasks or self.tasks, goals_seed)
        rng = np.random.default_rng([seed, *name.encode()])
        steps = 3 if environment == "ant" else 2
        reached = 1 - 0.5 ** np.arange(steps + 1)[:, None]
        lost = 1 - (1 - LEVELS[method]) * reached + 0.05 * held_out.mode
        returns = -SIZES[environment] * (
            lost + rng.normal(0, 0.05, (steps + 1, len(held_out.mode)))
        )
        number = np.arange(len(held_out.mode)) % (tasks or self.tasks)
        chosen = number < EXAMPLES
        arrays = {"return": returns.astype("f4"), "mode": held_out.mode}
        arrays |= {"modes": np.array(goals.modes), "steps": steps, "curve": np.arange(steps + 1)}
        arrays |= {
            "examples_observations": observations(
                environment, held_out.goals.goal[chosen], 1 - lost[:, chosen], rng
            ),
            "examples_goals": held_out.goals.goal[chosen],
            "examples_mode": held_out.mode[chosen],
        }
        if method == "mmaml":
            centres = np.random.default_rng(5).normal(size=(6, 64))
            noise = rng.normal(size=(len(held_out.mode), 64))
            arrays["embeddings"] = (2 * centres[held_out.mode] + noise).astype("f4")
            arrays["embeddings_mode"] = held_out.mode
        np.savez(self.models / "evaluation" / f"{name}-{seed}.npz", **arrays)
        iterations = 30 if method == "single" else 40
        metrics = {"cell": name, "seed": seed, "iterations": iterations, "inner_steps": steps}
        metrics |= {
            "environment_steps": iterations * 8 * 10 * (steps + 1) * HORIZONS[environment],
            "rollouts": 20,
            "skipped_updates": 2 if name == "promp-reacher-2" else 0,
            "unstable_rollouts": 5 if name == "single-ant-deg180" else 0,
            "held_out_digest": held_out.digest(),
        }
        (self.results / "metrics" / f"{name}-{seed}.json").write_text(json.dumps(metrics))
        self.history(f"{name}-{seed}", iterations, steps, returns.mean(axis=1), rng)

    def history(self, name, iterations, steps, reached, rng):
        with open(self.results / "history" / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            names = [f"return_after_{step}" for step in range(steps + 1)]
            writer.writerow(["step", "kl", "loss", *names, "unstable", "skipped"])
            for step in range(1, iterations + 1):
                learned = 1 - np.exp(-step / 15)
                values = reached[0] + learned * (reached - reached[0])
                values = values + rng.normal(0, 0.03 * abs(reached[0]), len(values))
                writer.writerow([step, 0.01, 0.1, *values, 0, 0])


def observations(environment, goals, progress, rng):
    """Rollouts `[C, n, L, O]` that come as far to their goals as `progress` `[C, n]` says."""
    length = HORIZONS[environment]
    shape = (*progress.shape, length, 1)
    time = np.minimum(np.linspace(0, 2, length), 1)[:, None]
    way = progress[..., None, None] * time * goals[:, None, :2]
    noise = np.cumsum(rng.normal(0, 0.02, (*way.shape[:-1], 2)), axis=2)
    if environment == "point_mass":
        return np.concatenate([way + 2 * noise, np.gradient(way, axis=2)], axis=-1)
    if environment == "reacher":
        turn = progress[..., None] * time[..., 0] * np.arctan2(goals[:, 1], goals[:, 0])[:, None]
        angles = np.stack([turn, 0.5 * turn], axis=-1)
        rest = np.zeros((*shape[:-1], 3))
        return np.concatenate([np.cos(angles), np.sin(angles), rest], axis=-1)
    legs = np.broadcast_to(
        [0.6, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1, *[0] * 14], (*shape[:-1], 27)
    )
    return np.concatenate([way + noise, legs], axis=-1)


def run(monkeypatch, *options, scale="laptop"):
    reports.run(monkeypatch, report_policies, *options, scale=scale)


def text(values, mode=None, digits=1, sign=""):
    mean, interval = estimate(values, mode)
    return f"{mean:{sign}.{digits}f} ± {interval:.{digits}f}"


def fake_draw(environment, observations, goals):
    """Frames of one colour: the environment's first coordinate, and the goal's."""
    del environment
    frames = np.zeros((len(observations), 8, 8, 3), np.uint8)
    frames[..., 0] = np.clip(100 + 20 * observations[:, 0], 0, 255)[:, None, None]
    return frames


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The whole report of one seed, written once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("report"))
        patch.setattr(policy_frames, "draw", fake_draw)
        inputs = Inputs().write()
        run(patch)
        reports.run(patch, report_page)
        inputs.models, inputs.results = inputs.models.absolute(), inputs.results.absolute()
    return inputs


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two sets; nothing is drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report_policies, "draw", lambda *arguments: None)
    monkeypatch.setattr(policy_frames, "draw", fake_draw)
    sets = ["reacher-2", "point_mass-2"]
    return lambda **settings: Inputs(**{"sets": sets} | settings).write()


def test_headline_table_has_the_arrays_numbers_above_the_published_ones(full):
    table = markdown_tables(full.results / "table.md")[0]
    arrays = full.arrays("mmaml-point_mass-4")
    assert table["MMAML"][1] == text(arrays["return"][2], arrays["mode"])
    arrays = full.arrays("promp-ant-4")
    assert table["ProMP"][7] == text(arrays["return"][3], arrays["mode"], digits=0)
    arrays = full.arrays("mmaml-reacher-6")
    assert table["MMAML"][5] == text(arrays["return"][2], arrays["mode"], digits=2)
    assert table["method"] == [
        *(f"point mass: {n} modes" for n in (2, 4, 6)),
        *(f"reacher: {n} modes" for n in (2, 4, 6)),
        *(f"ant: {n} modes" for n in (2, 4)),
    ]
    assert table["ProMP, published"][:4] == ["-397 ± 20", "-523 ± 51", "-330 ± 10", "-12 ± 2"]
    assert table["Multi-ProMP, published"][5:] == ["-4.3 ± 0.1", "-624 ± 38", "-611 ± 31"]
    assert table["MMAML, published"][3:5] == ["-10 ± 1", "-11 ± 0.8"]


def joined(full, environment, modes, step):
    """The members' returns after `step` inner steps."""
    names = [f"single-{environment}-{mode}" for mode in modes]
    return np.concatenate([full.arrays(name)["return"][step] for name in names])


def test_multi_promp_joins_its_members(full):
    modes = ["deg45", "deg135", "deg225", "deg315"]
    mode = np.repeat(np.arange(4), full.tasks)
    values = joined(full, "reacher", modes, 2)
    table = markdown_tables(full.results / "table.md")[0]
    assert table["Multi-ProMP"][4] == text(values, mode, digits=2)
    rows = {
        (r["method"], r["environment"], r["modes"], r["mode"]): r
        for r in rows_of(full.results / "table.csv")
    }
    row = rows["Multi-ProMP", "reacher", "4", "all"]
    for step in range(3):
        mean, interval = estimate(joined(full, "reacher", modes, step), mode)
        assert float(row[f"return_{step}_steps"]) == pytest.approx(mean, rel=1e-5)
        assert float(row[f"return_{step}_steps_spread"]) == pytest.approx(interval, rel=1e-5)
    assert row["return_3_steps"] == "" and rows["MMAML", "ant", "2", "all"]["return_3_steps"]
    # Four members of 30 iterations, 8 tasks, 10 rollouts, 3 stages and 50 steps.
    assert row["environment_steps"] == str(4 * 30 * 8 * 10 * 3 * 50)
    row = rows["Multi-ProMP", "reacher", "4", "deg225"]
    own = full.arrays("single-reacher-deg225")["return"][2]
    assert float(row["return"]) == pytest.approx(own.mean(), rel=1e-5)
    assert (row["tasks"], row["seeds"], row["published"]) == (str(full.tasks), "1", "")


def test_differences_are_paired(full):
    rows = {
        (r["method"], r["reference"], r["environment"], r["modes"], r["mode"]): r
        for r in rows_of(full.results / "differences.csv")
    }
    mmaml, promp = full.arrays("mmaml-ant-2"), full.arrays("promp-ant-2")
    paired = mmaml["return"][3] - promp["return"][3]
    found = rows["MMAML", "ProMP", "ant", "2", "all"]
    values = [float(found[name]) for name in ("mean", "ci95")]
    np.testing.assert_allclose(values, estimate(paired, mmaml["mode"]), rtol=1e-4)
    paired = joined(full, "ant", ["deg180", "deg0"], 3) - promp["return"][3]
    found = rows["Multi-ProMP", "ProMP", "ant", "2", "deg0"]
    assert float(found["mean"]) == pytest.approx(paired[promp["mode"] == 1].mean(), rel=1e-4)
    table = markdown_tables(full.results / "table.md")[1]
    assert table["Multi-ProMP − ProMP"][6] == text(paired, promp["mode"], digits=0, sign="+")
    pairs = ["MMAML − ProMP", "MMAML − Multi-ProMP", "Multi-ProMP − ProMP"]
    assert [row for row in table if "−" in row] == pairs


def test_returns_of_every_mode_and_inner_step_are_shown(full):
    tables = markdown_tables(full.results / "table.md")[2:]
    arrays = full.arrays("promp-point_mass-6")
    row = tables[0]["6 modes, deg120"]
    assert len(row) == 3 * 3 and len(tables[2]["2 modes, all"]) == 3 * 4
    for step in range(3):
        assert row[step] == text(arrays["return"][step][arrays["mode"] == 2])
    arrays = full.arrays("mmaml-ant-4")
    assert tables[2]["4 modes, all"][8] == text(arrays["return"][0], arrays["mode"], digits=0)
    assert len(tables) == 3


def test_what_happened_is_told(full):
    text = (full.results / "table.md").read_text()
    assert "ProMP, reacher, 2 modes: 2 in 40 iterations" in text
    # Two members with 10 goals each, 20 rollouts and 4 stages.
    assert "Multi-ProMP, ant, 2 modes: 5 of 1600" in text
    table = markdown_tables(full.results / "table.md")[0]
    assert table["ProMP"][3].endswith("²") and table["Multi-ProMP"][6].endswith("¹")
    assert "for 1 seed (0)" in text
    assert "40 iterations (0.96 million environment steps)" in text


def test_summary_tells_the_modes_of_embeddings_apart(full):
    summary = json.loads((full.results / "summary.json").read_text())
    assert summary["nearest_centroid_accuracy"]["reacher-4"] == 1
    assert 0.2 < summary["embedding_silhouette"]["point_mass-6"] < 1
    digest = GoalTasks("ant", 4).held_out(full.tasks, 7).digest()
    assert summary["held_out_digests"]["ant-4"] == digest
    assert summary["not_run"] == [] and summary["modes"]["ant-2"] == ["deg180", "deg0"]


def test_all_pictures_are_on_the_page_and_small(full):
    names = {"learning_curves", "inner_steps", "trajectories", "frames_reacher", "frames_ant"}
    for environment in HORIZONS:
        names |= {f"embeddings_{environment}", f"confusions_{environment}"}
    files = {path.stem: path.read_bytes() for path in (full.results / "plots").iterdir()}
    assert set(files) == names
    assert sum(map(len, files.values())) < 700_000
    page = (full.results.parent / "report.html").read_text()
    # One more shows the embeddings of all domains.
    assert "Reacher, 4 modes: 40 of 40 held-out tasks" in page
    assert "Regression, 5 modes: not run." in page
    assert page.count('<img src="data:image/png;base64,') == len(names) + 1


def test_learning_curves_are_over_environment_steps(full, monkeypatch):
    monkeypatch.chdir(full.results.parents[2])
    files = report_policies_inputs.Files("laptop")
    cells = report_policies_inputs.table_cells(full.params)
    results = report_policies_inputs.load(full.params, files, cells)
    curve = results.runs("mmaml", "ant-2")[0].curve
    assert curve[-1, 0] == 40 * 8 * 10 * 4 * 250 and len(curve) == 40
    history = np.genfromtxt(files.history("mmaml-ant-2", 0), delimiter=",", names=True)
    np.testing.assert_allclose(curve[:, 1], history["return_after_3"])
    curve = results.runs("multi_promp", "point_mass-6")[0].curve
    assert curve[-1, 0] == 30 * 8 * 10 * 3 * 100


def test_states_of_the_reacher_are_those_that_were_observed():
    angles = np.array([[0.3, -2.0, 0.4], [3.0, 1.0, -1.0]])
    seen = np.concatenate([np.cos(angles[:, :2]), np.sin(angles[:, :2]), angles[:, 2:]], axis=1)
    seen = np.concatenate([seen, [[0.1, 0.2], [0.3, 0.4]]], axis=1)
    expected = np.concatenate([angles, [[0.1, 0.2, 0], [0.3, 0.4, 0]]], axis=1)
    np.testing.assert_allclose(policy_frames.states("reacher", seen), expected)
    with pytest.raises(ValueError, match="expected 'reacher' or 'ant'"):
        policy_frames.states("point_mass", seen)


def test_frames_show_the_arm_where_it_was_observed():
    """The last link, which is blue, points to the right, then away from the viewer."""
    straight = np.zeros((2, 7))
    straight[0, :2], straight[1, 1], straight[1, 2] = 1, 1, 1  # angles (0, 0) and (90°, 0)
    goals = np.array([[-0.2, -0.2, 0.03]] * 2)
    try:
        right, up = policy_frames.draw("reacher", straight, goals).astype(int)
    except policy_frames.CannotDrawError as error:
        pytest.skip(str(error))
    right, up = (
        np.argwhere(image[..., 2] > image[..., :2].max(axis=-1) + 40).mean(axis=0) / len(image)
        for image in (right, up)
    )
    assert right[1] > 0.6 and abs(right[0] - 0.5) < 0.05
    assert up[0] < 0.4 and abs(up[1] - 0.5) < 0.05


def test_without_opengl_nothing_can_be_drawn(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(policy_frames.CannotDrawError, match="nonsense"):
        policy_frames.draw("ant", np.zeros((1, 29)), np.zeros((1, 3)))


def test_where_nothing_can_be_drawn_the_report_says_so(small, monkeypatch):
    def fail(*arguments):
        raise policy_frames.CannotDrawError("no OpenGL library")

    inputs = small(sets=["reacher-2", "ant-2"])
    monkeypatch.setattr(policy_frames, "draw", fail)
    with pytest.warns(UserWarning, match="no frames of the (reacher|ant): no OpenGL"):
        run(monkeypatch)
    section = (inputs.results / "section.html").read_text()
    assert "Frames of the ant are not shown: no OpenGL library" in section
    assert "frames_ant.png" not in section


def test_several_seeds_are_summarised_over_seeds(small, monkeypatch):
    inputs = small(seeds=(0, 1, 2))
    run(monkeypatch)
    means = [inputs.arrays("mmaml-point_mass-2", seed)["return"][2].mean() for seed in range(3)]
    table = markdown_tables(inputs.results / "table.md")[0]
    # The point mass stands first although the reacher was named before it.
    assert table["MMAML"][0] == f"{np.mean(means):.1f} ± {np.std(means, ddof=1):.1f}"


def test_a_missing_input_is_named_with_its_stage(small, monkeypatch):
    inputs = small()
    path = inputs.models / "evaluation/single-reacher-deg45-0.npz"
    path.unlink()
    with pytest.raises(SystemExit, match="--partial") as error:
        run(monkeypatch)
    assert str(path) in str(error.value)
    stage = "evaluate_policy_members@laptop-single-reacher-deg45-0"
    assert f"dvc repro stages/reinforcement/dvc.yaml:{stage}`" in str(error.value)
    (inputs.results / "history/promp-reacher-2-0.csv").unlink()
    with pytest.raises(SystemExit, match=r"train_policies@laptop-promp-reacher-2-0`\. 1 more"):
        run(monkeypatch)


def test_stages_that_make_inputs_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load(PARAMS.read_text())
    files = report_policies_inputs.Files("laptop")
    missing = files.missing(params, report_policies_inputs.table_cells(params))
    names = {stage.rpartition(":")[2].partition("@")[0] for stage in missing.values()}
    assert names <= set(stages()) and len(names) == 4
    # 16 models of all modes, 24 members, 3 files each.
    assert len(missing) == 3 * (16 + 24)


def test_partial_reports_what_there_is_and_twice_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(policy_frames, "draw", fake_draw)
    inputs = Inputs(sets=["point_mass-4", "point_mass-6", "reacher-2"], scale="paper").write()
    left_out = ("single-point_mass-deg135", "promp-reacher-2", "mmaml-point_mass-4")
    for name in left_out:
        (inputs.models / f"evaluation/{name}-0.npz").unlink()
    (inputs.results / "history/promp-point_mass-6-0.csv").unlink()
    outputs = []
    for _ in range(2):
        run(monkeypatch, "--partial", scale="paper")
        outputs.append(reports.written())
    assert outputs[0] == outputs[1]
    assert any(path.suffix == ".png" for path in outputs[0])
    table = markdown_tables(inputs.results / "table.md")[0]
    assert table["Multi-ProMP"][0] == "not run" and table["Multi-ProMP"][1] != "not run"
    assert markdown_tables(inputs.results / "table.md")[1]["MMAML − ProMP"][0] == "not run"
    not_run = ["promp-reacher-2", "multi_promp-point_mass-4", "mmaml-point_mass-4"]
    assert json.loads((inputs.results / "summary.json").read_text())["not_run"] == not_run
    section = (inputs.results / "section.html").read_text()
    assert f"“not run”: {', '.join(not_run)}" in section
    assert "Point mass, 6 modes: one rollout" in section, "MMAML did not run on 4 modes"


def tables_of(inputs):
    """The tables, without the notes about pictures."""
    names = ("table.md", "table.csv", "differences.csv")
    return [(inputs.results / name).read_bytes() for name in names]


def test_scores_that_were_kept_are_enough_for_all_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(policy_frames, "draw", fake_draw)
    inputs = Inputs(sets=["point_mass-2", "reacher-2"], scale="paper").write()
    inputs.model("mmaml-reacher-2", seed=3)  # a variant
    run(monkeypatch, "--partial", scale="paper")
    whole = tables_of(inputs)
    assert "variant" in whole[0].decode()
    new = inputs.arrays("mmaml-point_mass-2")
    before = json.loads((inputs.results / "summary.json").read_text())
    inputs.keep_scores_alone(["return", "examples_goals"])
    run(monkeypatch, "--partial", scale="paper")
    summary = json.loads((inputs.results / "summary.json").read_text())
    keys = "embedding_silhouette", "nearest_centroid_accuracy"
    assert summary["of_an_earlier_report"] == {key: before[key] for key in keys}
    assert tables_of(inputs) == whole
    section, earlier = parts_of(inputs.results / "section.html")
    assert pictures_of(section) == {"learning_curves.png", "inner_steps.png"}
    assert pictures_of(earlier) >= {"trajectories.png", "embeddings_reacher.png"}
    gone = "the arrays of its evaluation are not here."
    assert f"MMAML and ProMP: {gone}" in section
    assert f"Frames of the reacher are not shown: MMAML: {gone}" in section
    assert f"<p>MMAML: {gone}" in section
    assert ">not run<" not in section
    # Beside them, one that was evaluated here is drawn.
    np.savez(inputs.models / "evaluation/mmaml-point_mass-2-0.npz", **new)
    run(monkeypatch, "--partial", scale="paper")
    assert tables_of(inputs) == whole
    section, earlier = parts_of(inputs.results / "section.html")
    assert pictures_of(section) >= {"trajectories.png", "embeddings_point_mass.png"}
    assert pictures_of(earlier) >= {"embeddings_reacher.png"}
    # Arrays of an earlier evaluation are not taken for those of the scores.
    np.savez(
        inputs.models / "evaluation/mmaml-point_mass-2-0.npz", **new | {"return": new["return"] + 1}
    )
    run(monkeypatch, "--partial", scale="paper")
    assert tables_of(inputs) == whole
    # Where there are only metrics, the report says so.
    (inputs.results / "scores/promp-reacher-2-0.npz").unlink()
    with pytest.warns(UserWarning, match="promp-reacher-2-0.json is of an evaluation whose arrays"):
        run(monkeypatch, "--partial", scale="paper")
    # Other goals are told by scores and arrays alike.
    (inputs.results / "scores/single-reacher-deg225-0.npz").unlink()
    inputs.model("single-reacher-deg225", goals_seed=8)
    with pytest.raises(SystemExit, match="multi_promp-reacher-2-0 and mmaml-reacher-2-0 were"):
        run(monkeypatch, "--partial", scale="paper")


def test_nothing_at_all_can_be_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = Inputs(sets=["point_mass-2", "ant-4"], members=[], methods=[])
    inputs.trained["methods"] = ["promp", "mmaml"]
    inputs.write_params()
    run(monkeypatch, "--partial")
    table = markdown_tables(inputs.results / "table.md")[0]
    assert table["ProMP"] == ["not run"] * 2 and "Multi-ProMP" not in table


def test_a_set_whose_members_are_not_trained_has_no_multi_promp(small, monkeypatch):
    inputs = small(members=["reacher-deg45", "reacher-deg225", "point_mass-deg45"])
    run(monkeypatch)
    table = markdown_tables(inputs.results / "table.md")[0]
    assert table["Multi-ProMP"][0] == "–" and table["Multi-ProMP"][1][0] == "-"


def test_variants_are_compared_with_their_method(small, monkeypatch):
    inputs = small()
    inputs.model("mmaml-reacher-2", seed=3)
    run(monkeypatch)
    (row,) = rows_of_markdown(inputs.results / "table.md", "variant")
    variant, cell = (inputs.arrays("mmaml-reacher-2", seed) for seed in (3, 0))
    both = [text(arrays["return"][2], cell["mode"], digits=2) for arrays in (variant, cell)]
    difference = text(variant["return"][2] - cell["return"][2], cell["mode"], 2, "+")
    name = "mmaml-reacher-2"
    assert row[:3] == [name, name, "seed: 3 (not 0)"]
    assert row[3:6] == [*both, difference]


def test_other_goals_are_not_compared(small, monkeypatch):
    inputs = small()
    inputs.model("mmaml-reacher-2", goals_seed=8)
    with pytest.raises(SystemExit, match="promp-reacher-2-0 and mmaml-reacher-2-0 were evaluated"):
        run(monkeypatch)
    inputs.model("mmaml-reacher-2")
    inputs.model("single-reacher-deg225", goals_seed=8)
    with pytest.raises(SystemExit, match="multi_promp-reacher-2-0 were evaluated on different"):
        run(monkeypatch)
    inputs.model("single-reacher-deg225", tasks=11)
    with pytest.raises(SystemExit, match="multi_promp-reacher-2-0 were evaluated on different"):
        run(monkeypatch)


def test_the_report_needs_no_tensorflow_to_tell_what_is_missing(tmp_path):
    output = reports.run_without_inputs(tmp_path, "report_policies")
    assert "evaluate_policies@laptop-promp-point_mass-2-0" in output
    assert output.rstrip().endswith("False")
