"""The inputs of the classification report: where they are, and how a Multi-MAML is joined.

Nothing is computed with TensorFlow. It comes with the package, which is imported only once the
inputs are known to be there.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines import params as parameters
from pipelines.published import METHODS
from pipelines.report_data import mean_curve
from pipelines.report_images_data import OWN_STEPS, Cell, Curves, ModeSet, Results, Run


class Files:
    """Where the inputs of the report are, and which stage makes each."""

    def __init__(self, scale: str):
        self.scale = scale
        self.models = Path("models", scale, "classification")
        self.results = Path("results", scale, "classification")

    def modes(self, mode_set: str) -> Path:
        """Returns the modes that a mode set has."""
        return self.models / "modes" / f"{mode_set}.json"

    def evaluated(self, name: str, seed: int) -> tuple[Path, Path]:
        """Returns the arrays and the metrics of a model's evaluation."""
        name = f"{name}-{seed}"
        return self.models / "evaluation" / f"{name}.npz", self.results / "metrics" / f"{name}.json"

    def history(self, name: str, seed: int) -> Path:
        """Returns the training curve of a model."""
        return self.results / "history" / f"{name}-{seed}.csv"

    def missing(self, params: dict, cells: Sequence[Cell]) -> dict[Path, str]:
        """Returns the stage that makes each missing input; without cells, of the mode sets."""
        trained = parameters.get(params, "classification.trained")
        names = [*trained["mode_sets"], *trained["members"]]
        stages = {self.modes(name): f"mode_sets@{self.scale}" for name in names}
        for cell in cells:
            members = "image_members" if cell.members else "images"
            for name in cell.trained:
                for seed in params["seeds"]:
                    where = f"{members}@{self.scale}-{name}-{seed}"
                    for path in self.evaluated(name, seed):
                        stages[path] = f"evaluate_{where}"
                    stages[self.history(name, seed)] = f"train_{where}"
        return {path: stage for path, stage in stages.items() if not path.is_file()}


def table_cells(params: dict, files: Files) -> list[Cell]:
    """Returns the cells of the table, without runs, those that have no images left out."""
    trained = parameters.get(params, "classification.trained")
    wanted = parameters.get(params, "classification.mode_sets")
    member_of = {}
    for member in trained["members"]:
        for mode in _json(files.modes(member))["modes"]:
            member_of.setdefault(mode, member)
    cells = []
    for kind in METHODS:
        for mode_set in trained["mode_sets"]:
            modes = _json(files.modes(mode_set))["modes"]
            joined = kind == "multi_maml" and set(wanted[mode_set]) <= set(trained["members"])
            if not modes or not (joined or kind in trained["methods"]):
                continue
            for protocol in trained["protocols"]:
                members = {}
                if joined:
                    members = {mode: f"single-{member_of[mode]}-{protocol}" for mode in modes}
                cells.append(Cell(kind, mode_set, protocol, members))
    return cells


def load(params: dict, files: Files, cells: Sequence[Cell]) -> Results:
    """Reads all inputs that exist.

    Raises:
        SystemExit: for cells of one column that were evaluated on different tasks.
    """
    trained = parameters.get(params, "classification.trained")
    protocols = parameters.get(params, "classification.protocols")
    found = {name: _json(files.modes(name)) for name in trained["mode_sets"]}
    filled = {}
    for cell in cells:
        modes = tuple(found[cell.mode_set]["modes"])
        runs = (_cell_run(files, cell, modes, seed) for seed in params["seeds"])
        key = cell.kind, cell.mode_set, cell.protocol
        filled[key] = cell._replace(runs=[run for run in runs if run])
    _check_same_tasks(filled.values())
    return Results(
        scale=files.scale,
        seeds=params["seeds"],
        mode_sets={
            name: ModeSet(tuple(modes["modes"]), modes["stand_ins"], modes["left_out"])
            for name, modes in found.items()
        },
        protocols={
            name: (protocols[name]["ways"], protocols[name]["support"])
            for name in trained["protocols"]
        },
        cells=filled,
        images=_images(files, found),
        schedule=parameters.classification_scale(params, files.scale),
        defaults=parameters.get(params, "classification.defaults"),
        member_batches=_member_batches(params, trained),
    )


def _images(files, mode_sets):
    modes = dict.fromkeys(mode for found in mode_sets.values() for mode in found["modes"])
    statuses = {mode: files.models / "images" / mode / "status.json" for mode in modes}
    return {mode: _json(path)["images"] for mode, path in statuses.items() if path.is_file()}


