"""The tables of the reinforcement-learning report, and the files that hold them."""

import csv
import json
from pathlib import Path

from pipelines import published, report_ablations
from pipelines.embedding_maps import nearest_centroid_accuracy
from pipelines.published import METHODS
from pipelines.report_data import Summary
from pipelines.report_inputs import with_earlier
from pipelines.report_page import Table
from pipelines.report_policies_data import PAIRS, Cell, Results, environment_title
from pipelines.report_policies_notes import markers
from pipelines.report_texts import (
    DASH,
    DIFFERENCE,
    NOT_RUN,
    difference_rows,
    number,
    seeds_note,
)

# Decimal places of an environment's returns, which differ in size.
_DIGITS = {"point_mass": 1, "reacher": 2, "ant": 0}


def headline_table(results: Results) -> Table:
    """Returns the table of returns after adaptation, above the published ones."""
    rows = []
    for kind in results.kinds:
        texts = (_return(results, kind, name) for name in results.sets)
        marks = (markers(results, kind, name) for name in results.sets)
        rows.append([METHODS[kind].label, *map("".join, zip(texts, marks, strict=True))])
        theirs = [published.REINFORCEMENT[kind].get(name) for name in results.sets]
        shown = (DASH if value is None else "{:g} ± {:g}".format(*value) for value in theirs)
        rows.append([f"{METHODS[kind].label}, published", *shown])
    return _by_set(results, "method", rows)


def differences_table(results: Results) -> Table:
    """Returns the table of paired differences over all goals of a set."""
    rows = [
        [
            f"{METHODS[kind].label} − {METHODS[reference].label}",
            *(_difference(results, kind, reference, name) for name in results.sets),
        ]
        for kind, reference in PAIRS
    ]
    return _by_set(results, "difference", rows)


def ablations_table(results: Results) -> Table:
    """Returns the table of the variants that were evaluated, each beside its cell."""
    return report_ablations.table(results.ablations, "return", _estimate)


def _estimate(value, sign=""):
    return f"{value.mean:{sign}.2f} ± {value.ci95:.2f}"


def _by_set(results, first, rows):
    environments = results.environments.items()
    groups = [(environment_title(name), len(sets)) for name, sets in environments]
    return Table([first, *(goals.title for goals in results.sets.values())], rows, groups)


def steps_table(results: Results, environment: str) -> Table:
    """Returns the table of returns by mode, before adaptation and after each inner step."""
    sets = results.environments[environment]
    trained = max(goals.inner_steps for goals in sets.values())
    names = ["before", *(f"after {steps}" for steps in range(1, trained + 1))]
    rows = []
    for name, goals in sets.items():
        for mode in (None, *goals.modes):
            texts = (
                _return(results, kind, name, mode=mode, steps=steps)
                for kind in results.kinds
                for steps in range(trained + 1)
            )
            rows.append([f"{goals.title}, {mode or 'all'}", *texts])
    groups = [(METHODS[kind].label, len(names)) for kind in results.kinds]
    return Table(["modes, mode", *names * len(groups)], rows, groups)


def _return(results, kind, column, **which):
    cell = results.cells.get((kind, column))
    if cell is None:
        return DASH
    if not cell.runs:
        return NOT_RUN
    value = cell.summary(**which)
    return _text(results, column, value) + seeds_note(value, results.seeds)


def _difference(results, kind, reference, column):
    if not {(kind, column), (reference, column)} <= set(results.cells):
        return DASH
    estimates = results.differences(kind, reference, column)
    if not estimates:
        return NOT_RUN
    value = Summary.of([*estimates.values()])
    return _text(results, column, value, "+") + seeds_note(value, results.seeds)


def _text(results, column, value, sign=""):
    digits = _DIGITS[results.sets[column].environment]
    return f"{value.mean:{sign}.{digits}f} ± {value.spread:.{digits}f}"


def write_table_csv(results: Results, path: Path) -> None:
    """Writes one row per method, set of goals and mode ("all" for the whole set)."""
    last = max(goals.inner_steps for goals in results.sets.values())
    after = {f"return_{steps}_steps": steps for steps in range(last + 1)}
    fields = [
        *("method", "environment", "modes", "mode", "seeds", "tasks", "inner_steps"),
        *("return", "return_spread", "spread", "published", "published_spread"),
        *(name + end for name in after for end in ("", "_spread")),
        *("environment_steps", "skipped_updates", "unstable_rollouts"),
    ]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
        writer.writeheader()
        for cell in results.cells.values():
            for mode in (None, *results.sets[cell.column].modes):
                writer.writerow(_csv_row(results, cell, mode, after))


def _csv_row(results: Results, cell: Cell, mode, after):
    goals = results.sets[cell.column]
    row = {
        "method": METHODS[cell.kind].label,
        "environment": goals.environment,
        "modes": len(goals.modes),
        "mode": mode or "all",
        "seeds": len(cell.runs),
        "inner_steps": goals.inner_steps,
    }
    if mode is None:
        theirs = published.REINFORCEMENT[cell.kind].get(cell.column, (None, None))
        row |= zip(("published", "published_spread"), map(number, theirs), strict=True)
    if not cell.runs:
        return row | {"spread": NOT_RUN}
    value = cell.summary(mode)
    for name, steps in after.items():
        if steps in cell.curve:
            at = cell.summary(mode, steps)
            row |= {name: number(at.mean), f"{name}_spread": number(at.spread)}
    return row | {
        "tasks": value.tasks,
        "return": number(value.mean),
        "return_spread": number(value.spread),
        "spread": "ci95 over tasks" if value.seeds == 1 else "standard deviation over seeds",
        "environment_steps": cell.runs[0].environment_steps,
        "skipped_updates": cell.skipped,
        "unstable_rollouts": cell.unstable,
    }


def write_differences_csv(results: Results, path: Path) -> None:
    """Writes paired differences, one row a seed and, for several, one over seeds."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "reference", "environment", "modes", "mode", *DIFFERENCE])
        for name, goals in results.sets.items():
            for kind, reference in PAIRS:
                labels = METHODS[kind].label, METHODS[reference].label
                for mode in (None, *goals.modes):
                    where = goals.environment, len(goals.modes), mode or "all"
                    estimates = results.differences(kind, reference, name, mode)
                    for row in difference_rows(estimates):
                        writer.writerow([*labels, *where, *row])


def write_summary(results: Results, embedded: dict, path: Path) -> None:
    """Writes what the tables do not hold.

    Args:
        results: the results.
        embedded: by set of goals, the `embedding_maps.Embeddings` that are shown, or None.
        path: where to.
    """
    cells = results.cells.values()
    runs = [(f"{cell.name}-{run.seed}", run) for cell in cells for run in cell.runs]
    shown = {name: found for name, found in embedded.items() if found}
    summary = {
        "scale": results.scale,
        "seeds": results.seeds,
        "modes": {name: goals.modes for name, goals in results.sets.items()},
        "held_out_digests": results.digests,
        "environment_steps": {name: run.environment_steps for name, run in runs},
        "embedding_silhouette": {name: found.silhouette for name, found in shown.items()},
        "nearest_centroid_accuracy": {
            name: nearest_centroid_accuracy(found) for name, found in shown.items()
        },
        "unstable_rollouts": {name: run.unstable for name, run in runs if run.unstable},
        "ablations": report_ablations.summary(results.ablations, "return"),
        "not_run": [cell.name for cell in cells if not cell.runs],
    }
    keys = "embedding_silhouette", "nearest_centroid_accuracy"
    path.write_text(json.dumps(with_earlier(summary, path, keys), indent=1) + "\n")
