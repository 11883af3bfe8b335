"""What the reinforcement-learning report says about its numbers."""

from pipelines import published
from pipelines.published import METHODS
from pipelines.report_policies_data import Cell, Results, environment_title
from pipelines.report_texts import NOT_RUN, alternatives, digests_note, seeds_text, spread_note

# Markers of the headline table.
_UNSTABLE, _SKIPPED = "¹", "²"


def markers(results: Results, kind: str, column: str) -> str:
    """Returns the marks of a cell that some note under the table is about."""
    cell = results.cells.get((kind, column))
    if cell is None:
        return ""
    return _UNSTABLE * bool(cell.unstable) + _SKIPPED * bool(cell.skipped)


def table_notes(results: Results) -> list[str]:
    """Returns the notes under the headline table."""
    cells = results.cells.values()
    notes = [
        "Undiscounted return of an episode after the last inner step, higher is better; of a task "
        "the mean over its rollouts, over a set the unweighted mean of its modes' means.",
        f"{spread_note(results.seeds)} The interval is stratified by mode: how many goals there "
        "are of each is fixed, so that differences between modes are no part of it.",
    ]
    unstable = [_share(results, c, c.unstable, f"of {_rollouts(c)}") for c in cells if c.unstable]
    if unstable:
        notes.append(
            f"{_UNSTABLE} Rollouts of the evaluation whose simulation became unstable; they are no "
            f"part of their task's mean: {'; '.join(unstable)}."
        )
    skipped = [
        _share(results, c, c.skipped, f"in {_iterations(c)} iterations") for c in cells if c.skipped
    ]
    if skipped:
        notes.append(
            f"{_SKIPPED} Outer updates, one an epoch, were skipped because their meta-gradient was "
            f"not finite: {'; '.join(skipped)}."
        )
    missing = [cell.name for cell in cells if not cell.runs]
    if missing:
        notes.append(f"Cells that are “{NOT_RUN}”: {', '.join(missing)}.")
    return notes


def _share(results, cell, part, of_whole):
    name = f"{METHODS[cell.kind].label}, {results.sets[cell.column].full_title}"
    return f"{name}: {part} {of_whole}"


def _rollouts(cell: Cell):
    return sum(len(run.report.mode) * run.rollouts * len(cell.curve) for run in cell.runs)


def _iterations(cell: Cell):
    return max(1, len(cell.members)) * sum(run.iterations for run in cell.runs)


def protocol_notes(results: Results) -> list[str]:
    """Returns what was done, in short."""
    schedule = results.schedule
    steps = [
        f"{max(goals.inner_steps for goals in sets.values())} ({environment_title(name)})"
        for name, sets in results.environments.items()
    ]
    return [
        f"Scale “{results.scale}”: in each iteration {schedule['tasks']} tasks, each with "
        f"{schedule['rollouts']} rollouts before and after every inner step; "
        f"{seeds_text(results.seeds)}.",
        *(_training(results, environment) for environment in results.environments),
        f"Inner steps, in training and in the evaluation: {', '.join(steps)}.",
        "Evaluation: fixed held-out goals, which differ from those of training and are the same "
        "for all methods; those of a mode are the same in every set. Policies act at random as in "
        "training, with new rollouts before and after each inner step.",
        "A mode is named after the direction of its goals' centre in degrees: deg45 lies to the "
        "upper right.",
        "Multi-ProMP has one ProMP per mode, trained alone and chosen by the true mode of a task. "
        "It is there only if all of them were evaluated.",
        digests_note(results.digests),
    ]


def _training(results, environment):
    """Returns how long was trained and how much is evaluated, of one environment."""
    cells = [c for c in results.cells.values() if results.sets[c.column].environment == environment]
    runs = [(cell, run) for cell in cells for run in cell.runs]
    name = environment_title(environment)
    if not runs:
        return f"{name.capitalize()}: {NOT_RUN}."
    alone = {(run.iterations, run.environment_steps) for cell, run in runs if not cell.members}
    joined = {
        (run.iterations, run.environment_steps // len(cell.members))
        for cell, run in runs
        if cell.members
    }
    trained = [_amounts(alone)] if alone else []
    trained += [f"each member of Multi-ProMP {_amounts(joined)}"] if joined else []
    goals = alternatives({sum(run.report.mode == 0) for _, run in runs})
    rollouts = alternatives({run.rollouts for _, run in runs})
    return (
        f"{name.capitalize()}: {', '.join(trained)} (published: "
        f"{published.POLICY_ITERATIONS[environment]} iterations). Evaluated on {goals} goals of "
        f"each mode with {rollouts} rollouts each."
    )


def _amounts(amounts):
    return alternatives(
        f"{count} iterations ({steps / 1e6:.3g} million environment steps)"
        for count, steps in amounts
    )


def deviation_notes(results: Results) -> list[str]:
    """Returns what differs from the published protocol, or may differ."""
    rates = results.schedule["outer_learning_rate"]
    differing = [
        f"{rates[name]:g} for the {environment_title(name)} (published: {rate:g})"
        for name, rate in published.POLICY_OUTER_LEARNING_RATES.items()
        if name in results.environments and rates[name] != rate
    ]
    return [
        published.SOURCE,
        published.REINFORCEMENT_PROTOCOL,
        *([f"The outer learning rate is {', '.join(differing)}."] if differing else []),
        published.REINFORCEMENT_UNKNOWN,
        *published.REINFORCEMENT_DIFFERENCES,
    ]
