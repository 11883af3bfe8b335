"""Stage `report_regression`: table, paired differences, pictures and the page's section.

It reads what the stages `prepare`, `train` and `evaluate` left and computes nothing with
TensorFlow, which is imported only because the package imports it.
"""

import argparse
import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines import params as parameters
from pipelines import published
from pipelines.published import METHODS
from pipelines.report_page import Section, Table, bullets, figure, paragraph, write_domain

REFERENCES = ("maml", "film")
COLUMNS = ("post_modulation", "post_adaptation")
TARGETS = ("noisy", "noise_free")
DASH, NOT_RUN = "–", "not run"

_TSNE_TASKS = 400
_TSNE_PERPLEXITY = 30
_RANDOM_STATE = 0


class Cell(NamedTuple):
    """A cell of the table: its name in params.yaml, kind of method and modes."""

    name: str
    kind: str
    modes: tuple[str, ...]


class Run(NamedTuple):
    """One evaluated cell and seed, or the Bayes-optimal predictor (seed None).

    Attributes:
        seed: the seed.
        report: `mmaml_tf.evaluation.Report`.
        arrays: the arrays of its evaluation.
        metrics: the metrics of its evaluation.
        history: iterations and training losses, or None.
        skipped: updates that were left out in training.
    """

    seed: int | None
    report: Any
    arrays: dict[str, np.ndarray]
    metrics: dict
    history: tuple[np.ndarray, np.ndarray] | None
    skipped: int


class Summary(NamedTuple):
    """A mean and its spread: 95 % CI over tasks for one seed, else deviation over seeds."""

    mean: float
    spread: float
    tasks: int
    seeds: int

    @classmethod
    def of(cls, estimates: Sequence) -> "Summary":
        """Summarises one estimate per seed."""
        if len(estimates) == 1:
            return cls(*estimates[0], 1)
        means = [estimate.mean for estimate in estimates]
        return cls(
            float(np.mean(means)), float(np.std(means, ddof=1)), estimates[0].n, len(estimates)
        )

    def __str__(self):
        return f"{self.mean:.3f} ± {self.spread:.3f}"


class Results(NamedTuple):
    """Everything the report shows.

    Attributes:
        scale: name of the scale.
        seeds: seeds of params.yaml.
        mode_sets: modes by their number.
        cells: cells by (kind, number of modes).
        runs: runs by (kind, number of modes); empty lists where nothing ran.
        held_out: description of the held-out tasks.
        effective: effective sample sizes `[N]` of the Bayes row by number of modes.
        inner_steps: inner steps used in training.
    """

    scale: str
    seeds: list[int]
    mode_sets: dict[int, tuple[str, ...]]
    cells: dict[tuple[str, int], Cell]
    runs: dict[tuple[str, int], list[Run]]
    held_out: dict
    effective: dict[int, np.ndarray]
    inner_steps: int

    def present(self, size: int) -> list[str]:
        """Returns the kinds that ran with `size` modes, in the order of the table."""
        return [kind for kind in METHODS if self.runs.get((kind, size))]

    def summary(self, kind, size, mode=None, column="post_adaptation", target="noisy") -> Summary:
        """Returns a mean loss of a kind of method with `size` modes."""
        steps = 0 if column == "post_modulation" else None
        runs = self.runs[kind, size]
        return Summary.of([run.report.estimate(mode, steps, target) for run in runs])

    def differences(self, kind, reference, size, mode=None) -> Iterator[tuple]:
        """Yields (seed, paired estimate of the final losses, kind − reference) per seed."""
        references = {run.seed: run for run in self.runs[reference, size]}
        for run in self.runs[kind, size]:
            pairs = references.values() if run.seed is None else [references.get(run.seed)]
            for other in filter(None, pairs):
                yield other.seed, run.report.difference(other.report, mode)