def _member_batches(params, trained):
    return {
        protocol: {
            parameters.classification_cell(params, f"single-{member}-{protocol}")["batch"]
            for member in trained["members"]
        }
        for protocol in trained["protocols"]
    }


def _cell_run(files, cell, modes, seed):
    """Returns a cell's run with one seed, or None where not all of it was evaluated."""
    if not cell.members:
        return _run(files, cell.name, seed)
    members = [_run(files, cell.members[mode], seed) for mode in modes]
    return join(members, modes) if all(members) else None


def _run(files, name, seed):
    """Returns a model's run, or None where it was not evaluated, or has no images."""
    from mmaml_tf.evaluation import Report

    arrays_path, metrics_path = files.evaluated(name, seed)
    if not (arrays_path.is_file() and metrics_path.is_file()):
        return None
    metrics = _json(metrics_path)
    if metrics.get("left_out"):
        return None
    with np.load(arrays_path) as file:
        arrays = dict(file)
    report = Report(
        {"accuracy": arrays["accuracy"]},
        arrays["mode"],
        tuple(str(mode) for mode in arrays["modes"]),
        int(arrays["steps"]),
        tuple(int(steps) for steps in arrays["curve"]),
    )
    curves = _curves(files.history(name, seed))
    validated = curves.validation if curves else np.empty((0, 2))
    return Run(
        report,
        seed,
        metrics["held_out_digest"],
        {mode: metrics["ways"][mode] for mode in report.modes},
        dict.fromkeys(report.modes, report.steps),
        metrics["iterations"],
        metrics["skipped_updates"],
        # Training keeps the first of the best.
        [int(validated[validated[:, 1].argmax(), 0])] if len(validated) else [],
        curves,
        (arrays["embeddings"], arrays["embeddings_mode"]) if "embeddings" in arrays else None,
    )


def _curves(path):
    if not path.is_file():
        return None
    rows = np.genfromtxt(path, delimiter=",", names=True, ndmin=1)
    names = rows.dtype.names
    if "validation_score" not in names:
        return Curves(np.stack([rows["step"], rows["accuracy"]], axis=1), np.empty((0, 2)))
    validation = np.stack([rows["step"], rows["validation_score"]], axis=1)
    return Curves(
        np.stack([rows["step"], rows["accuracy"]], axis=1),
        validation[~np.isnan(validation[:, 1])],
    )


def join(members: Sequence[Run], modes: Sequence[str]) -> Run:
    """Returns the run of a Multi-MAML: each member's on the tasks of its own mode.

    The held-out tasks of a mode are the same whichever other modes are evaluated, so the joined
    tasks are those of the other methods. As adapted counts each member after its own number of
    inner steps; other numbers are measured where all members were.

    Args:
        members: runs of one mode each.
        modes: the modes in the order of the mode set.
    """
    from mmaml_tf.evaluation import Report

    shared = set.intersection(*(set(run.report.curve) for run in members))
    curve = sorted(shared)
    rows = [
        np.concatenate([run.report.values(steps=steps) for run in members])
        for steps in (*curve, None)
    ]
    mode = np.repeat(np.arange(len(modes)), [len(run.report.mode) for run in members])
    report = Report(
        {"accuracy": np.stack(rows)}, mode, tuple(modes), OWN_STEPS, (*curve, OWN_STEPS)
    )
    curves = [run.curves for run in members]
    return Run(
        report,
        members[0].seed,
        None,
        {mode: run.ways[mode] for mode, run in zip(modes, members, strict=True)},
        {mode: run.steps[mode] for mode, run in zip(modes, members, strict=True)},
        members[0].iterations,
        sum(run.skipped for run in members),
        [step for run in members for step in run.chosen],
        Curves(*map(mean_curve, zip(*curves, strict=True))) if all(curves) else None,
    )


def _check_same_tasks(cells):
    """Ends the program where paired differences would not be of the same tasks."""
    first = {}
    for cell in cells:
        for run in cell.runs:
            own = cell.name, run.seed, run
            column = cell.mode_set, cell.protocol
            name, seed, other = first.setdefault(column, own)
            same_tasks = run.digest is None or other.digest is None or run.digest == other.digest
            same_counts = np.array_equal(run.report.mode, other.report.mode)
            if not (same_tasks and same_counts and run.ways == other.ways):
                raise SystemExit(
                    f"report: {name}-{seed} and {cell.name}-{run.seed} were evaluated on "
                    "different tasks; evaluate both anew."
                )
            if other.digest is None and run.digest is not None:
                first[column] = own


def _json(path):
    return json.loads(path.read_text())
