"""The inputs of the classification report: where they are, and how a Multi-MAML is joined.

Nothing is computed with TensorFlow. It comes with the package, which is imported only once the
inputs are known to be there.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from pipelines import params as parameters
from pipelines import report_inputs
from pipelines.embedding_maps import Embeddings
from pipelines.published import METHODS
from pipelines.report_data import mean_curve
from pipelines.report_images_data import Cell, Curves, ModeSet, Results, Run
from pipelines.report_inputs import (
    check_same_tasks,
    find_ablations,
    joined_report,
    read_json,
    report_of,
    variants_of_methods,
)


class Files(report_inputs.Files):
    """Where the inputs of the report are, and which stage makes each."""

    def __init__(self, scale: str):
        super().__init__("classification", scale)

    def modes(self, mode_set: str) -> Path:
        """Returns the modes that a mode set has."""
        return self.models / "modes" / f"{mode_set}.json"

    def missing(self, params: dict, cells: Sequence[Cell]) -> dict[Path, str]:
        """Returns the stage that makes each missing input; without cells, of the mode sets."""
        trained = parameters.get(params, "classification.trained")
        names = [*trained["mode_sets"], *trained["members"]]
        mode_sets = parameters.stage(self.domain, f"mode_sets@{self.scale}")
        stages = {self.modes(name): mode_sets for name in names}
        for cell in cells:
            suffix = "image_members" if cell.members else "images"
            for name in cell.trained:
                stages |= self.stages(name, params["seeds"], suffix)
        return {path: stage for path, stage in stages.items() if not path.is_file()}


def table_cells(params: dict, files: Files) -> list[Cell]:
    """Returns the cells of the table, without runs, those that have no images left out."""
    trained = parameters.get(params, "classification.trained")
    wanted = parameters.get(params, "classification.mode_sets")
    member_of = {}
    for member in trained["members"]:
        for mode in read_json(files.modes(member))["modes"]:
            member_of.setdefault(mode, member)
    cells = []
    for kind in METHODS:
        for mode_set in trained["mode_sets"]:
            modes = read_json(files.modes(mode_set))["modes"]
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
        SystemExit: for cells of one column, or a variant and its cell, that were evaluated on
            different tasks.
    """
    trained = parameters.get(params, "classification.trained")
    protocols = parameters.get(params, "classification.protocols")
    found = {name: read_json(files.modes(name)) for name in trained["mode_sets"]}
    filled = {}
    for cell in cells:
        modes = tuple(found[cell.mode_set]["modes"])
        runs = (_cell_run(files, cell, modes, seed) for seed in params["seeds"])
        key = cell.kind, cell.mode_set, cell.protocol
        filled[key] = cell._replace(runs=[run for run in runs if run])
    ablations = _ablations(params, files, trained)
    check_same_tasks(filled.values(), ablations)
    statuses = _statuses(files, found)
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
        images={mode: status["images"] for mode, status in statuses.items()},
        altered={
            mode: altered
            for mode, status in statuses.items()
            if (altered := status.get("not_as_published"))
        },
        splits=parameters.get(params, "classification.splits"),
        schedule=parameters.classification_scale(params, files.scale),
        defaults=parameters.get(params, "classification.defaults"),
        member_batches=_member_batches(params, trained),
        ablations=ablations,
    )


def _ablations(params, files, trained):
    columns = map("-".join, product(trained["mode_sets"], trained["protocols"]))
    methods = parameters.get(params, "classification.ablations")
    return find_ablations(
        files,
        variants_of_methods(methods, [*columns]),
        params["seeds"],
        partial(parameters.classification_cell, params),
        partial(_run, files),
    )


def _statuses(files, mode_sets):
    """Returns what `prepare_images` wrote by mode, of those whose preparation is there."""
    modes = dict.fromkeys(mode for found in mode_sets.values() for mode in found["modes"])
    statuses = {mode: files.models / "images" / mode / "status.json" for mode in modes}
    return {mode: read_json(path) for mode, path in statuses.items() if path.is_file()}


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
    found = files.read(name, seed)
    if found is None or found[1].get("left_out"):
        return None
    arrays, metrics = found
    report = report_of(arrays, "accuracy")
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
        Embeddings.of(arrays),
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

    Args:
        members: runs of one mode each.
        modes: the modes in the order of the mode set.
    """
    curves = [run.curves for run in members]
    return Run(
        joined_report([run.report for run in members], modes),
        members[0].seed,
        None,
        {mode: run.ways[mode] for mode, run in zip(modes, members, strict=True)},
        {mode: run.steps[mode] for mode, run in zip(modes, members, strict=True)},
        members[0].iterations,
        sum(run.skipped for run in members),
        [step for run in members for step in run.chosen],
        Curves(*map(mean_curve, zip(*curves, strict=True))) if all(curves) else None,
    )