class Files:
    """Where the inputs of the report are, and which stage makes each."""

    def __init__(self, scale: str):
        self.scale = scale
        self.models = Path("models") / scale / "regression"
        self.results = Path("results") / scale / "regression"

    @property
    def prepared(self) -> tuple[Path, Path, Path]:
        """The held-out tasks, their posteriors and their description."""
        return (
            self.models / "held_out.npz",
            self.models / "bayes.npz",
            self.results / "held_out.json",
        )

    def evaluated(self, cell: Cell, seed: int) -> tuple[Path, Path]:
        """The arrays and metrics of an evaluation."""
        name = f"{cell.name}-{seed}"
        return self.models / "evaluation" / f"{name}.npz", self.results / "metrics" / f"{name}.json"

    def histories(self, cell: Cell, seed: int) -> dict[str, Path]:
        """The training curves of a cell, or of its members, by name of the trained cell."""
        members = [f"single_{mode}" for mode in cell.modes] if _is_bank(cell) else [cell.name]
        return {name: self.results / "history" / f"{name}-{seed}.csv" for name in members}

    def missing(self, params: dict, cells: Sequence[Cell]) -> dict[Path, str]:
        """Returns the stage that makes each missing input."""
        alone = parameters.get(params, "regression.evaluated_alone")
        stages = dict.fromkeys(self.prepared, f"prepare@{self.scale}")
        for cell in cells:
            stage = "evaluate" if cell.name in alone else f"evaluate_{cell.name}"
            for seed in params["seeds"]:
                for path in self.evaluated(cell, seed):
                    stages[path] = f"{stage}@{self.scale}-{cell.name}-{seed}"
                for name, path in self.histories(cell, seed).items():
                    stages[path] = f"train@{self.scale}-{name}-{seed}"
        return {path: stage for path, stage in stages.items() if not path.is_file()}


def table_cells(params: dict) -> list[Cell]:
    """Returns the cells of the table.

    Raises:
        ParameterError: for a name that is not `<kind>_<number of modes>`.
    """
    cells = []
    for name in parameters.get(params, "regression.evaluated"):
        kind, _, size = name.rpartition("_")
        modes = tuple(parameters.regression_cell(params, name)["modes"])
        if kind not in METHODS or size != str(len(modes)):
            raise parameters.ParameterError(
                f"regression.evaluated names {name!r}; expected <kind>_{len(modes)} for a cell of "
                f"{len(modes)} modes, with a kind among {sorted(METHODS)}."
            )
        cells.append(Cell(name, kind, modes))
    return cells


def check_inputs(params: dict, files: Files, cells: Sequence[Cell], partial: bool) -> None:
    """Ends the program when an input is missing that the report cannot do without."""
    missing = files.missing(params, cells)
    needed = [path for path in missing if not partial or path in files.prepared]
    if not needed:
        return
    path = needed[0]
    more = f" {len(needed) - 1} more files are missing." if len(needed) > 1 else ""
    scale = files.scale
    hint = "" if scale == params["scale"] else f" with `scale: {scale}` in params.yaml"
    option = "" if partial else " Or report what there is with --partial."
    raise SystemExit(
        f"report: {path} is missing; make it with `dvc repro {missing[path]}`{hint}.{more}{option}"
    )


def load(params: dict, files: Files, cells: Sequence[Cell]) -> Results:
    """Reads all inputs that exist."""
    from mmaml_tf.evaluation import Report

    runs = {}
    for cell in cells:
        runs[cell.kind, len(cell.modes)] = found = []
        for seed in params["seeds"]:
            if not all(path.is_file() for path in files.evaluated(cell, seed)):
                continue
            arrays_path, metrics_path = files.evaluated(cell, seed)
            with np.load(arrays_path) as file:
                arrays = dict(file)
            report = Report(
                {target: arrays[f"losses_{target}"] for target in TARGETS},
                arrays["mode"],
                tuple(str(mode) for mode in arrays["modes"]),
                int(arrays["steps"]),
            )
            metrics = json.loads(metrics_path.read_text())
            history, skipped = _history(files.histories(cell, seed).values())
            if not _is_bank(cell):
                skipped = metrics["skipped_updates"]
            found.append(Run(seed, report, arrays, metrics, history, skipped))
    mode_sets = {len(cell.modes): cell.modes for cell in cells}
    bayes, effective = _bayes(files, mode_sets)
    return Results(
        files.scale,
        params["seeds"],
        dict(sorted(mode_sets.items())),
        {(cell.kind, len(cell.modes)): cell for cell in cells},
        runs | bayes,
        json.loads(files.prepared[2].read_text()),
        effective,
        parameters.get(params, "regression.defaults.inner_steps"),
    )


