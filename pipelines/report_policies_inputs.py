"""The inputs of the reinforcement-learning report: where they are, how a Multi-ProMP is joined.

Nothing is computed with TensorFlow. It comes with the package, which is imported only once the
inputs are known to be there.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pipelines import params as parameters
from pipelines import report_inputs
from pipelines.embedding_maps import Embeddings
from pipelines.report_data import mean_curve
from pipelines.report_inputs import (
    check_same_tasks,
    find_ablations,
    joined_report,
    report_of,
    variants_of_methods,
)
from pipelines.report_policies_data import KINDS, Cell, GoalSet, Results, Run


class Files(report_inputs.Files):
    """Where the inputs of the report are, and which stage makes each."""

    def __init__(self, scale: str):
        super().__init__("reinforcement", scale)

    def missing(self, params: dict, cells: Sequence[Cell]) -> dict[Path, str]:
        """Returns the stage that makes each missing input; without cells there is none."""
        stages = {}
        for cell in cells:
            if cell.kind == "multi_promp":
                # Which modes its set has is known only to the package.
                for member in parameters.get(params, "reinforcement.trained.members"):
                    stages |= self.stages(f"single-{member}", params["seeds"], "policy_members")
            else:
                stages |= self.stages(cell.name, params["seeds"], "policies")
        return {path: stage for path, stage in stages.items() if not path.is_file()}


def table_cells(params: dict) -> list[Cell]:
    """Returns the cells of the table, without runs and members."""
    trained = parameters.get(params, "reinforcement.trained")
    kinds = [*trained["methods"], *(["multi_promp"] if trained["members"] else [])]
    return [Cell(kind, name) for kind in KINDS if kind in kinds for name in trained["sets"]]


def load(params: dict, files: Files, cells: Sequence[Cell]) -> Results:
    """Reads all inputs that exist.

    Raises:
        SystemExit: for cells of one column, or a variant and its cell, that were evaluated on
            different goals.
    """
    trained = parameters.get(params, "reinforcement.trained")
    sets = _goal_sets(params, trained["sets"])
    filled = {}
    for cell in cells:
        goals = sets[cell.column]
        if cell.kind == "multi_promp":
            members = {mode: f"{goals.environment}-{mode}" for mode in goals.modes}
            if not set(members.values()) <= set(trained["members"]):
                continue
            cell = cell._replace(members={mode: f"single-{m}" for mode, m in members.items()})
        runs = (_cell_run(files, cell, seed) for seed in params["seeds"])
        filled[cell.kind, cell.column] = cell._replace(runs=[run for run in runs if run])
    schedule = parameters.reinforcement_scale(params, files.scale)
    ablations = find_ablations(
        files,
        variants_of_methods(parameters.get(params, "reinforcement.ablations"), [*sets]),
        params["seeds"],
        partial(parameters.reinforcement_cell, params),
        partial(_run, files),
    )
    check_same_tasks(filled.values(), ablations)
    return Results(files.scale, params["seeds"], sets, filled, schedule, ablations)


def _goal_sets(params, names):
    """Returns the sets of goals by name, those of an environment together."""
    from mmaml_tf.rl.goal_modes import SETTINGS, GoalModes

    environments = list(SETTINGS)
    sets = {}
    for name in sorted(names, key=lambda name: environments.index(name.partition("-")[0])):
        environment, _, count = name.partition("-")
        steps = parameters.reinforcement_cell(params, f"promp-{name}")["inner_steps"]
        sets[name] = GoalSet(environment, GoalModes(environment, int(count)).modes, steps)
    return sets


def _cell_run(files, cell, seed):
    """Returns a cell's run with one seed, or None where not all of it was evaluated."""
    if not cell.members:
        return _run(files, cell.name, seed)
    members = [_run(files, name, seed) for name in cell.members.values()]
    return join(members, list(cell.members)) if all(members) else None


def _run(files, name, seed):
    """Returns a model's run, or None where it was not evaluated."""
    from mmaml_tf.rl.evaluation import Examples

    found = files.read(name, seed)
    if found is None:
        return None
    arrays, metrics = found
    report = report_of(arrays, "return")
    examples = [arrays.get(f"examples_{field}") for field in Examples._fields]
    steps_each = metrics["environment_steps"] / metrics["iterations"]
    return Run(
        report,
        seed,
        metrics["held_out_digest"],
        arrays["examples_goals"],
        None if any(array is None for array in examples) else Examples(*examples),
        metrics["iterations"],
        metrics["environment_steps"],
        metrics["rollouts"],
        metrics["skipped_updates"],
        metrics["unstable_rollouts"],
        _curve(files.history(name, seed), f"return_after_{report.steps}", steps_each),
        Embeddings.of(arrays),
    )


def _curve(path, column, steps_each):
    if not path.is_file():
        return None
    rows = np.genfromtxt(path, delimiter=",", names=True, ndmin=1)
    return np.stack([steps_each * rows["step"], rows[column]], axis=1)


def join(members: Sequence[Run], modes: Sequence[str]) -> Run:
    """Returns the run of a Multi-ProMP: each member's on the goals of its own mode.

    Args:
        members: runs of one mode each.
        modes: the modes in the order of the set.
    """
    curves = [run.curve for run in members]
    return Run(
        joined_report([run.report for run in members], modes),
        members[0].seed,
        None,
        np.concatenate([run.goals for run in members]),
        None,  # no picture shows its rollouts
        members[0].iterations,
        sum(run.environment_steps for run in members),
        members[0].rollouts,
        sum(run.skipped for run in members),
        sum(run.unstable for run in members),
        mean_curve(curves) if all(curve is not None for curve in curves) else None,
    )
