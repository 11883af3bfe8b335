"""What the regression report shows: the evaluations that there are, and their statistics.

Nothing is computed with TensorFlow. It comes with the package, which is imported only once the
inputs are known to be there.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines import params as parameters
from pipelines import report_inputs
from pipelines.embedding_maps import Embeddings
from pipelines.published import METHODS
from pipelines.report_inputs import Ablation, find_ablations

TARGETS = ("noisy", "noise_free")


class Summary(NamedTuple):
    """A mean and its spread: 95 % CI over tasks for one seed, else deviation over seeds."""

    mean: float
    spread: float
    tasks: int
    seeds: int

    @classmethod
    def of(cls, estimates: Sequence) -> "Summary":
        """Summarises one `mmaml_tf.evaluation.Estimate` per seed."""
        if len(estimates) == 1:
            return cls(*estimates[0][:3], 1)
        means = [estimate.mean for estimate in estimates]
        spread = float(np.std(means, ddof=1))
        return cls(float(np.mean(means)), spread, estimates[0].n, len(means))

    def __str__(self):
        return f"{self.mean:.3f} ± {self.spread:.3f}"


class Run(NamedTuple):
    """One evaluated cell and seed, or the Bayes-optimal predictor, which has only a report.

    Attributes:
        report: `mmaml_tf.evaluation.Report`.
        seed: its seed.
        arrays: what its evaluation left.
        iterations: outer iterations of its training.
        skipped: updates that were left out in training.
        history: `[P, 2]` iterations and training losses.
        silhouette: that of the modes among FiLM's embeddings; None where these are gone.
    """

    report: Any
    seed: int | None = None
    arrays: dict[str, np.ndarray] | None = None
    iterations: int | None = None
    skipped: int = 0
    history: np.ndarray | None = None
    silhouette: float | None = None


class Cell(NamedTuple):
    """A cell of the table: its name in params.yaml, kind of method, modes, and runs by seed."""

    name: str
    kind: str
    modes: tuple[str, ...]
    runs: Sequence[Run] = ()

    @property
    def size(self) -> int:
        """The number of modes."""
        return len(self.modes)

    @property
    def trained(self) -> list[str]:
        """The names of the models it consists of; a Multi-MAML has one per mode."""
        if self.kind == "multi_maml":
            return [f"single_{mode}" for mode in self.modes]
        return [self.name]

    @property
    def skipped(self) -> int:
        """The number of updates that were left out in training."""
        return sum(run.skipped for run in self.runs)

    def summary(
        self, mode: str | None = None, steps: int | None = None, target: str = "noisy"
    ) -> Summary:
        """Returns the mean loss of a mode (None: all) after inner steps (None: the method's)."""
        return Summary.of([run.report.estimate(mode, steps, target) for run in self.runs])


class Results(NamedTuple):
    """Everything the report shows.

    Attributes:
        scale: name of the scale.
        seeds: seeds of params.yaml.
        inner_steps: inner steps used in training.
        mode_sets: modes by their number.
        cells: cells by (kind, number of modes) in the order of the table, the Bayes-optimal
            predictor's included.
        effective: percentiles of the Bayes row's effective sample sizes by number of modes.
        held_out: description of the held-out tasks.
        ablations: the variants that were evaluated.
    """

    scale: str
    seeds: list[int]
    inner_steps: int
    mode_sets: dict[int, tuple[str, ...]]
    cells: dict[tuple[str, int], Cell]
    effective: dict[int, dict[str, float]]
    held_out: dict
    ablations: Sequence[Ablation] = ()

    @property
    def kinds(self) -> list[str]:
        """The kinds that have a row, in the order of the table."""
        return list(dict.fromkeys(kind for kind, _ in self.cells))

    def runs(self, kind: str, size: int) -> Sequence[Run]:
        """Returns the runs of a kind with `size` modes; none where there is no such cell."""
        cell = self.cells.get((kind, size))
        return cell.runs if cell else ()

    def ran(self, size: int) -> dict[str, Cell]:
        """Returns the cells of `size` modes that have runs by kind, in the order of the table."""
        return {cell.kind: cell for cell in self.cells.values() if cell.size == size and cell.runs}

    def differences(self, kind: str, reference: str, size: int, mode: str | None = None) -> dict:
        """Returns by seed paired estimates of the final losses' differences, kind − reference."""
        return paired_differences(self.runs(kind, size), self.runs(reference, size), mode)


class Files(report_inputs.Files):
    """Where the inputs of the report are, and which stage makes each."""

    def __init__(self, scale: str):
        super().__init__("regression", scale)
        self.held_out = self.models / "held_out.npz"
        self.posterior = self.models / "bayes.npz"
        self.description = self.results / "held_out.json"

    def missing(self, params: dict, cells: Sequence[Cell]) -> dict[Path, str]:
        """Returns the stage that makes each missing input."""
        alone = parameters.get(params, "regression.evaluated_alone")
        prepared = (self.held_out, self.posterior, self.description)
        stages = dict.fromkeys(prepared, f"prepare@{self.scale}")
        for cell in cells:
            stage = "evaluate" if cell.name in alone else f"evaluate_{cell.name}"
            for seed in params["seeds"]:
                for path in self.evaluated(cell.name, seed):
                    stages[path] = f"{stage}@{self.scale}-{cell.name}-{seed}"
                for name in cell.trained:
                    stages[self.history(name, seed)] = f"train@{self.scale}-{name}-{seed}"
        return {path: stage for path, stage in stages.items() if not path.is_file()}


def table_cells(params: dict) -> list[Cell]:
    """Returns the cells of the table, without runs.

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


def check_inputs(params: dict, files, cells: Sequence, partial: bool) -> None:
    """Ends the program when an input is missing that the report cannot do without.

    Args:
        params: params.yaml.
        files: a report's `Files`.
        cells: the cells of its table.
        partial: whether it can do without those of the cells.
    """
    missing = files.missing(params, [] if partial else cells)
    if not missing:
        return
    path, stage = next(iter(missing.items()))
    more = f" {len(missing) - 1} more files are missing." if len(missing) > 1 else ""
    hint = "" if files.scale == params["scale"] else f" with `scale: {files.scale}` in params.yaml"
    option = "" if partial else " Or report what there is with --partial."
    raise SystemExit(
        f"report: {path} is missing; make it with `dvc repro {stage}`{hint}.{more}{option}"
    )


def load(params: dict, files: Files, cells: Sequence[Cell]) -> Results:
    """Reads all inputs that exist."""
    mode_sets = dict(sorted((cell.size, cell.modes) for cell in cells))
    filled, effective = _bayes(files, mode_sets)
    for cell in cells:
        runs = (_run(files, cell, seed) for seed in params["seeds"])
        filled.append(cell._replace(runs=[run for run in runs if run]))
    rows = list(METHODS)
    filled.sort(key=lambda cell: (rows.index(cell.kind), cell.size))
    return Results(
        scale=files.scale,
        seeds=params["seeds"],
        inner_steps=parameters.get(params, "regression.defaults.inner_steps"),
        mode_sets=mode_sets,
        cells={(cell.kind, cell.size): cell for cell in filled},
        effective=effective,
        held_out=json.loads(files.description.read_text()),
        ablations=_ablations(params, files),
    )


def _ablations(params, files):
    def settings(name):
        return parameters.regression_cell(params, name)

    def run(name, seed):
        return _run(files, Cell(name, "ablation", tuple(settings(name)["modes"])), seed)

    variants = parameters.get(params, "regression.ablations")
    return find_ablations(files, variants, params["seeds"], settings, run)


def _run(files, cell, seed):
    """Returns a cell's run with one seed, or None where it was not evaluated."""
    from mmaml_tf.evaluation import Report

    found = files.read(cell.name, seed)
    if found is None:
        return None
    arrays, metrics = found
    _check_tasks(files, cell, seed, metrics)
    report = Report(
        {target: arrays[f"losses_{target}"] for target in TARGETS},
        arrays["mode"],
        tuple(str(mode) for mode in arrays["modes"]),
        int(arrays["steps"]),
        curve=tuple(range(len(arrays["losses_noisy"]))),
    )
    paths = [files.history(name, seed) for name in cell.trained]
    histories = [
        np.genfromtxt(path, delimiter=",", names=True, ndmin=1) for path in paths if path.is_file()
    ]
    curves = [np.stack([rows["step"], rows["loss"]], axis=1) for rows in histories]
    run = Run(report, seed, arrays, metrics["iterations"], metrics["skipped_updates"])
    if len(curves) == len(paths):
        run = run._replace(history=mean_curve(curves))
    if cell.kind == "multi_maml":
        # Its evaluation does not know of its members' training.
        run = run._replace(skipped=sum(int(rows["skipped"][-1]) for rows in histories))
    if cell.kind == "film" and (embeddings := Embeddings.of(arrays)):
        run = run._replace(silhouette=embeddings.silhouette)
    return run


def _check_tasks(files, cell, seed, metrics):
    """Ends the program for a cell that was evaluated on other tasks than the held-out ones here."""
    from mmaml_tf.tasks.held_out import HeldOut

    # Metrics that were written before digests were have none.
    digest = metrics.get("held_out_digest")
    if digest not in (None, HeldOut.load(files.held_out).only(cell.modes).digest()):
        raise SystemExit(
            f"report: {cell.name}-{seed} was evaluated on other tasks than {files.held_out} has; "
            "evaluate it anew."
        )


def paired_differences(runs: Sequence, references: Sequence, mode: str | None = None) -> dict:
    """Returns by seed the paired estimates of runs − references; a run without seed has all."""
    return {
        other.seed: run.report.difference(other.report, mode)
        for run in runs
        for other in references
        if run.seed in (None, other.seed)
    }


def mean_curve(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the mean of curves `[P, 2]` over as many rows as all of them have."""
    rows = min(len(curve) for curve in curves)
    return np.mean([curve[:rows] for curve in curves], axis=0)


def _bayes(files, mode_sets):
    """Returns the Bayes-optimal cells, and percentiles of effective sample sizes by mode set."""
    from mmaml_tf.evaluation import Report
    from mmaml_tf.tasks.bayes import Posterior
    from mmaml_tf.tasks.held_out import HeldOut

    held_out = HeldOut.load(files.held_out)
    with np.load(files.posterior) as file:
        arrays = dict(file)
    families = tuple(str(family) for family in arrays.pop("families"))
    posterior = Posterior(**arrays, families=families)
    cells, effective = [], {}
    for size, modes in mode_sets.items():
        prediction, sample_sizes = posterior.predict(modes)
        prediction = prediction[..., None].astype(np.float64)
        values = {
            target: np.mean((held_out.targets[target] - prediction) ** 2, axis=(1, 2))
            for target in TARGETS
        }
        chosen = held_out._replace(targets=values | {"effective": sample_sizes}).only(modes)
        losses = {target: chosen.targets[target][None] for target in TARGETS}
        report = Report(losses, chosen.episodes.mode, modes, steps=0, curve=(0,))
        cells.append(Cell(f"bayes_{size}", "bayes", modes, [Run(report)]))
        median, low = np.percentile(chosen.targets["effective"], [50, 5])
        effective[size] = {"median": float(median), "percentile_5": float(low)}
    return cells, effective