def _is_bank(cell):
    return cell.kind == "multi_maml"


def _history(paths):
    """Returns the mean training curve of some files, or None, and their skipped updates."""
    curves, skipped = [], 0
    for path in paths:
        if not path.is_file():
            return None, skipped
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        curves.append(np.array([[float(row["step"]), float(row["loss"])] for row in rows]))
        skipped += int(rows[-1]["skipped"])
    return _mean_curve(curves), skipped


def _mean_curve(curves):
    rows = min(len(curve) for curve in curves)
    steps, losses = np.mean([curve[:rows] for curve in curves], axis=0).T
    return steps, losses


def _bayes(files, mode_sets):
    """Returns the Bayes-optimal runs and effective sample sizes by mode set."""
    from mmaml_tf.evaluation import Report
    from mmaml_tf.tasks.bayes import Posterior
    from mmaml_tf.tasks.held_out import HeldOut

    held_out = HeldOut.load(files.prepared[0])
    with np.load(files.prepared[1]) as file:
        arrays = dict(file)
    families = tuple(str(family) for family in arrays.pop("families"))
    posterior = Posterior(**arrays, families=families)
    runs, effective = {}, {}
    for size, modes in mode_sets.items():
        mean, sizes = posterior.predict(modes)
        extended = {**held_out.targets, "bayes": mean[..., None], "effective": sizes}
        chosen = held_out._replace(targets=extended).only(modes)
        prediction = chosen.targets["bayes"].astype(np.float64)
        losses = {
            target: np.mean((chosen.targets[target] - prediction) ** 2, axis=(1, 2))[None]
            for target in TARGETS
        }
        report = Report(losses, chosen.episodes.mode, tuple(modes), 0)
        runs["bayes", size] = [Run(None, report, {}, {}, None, 0)]
        effective[size] = chosen.targets["effective"]
    return runs, effective


def _entry(results, kind, size, **which):
    """Returns a value of our tables as text."""
    if (kind, size) not in results.cells and kind != "bayes":
        return DASH
    if not results.runs[kind, size]:
        return NOT_RUN
    value = results.summary(kind, size, **which)
    return f"{value}{_seeds_note(results, kind, value.seeds)}"


def _seeds_note(results, kind, count):
    if kind == "bayes" or count == len(results.seeds):
        return ""
    return f" ({count} seed{'s' if count > 1 else ''})"


def _kinds(results):
    return [k for k in METHODS if k == "bayes" or any(kind == k for kind, _ in results.cells)]


def headline_table(results: Results) -> Table:
    """Returns the table of errors against noisy targets beside the published ones."""
    rows = []
    for kind in _kinds(results):
        row = [METHODS[kind].label]
        for size in results.mode_sets:
            values = published.REGRESSION.get((kind, size))
            skipped = any(run.skipped for run in results.runs.get((kind, size), []))
            for column in COLUMNS:
                ours = DASH
                if column in METHODS[kind].shown:
                    ours = _entry(results, kind, size, column=column)
                    ours += "²" if skipped else ""
                theirs = getattr(values, column) if values else None
                mark = "¹" if (kind, size) in published.FIRST_LAYER_ONLY else ""
                row += [ours, DASH if theirs is None else f"{theirs:.3f}{mark}"]
        rows.append(row)
    header = ["post-modulation", "published", "post-adaptation", "published"]
    groups = [(_title(size), len(header)) for size in results.mode_sets]
    return Table(["method", *header * len(groups)], rows, groups)


def noise_free_table(results: Results) -> Table:
    """Returns the table of final errors against targets without noise."""
    rows = [
        [
            METHODS[kind].label,
            *(_entry(results, kind, size, target="noise_free") for size in results.mode_sets),
        ]
        for kind in _kinds(results)
    ]
    return Table(["method", *map(_title, results.mode_sets)], rows)


def per_mode_table(results: Results) -> Table:
    """Returns the table of final errors against noisy targets by mode."""
    rows = [
        [
            METHODS[kind].label,
            *(
                _entry(results, kind, size, mode=mode)
                for size, modes in results.mode_sets.items()
                for mode in modes
            ),
        ]
        for kind in _kinds(results)
    ]
    header = ["method", *(mode for modes in results.mode_sets.values() for mode in modes)]
    groups = [(_title(size), len(modes)) for size, modes in results.mode_sets.items()]
    return Table(header, rows, groups)


def differences_table(results: Results) -> Table:
    """Returns the table of paired differences over all tasks of a mode set."""
    rows = []
    for kind in _kinds(results):
        row = [METHODS[kind].label]
        for size in results.mode_sets:
            for reference in REFERENCES:
                row.append(_difference_entry(results, kind, reference, size))
        rows.append(row)
    header = [f"− {METHODS[reference].label}" for reference in REFERENCES]
    groups = [(_title(size), len(header)) for size in results.mode_sets]
    return Table(["method", *header * len(groups)], rows, groups)


def _difference_entry(results, kind, reference, size):
    if kind == reference or ((kind, size) not in results.cells and kind != "bayes"):
        return DASH
    if not results.runs[kind, size] or not results.runs.get((reference, size)):
        return NOT_RUN
    estimates = [e for _, e in results.differences(kind, reference, size)]
    if not estimates:
        return NOT_RUN
    value = Summary.of(estimates)
    return f"{value.mean:+.3f} ± {value.spread:.3f}{_seeds_note(results, None, value.seeds)}"


def _title(size):
    return f"{size} modes"


def write_table_csv(results: Results, path: Path) -> None:
    """Writes one row per method, mode set and mode ("all" for the whole set)."""
    fields = ["method", "modes", "mode", "seeds", "tasks", "spread"]
    for target in TARGETS:
        for column in COLUMNS:
            fields += [f"{target}_{column}", f"{target}_{column}_spread"]
    fields += [f"published_{column}" for column in COLUMNS] + ["skipped_updates"]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
        writer.writeheader()
        for kind in _kinds(results):
            for size, modes in results.mode_sets.items():
                if (kind, size) in results.runs:
                    for mode in (None, *modes):
                        writer.writerow(_csv_row(results, kind, size, mode))


def _csv_row(results, kind, size, mode):
    row = {"method": METHODS[kind].label, "modes": size, "mode": mode or "all"}
    values = published.REGRESSION.get((kind, size))
    if mode is None and values:
        for column in COLUMNS:
            row[f"published_{column}"] = _number(getattr(values, column))
    runs = results.runs[kind, size]
    if not runs:
        return row | {"seeds": 0, "spread": NOT_RUN}
    row["skipped_updates"] = sum(run.skipped for run in runs)
    for target in TARGETS:
        for column in METHODS[kind].shown:
            value = results.summary(kind, size, mode, column, target)
            row[f"{target}_{column}"] = _number(value.mean)
            row[f"{target}_{column}_spread"] = _number(value.spread)
    spread = "ci95 over tasks" if value.seeds == 1 else "standard deviation over seeds"
    return row | {"seeds": len(runs), "tasks": value.tasks, "spread": spread}


def _number(value):
    return "" if value is None else f"{value:.6g}"


def write_differences_csv(results: Results, path: Path) -> None:
    """Writes paired differences, one row a seed and, for several, one over seeds."""
    fields = ["method", "reference", "modes", "mode", "seed", "mean", "ci95", "n", "sd_over_seeds"]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(fields)
        for size, modes in results.mode_sets.items():
            for reference in REFERENCES:
                if not results.runs.get((reference, size)):
                    continue
                for kind in results.present(size):
                    if kind == reference:
                        continue
                    for mode in (None, *modes):
                        labels = [METHODS[kind].label, METHODS[reference].label]
                        labels += [size, mode or "all"]
                        pairs = list(results.differences(kind, reference, size, mode))
                        writer.writerows([*labels, *row] for row in _difference_rows(pairs))


def _difference_rows(pairs):
    rows = [[seed, _number(e.mean), _number(e.ci95), e.n, ""] for seed, e in pairs]
    if len(pairs) > 1:
        value = Summary.of([estimate for _, estimate in pairs])
        rows.append(["all", _number(value.mean), "", value.tasks, _number(value.spread)])
    return rows


def silhouettes(results: Results) -> dict[str, float]:
    """Returns the silhouette of the modes among FiLM's embeddings, by cell and seed."""
    from sklearn.metrics import silhouette_score

    scores = {}
    for size in results.mode_sets:
        for run in results.runs.get(("film", size), []):
            score = silhouette_score(run.arrays["embeddings"], run.report.mode)
            scores[f"{results.cells['film', size].name}-{run.seed}"] = float(score)
    return scores


def write_summary(results: Results, scores: dict[str, float], path: Path) -> None:
    """Writes what the tables do not hold: silhouettes and the Bayes rows."""
    bayes = {}
    for size, modes in results.mode_sets.items():
        report = results.runs["bayes", size][0].report
        bayes[str(size)] = {
            "overall": {target: report.estimate(None, 0, target)._asdict() for target in TARGETS},
            "modes": {
                mode: {target: report.estimate(mode, 0, target)._asdict() for target in TARGETS}
                for mode in modes
            },
            "effective_sample_size": _effective(results, size),
        }
    summary = {
        "scale": results.scale,
        "seeds": results.seeds,
        "held_out_digest": results.held_out["digest"],
        "embedding_silhouette": scores,
        "bayes": bayes,
        "not_run": [cell.name for key, cell in results.cells.items() if not results.runs[key]],
    }
    path.write_text(json.dumps(summary, indent=2) + "\n")


def _effective(results, size):
    median, low = np.percentile(results.effective[size], [50, 5])
    return {"median": float(median), "percentile_5": float(low)}


def draw(results: Results, scores: dict[str, float], directory: Path) -> None:
    """Draws all pictures."""
    from pipelines import plots

    plots.training_curves(_training_panels(results), directory / "training_curves.png")
    titles = {size: _title(size) for size in results.mode_sets}
    curves = {titles[size]: _adaptation_bands(results, size) for size in titles}
    bayes = {titles[size]: results.summary("bayes", size).mean for size in titles}
    plots.adaptation_steps(curves, bayes, results.inner_steps, directory / "adaptation_steps.png")
    bands = {titles[size]: _mode_bands(results, size) for size in titles}
    plots.per_mode(
        bands,
        {titles[s]: modes for s, modes in results.mode_sets.items()},
        directory / "per_mode.png",
    )
    for size, modes in results.mode_sets.items():
        examples = _function_examples(results, size)
        if examples is not None:
            start = f"{METHODS['film'].label}, after modulation"
            plots.functions(examples, modes, directory / f"functions_{size}.png", start)
    if scores:
        modes = max(results.mode_sets.values(), key=len)
        plots.embeddings(_embedding_maps(results, scores), modes, directory / "embeddings.png")


def _training_panels(results):
    from pipelines.plots import smooth

    panels = {}
    for size in results.mode_sets:
        panels[_title(size)] = panel = {}
        for kind in results.present(size):
            curves = [run.history for run in results.runs[kind, size] if run.history]
            if curves:
                steps, losses = _mean_curve([np.stack(curve, axis=1) for curve in curves])
                panel[kind] = steps, smooth(losses, _window(len(losses)))
    return panels


def _window(rows):
    """Returns the number of logged rows (odd) that the training curves are averaged over."""
    return max(3, rows // 40 | 1)


def _adaptation_bands(results, size):
    from pipelines.plots import Band

    bands = {}
    for kind in results.present(size):
        if kind == "bayes":
            continue
        runs = results.runs[kind, size]
        # The LSTM learner has no inner step; further rows of its losses mean nothing.
        adapts = METHODS[kind].post_adaptation
        count = len(runs[0].report.losses["noisy"]) if adapts else 1
        # Losses may overflow beyond the steps that were trained.
        with np.errstate(invalid="ignore"):
            values = [
                Summary.of([run.report.estimate(None, step, "noisy") for run in runs])
                for step in range(count)
            ]
        bands[kind] = Band(np.arange(count), *_columns(values))
    return bands


def _mode_bands(results, size):
    from pipelines.plots import Band

    modes = results.mode_sets[size]
    return {
        kind: Band(
            np.arange(len(modes)), *_columns([results.summary(kind, size, m) for m in modes])
        )
        for kind in results.present(size)
    }


def _columns(summaries):
    return np.array([s.mean for s in summaries]), np.array([s.spread for s in summaries])


def _function_examples(results, size):
    from pipelines.plots import Functions

    if not results.runs.get(("film", size)):
        return None
    run = results.runs["film", size][0]
    own = run.arrays
    baseline = None
    for other in results.runs.get(("maml", size), []):
        if other.seed == run.seed:
            if not np.array_equal(other.arrays["example_support_x"], own["example_support_x"]):
                raise SystemExit(
                    f"report: the example tasks of maml_{size} and film_{size} differ; evaluate "
                    "both anew."
                )
            baseline = other.arrays["example_predictions"][-1]
    return Functions(
        own["example_support_x"][..., 0],
        own["example_support_y"][..., 0],
        own["example_mode"],
        own["example_x"],
        own["example_truth"],
        own["example_predictions"],
        baseline,
    )


def _embedding_maps(results, scores):
    """Returns t-SNE maps of the first seed's FiLM embeddings by panel title."""
    panels = {}
    for size in results.mode_sets:
        runs = results.runs.get(("film", size))
        if not runs:
            panels[_title(size)] = None, None
            continue
        mode = runs[0].report.mode
        chosen = [np.flatnonzero(mode == m)[:_TSNE_TASKS] for m in range(len(runs[0].report.modes))]
        chosen = np.concatenate(chosen)
        score = scores[f"{results.cells['film', size].name}-{runs[0].seed}"]
        title = f"{_title(size)} (silhouette {score:.2f})"
        panels[title] = _tsne(runs[0].arrays["embeddings"][chosen]), mode[chosen]
    return panels


def _tsne(values):
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # Sums over several threads end in different bits from run to run.
    with threadpool_limits(1):
        return TSNE(
            perplexity=min(_TSNE_PERPLEXITY, (len(values) - 1) / 3), random_state=_RANDOM_STATE
        ).fit_transform(values)


def _spread_note(results):
    if len(results.seeds) == 1:
        return (
            "Values are mean ± half-width of the 95 % confidence interval (1.96 standard errors) "
            f"over held-out tasks, for 1 seed ({results.seeds[0]})."
        )
    return (
        f"Values are mean ± standard deviation over {len(results.seeds)} seeds "
        f"({', '.join(map(str, results.seeds))}), except where a row states another number of "
        "seeds; a single seed, and the Bayes-optimal row, have mean ± half-width of the 95 % "
        "confidence interval (1.96 standard errors) over held-out tasks."
    )


def _iterations(results):
    """Returns the numbers of outer iterations of all runs."""
    every = (run for runs in results.runs.values() for run in runs)
    return sorted({run.metrics["iterations"] for run in every if run.metrics})


def _training_text(results):
    counts = " or ".join(str(count) for count in _iterations(results)) or "no"
    return f"{counts} outer iterations (published: {published.ITERATIONS})"


def _seeds_text(results):
    return f"seed{'s' if len(results.seeds) > 1 else ''} {', '.join(map(str, results.seeds))}"


def protocol_notes(results: Results) -> list[str]:
    """Returns what was done, in short."""
    tasks = results.held_out["distribution"]
    noise = tasks["noise"]
    low, high = tasks["x_range"]
    return [
        f"Scale “{results.scale}”: {_training_text(results)}, "
        f"{results.inner_steps} inner steps; {_seeds_text(results)}.",
        f"Evaluation: the same {results.held_out['tasks_per_mode']} held-out tasks per mode for "
        f"all methods, each with {tasks['support']} support and {tasks['query']} query points, x "
        f"uniform in [{low:g}, {high:g}]. SHA-256 digest of the tasks: "
        f"{results.held_out['digest']}.",
        f"Gaussian noise of standard deviation {noise:g} on support and query targets, so that no "
        f"predictor has an expected error below {noise**2:.2g} (the noise floor).",
        "Headline metric: mean squared error (MSE) on the query points against noisy targets, "
        "after modulation and before any inner step (post-modulation) and after the inner steps "
        "(post-adaptation). The final error is the latter, and for the LSTM learner, which has "
        "no inner steps, the former.",
    ]


def table_notes(results: Results) -> list[str]:
    """Returns the notes under the headline table."""
    notes = [_spread_note(results), f"¹ {published.FIRST_LAYER_NOTE}"]
    skipped = []
    for kind in _kinds(results):
        for size in results.mode_sets:
            runs = results.runs.get((kind, size), [])
            count = sum(run.skipped for run in runs)
            if count:
                members = size if kind == "multi_maml" else 1
                updates = members * sum(run.metrics["iterations"] for run in runs)
                skipped.append(f"{METHODS[kind].label}, {_title(size)}: {count} of {updates}")
    if skipped:
        notes.append(
            "² Outer updates were skipped because their meta-gradient was not finite: "
            f"{'; '.join(skipped)}."
        )
    sizes = []
    for size in results.mode_sets:
        median, low = _effective(results, size).values()
        sizes.append(f"{_title(size)}: {median:.0f} and {low:.1f}")
    notes.append(
        "Bayes-optimal: the posterior mean under the true task distribution, by importance "
        f"sampling with {results.held_out['bayes_particles_per_family']} particles per family. "
        f"Effective sample size, median and 5th percentile over tasks: {'; '.join(sizes)}. Where "
        "it is small the row may lie above the optimum."
    )
    return notes


def deviation_notes(results: Results) -> list[str]:
    """Returns what differs from the published protocol, or may differ."""
    noise = results.held_out["distribution"]["noise"]
    return [
        published.SOURCE,
        published.UNKNOWN,
        f"Ours: {results.held_out['tasks_per_mode']} fixed held-out tasks per mode and noisy query "
        f"targets (noise floor {noise**2:.2g}).",
        f"Ours: {_training_text(results)} at this scale.",
        "Ours: all hidden layers are modulated in all mode sets unless the row says otherwise.",
        "Ours: Multi-MAML is one independently trained MAML per mode, chosen by the true mode "
        "label of each task.",
        "MMAML (sigmoid) and the layer-1-only rows have no published values of their own.",
    ]


NOISE_FREE = (
    "Final MSE against noise-free targets (after the inner steps; the LSTM learner and the "
    "Bayes-optimal predictor have none)"
)
PER_MODE = "Final MSE against noisy targets by mode"


def markdown(results: Results) -> str:
    """Returns the tables and their notes in Markdown."""

    def listed(notes):
        return "\n".join(f"- {note}" for note in notes) + "\n"

    return "\n".join(
        [
            f"# Few-shot regression at {results.scale} scale\n",
            "MSE against noisy targets, and the published values beside it.\n",
            headline_table(results).markdown(),
            listed(table_notes(results)),
            "What differs from the published protocol, or may:\n",
            listed(deviation_notes(results)),
            f"{NOISE_FREE}.\n",
            noise_free_table(results).markdown(),
            f"{PER_MODE}.\n",
            per_mode_table(results).markdown(),
        ]
    )


def page_sections(results: Results, directory: Path) -> list[Section]:
    """Returns the regression part of the page; pictures are those under `directory`/plots."""

    def shown(name, caption):
        picture = Path("plots") / name
        return figure(str(picture), caption) if (directory / picture).is_file() else ""

    captions = _captions(results)
    functions = "".join(
        shown(f"functions_{size}.png", f"{_title(size)}. {captions['functions']}")
        for size in results.mode_sets
    )
    return [
        Section("Protocol", bullets(protocol_notes(results))),
        Section(
            "Results beside the published ones",
            headline_table(results).html("MSE against noisy targets")
            + bullets(table_notes(results))
            + noise_free_table(results).html(NOISE_FREE),
        ),
        Section("What differs from the published protocol", bullets(deviation_notes(results))),
        Section(
            "By mode",
            per_mode_table(results).html(PER_MODE) + shown("per_mode.png", captions["per_mode"]),
        ),
        Section(
            "Paired differences",
            paragraph(captions["differences"])
            + differences_table(results).html("Difference in final MSE against noisy targets"),
        ),
        Section("Training", shown("training_curves.png", captions["training"])),
        Section("Adaptation", shown("adaptation_steps.png", captions["adaptation"])),
        Section("Functions", functions or paragraph("MMAML (FiLM) was not run.")),
        Section(
            "Task embeddings",
            shown("embeddings.png", captions["embeddings"])
            or paragraph("MMAML (FiLM) was not run."),
        ),
    ]


def _captions(results):
    several = len(results.seeds) > 1
    spread = "standard deviation over seeds" if several else "95 % confidence interval over tasks"
    over_seeds = ", averaged over seeds" if several else ""
    histories = [run.history for runs in results.runs.values() for run in runs if run.history]
    # Every logged row is the mean of as many iterations as the first row's step.
    logged = max((int(history[0][0]) for history in histories), default=0)
    window = _window(max((len(history[0]) for history in histories), default=0))
    return {
        "per_mode": f"Final MSE against noisy targets by mode, with the {spread}; logarithmic "
        "axis. Where the interval reaches below the axis it is cut off.",
        "differences": "Mean over all held-out tasks of a mode set of the difference in final MSE "
        "between two methods on the same task; negative is better than the method compared with. "
        + (
            "± is the standard deviation over seeds, which are paired as well."
            if several
            else "± is the half-width of the 95 % confidence interval over tasks."
        )
        + " differences.csv has the modes too.",
        "training": f"Training loss (mean MSE on the query points of the batch, noisy) against "
        f"outer iteration{over_seeds}; logarithmic vertical axis. Each logged value is the mean "
        f"of {logged} iterations; the curves are slightly smoothed by a centred running mean of "
        f"{window} logged values. Multi-MAML is the mean of its single-mode members.",
        "adaptation": "MSE over all held-out tasks against noisy targets, by number of inner "
        f"steps, with the {spread} as a band; logarithmic vertical axis. The dotted vertical "
        f"line marks the {results.inner_steps} steps used in training. Step 0 is the error after "
        "modulation; for MAML and Multi-MAML, which are not modulated, it is that of the "
        "initialisation, before it has seen the task. The LSTM learner has no inner steps (level "
        "dotted line). Dashed: Bayes-optimal. A curve that diverges leaves the picture.",
        "functions": "Three example tasks per mode (one row each), not among the held-out tasks: "
        "support points, the function without noise, and the predictions of MMAML (FiLM) after "
        "modulation and after each inner step, from light to dark; dashed, MAML after as many "
        "inner steps. One seed (the first that ran); panels have different vertical axes, and "
        "curves that do not fit may leave them.",
        "embeddings": "t-SNE maps of the task embeddings of MMAML (FiLM), coloured by mode: the "
        f"first {_TSNE_TASKS} held-out tasks of each mode at most, perplexity "
        f"{_TSNE_PERPLEXITY}, random_state {_RANDOM_STATE}, one seed (the first that ran). The "
        "silhouette is that of the modes among the raw embeddings of all held-out tasks "
        "(Euclidean distances; 1 is separate, 0 is mixed), not of the map.",
    }


def write(results: Results, directory: Path) -> None:
    """Writes all outputs."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(directory / "plots", ignore_errors=True)
    scores = silhouettes(results)
    (directory / "table.md").write_text(markdown(results))
    write_table_csv(results, directory / "table.csv")
    write_differences_csv(results, directory / "differences.csv")
    write_summary(results, scores, directory / "summary.json")
    draw(results, scores, directory / "plots")
    sections = page_sections(results, directory)
    write_domain(directory / "section.html", "Few-shot regression", sections)


def main() -> None:
    """Writes the regression report of the scale that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", required=True, choices=parameters.SCALES)
    parser.add_argument("--partial", action="store_true", help="report the cells that there are")
    arguments = parser.parse_args()
    params = parameters.load()
    files, cells = Files(arguments.scale), table_cells(params)
    check_inputs(params, files, cells, arguments.partial)
    results = load(params, files, cells)
    write(results, files.results)
    print(headline_table(results).markdown(), files.results, sep="\n")


if __name__ == "__main__":
    main()
