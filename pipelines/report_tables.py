"""The tables of the regression report, their notes, and the files that hold them."""

import csv
import json
from itertools import product
from pathlib import Path

import numpy as np

from pipelines import published, report_ablations
from pipelines.published import METHODS
from pipelines.report_data import TARGETS, Results, Summary
from pipelines.report_inputs import with_earlier
from pipelines.report_page import Table
from pipelines.report_texts import (
    DASH,
    DIFFERENCE,
    NOT_RUN,
    REFERENCES,
    difference_rows,
    listed,
    number,
    seeds_note,
    spread_note,
    title,
)

# By column, the inner steps before its losses; None for as many as the method takes.
COLUMNS = {"post_modulation": 0, "post_adaptation": None}

NOISE_FREE = (
    "Final MSE against noise-free targets (after the inner steps; the LSTM learner and the "
    "Bayes-optimal predictor have none)"
)
PER_MODE = "Final MSE against noisy targets by mode"
TAILS = (
    "Final MSE against noisy targets: the median over tasks, and how much of the mean the worst "
    "1 % of the tasks carry"
)
ABLATIONS = "Final MSE against noisy targets of variants, and their paired difference"


def headline_table(results: Results) -> Table:
    """Returns the table of errors against noisy targets beside the published ones."""

    def texts(kind, size):
        values = published.REGRESSION.get((kind, size))
        first_layer = "¹" if (kind, size) in published.FIRST_LAYER_ONLY else ""
        skipped = "²" if any(run.skipped for run in results.runs(kind, size)) else ""
        for column, steps in COLUMNS.items():
            shown = column in METHODS[kind].shown
            yield _loss(results, kind, size, steps=steps) + skipped if shown else DASH
            theirs = getattr(values, column, None)
            yield DASH if theirs is None else f"{theirs:.3f}{first_layer}"

    names = ["post-modulation", "published", "post-adaptation", "published"]
    return _table(results, dict.fromkeys(results.mode_sets, names), texts)


def noise_free_table(results: Results) -> Table:
    """Returns the table of final errors against targets without noise."""
    names = {size: [title(size)] for size in results.mode_sets}
    table = _table(results, names, lambda *key: [_loss(results, *key, target="noise_free")])
    return table._replace(groups=())


def per_mode_table(results: Results) -> Table:
    """Returns the table of final errors against noisy targets by mode."""
    modes = results.mode_sets
    return _table(
        results,
        modes,
        lambda kind, size: [_loss(results, kind, size, mode=mode) for mode in modes[size]],
    )


def tails_table(results: Results) -> Table:
    """Returns the table of medians over tasks and shares of the worst tasks in the mean."""

    def texts(kind, size):
        runs = results.runs(kind, size)
        if not runs:
            return [_loss(results, kind, size)]
        losses = np.sort([run.report.values(measure="noisy") for run in runs])
        worst = losses[:, -max(1, losses.shape[1] // 100) :]
        share = np.mean(worst.sum(axis=1) / losses.sum(axis=1))
        return [f"{np.mean(np.median(losses, axis=1)):.3f}; {share:.0%}"]

    names = {size: [title(size)] for size in results.mode_sets}
    return _table(results, names, texts)._replace(groups=())


def ablations_table(results: Results) -> Table:
    """Returns the table of the variants that were evaluated, each beside its cell."""
    return report_ablations.table(results.ablations, "noisy", _estimate)


def _estimate(value, sign=""):
    return f"{value.mean:{sign}.3f} ± {value.ci95:.3f}"


def differences_table(results: Results) -> Table:
    """Returns the table of paired differences over all tasks of a mode set."""
    names = [f"− {METHODS[reference].label}" for reference in REFERENCES]
    return _table(
        results,
        dict.fromkeys(results.mode_sets, names),
        lambda kind, size: [_difference(results, kind, r, size) for r in REFERENCES],
    )


def _table(results, columns, texts):
    """Returns a table with the columns of each mode set; `texts(kind, size)` fills them."""
    rows = [
        [METHODS[kind].label, *(text for size in columns for text in texts(kind, size))]
        for kind in results.kinds
    ]
    header = ["method", *(name for names in columns.values() for name in names)]
    return Table(header, rows, [(title(size), len(names)) for size, names in columns.items()])


def _loss(results, kind, size, **which):
    cell = results.cells.get((kind, size))
    if cell is None:
        return DASH
    if not cell.runs:
        return NOT_RUN
    value = cell.summary(**which)
    return str(value) if kind == "bayes" else f"{value}{seeds_note(value, results.seeds)}"


def _difference(results, kind, reference, size):
    if kind == reference or (kind, size) not in results.cells:
        return DASH
    estimates = results.differences(kind, reference, size)
    if not estimates:
        return NOT_RUN
    value = Summary.of([*estimates.values()])
    return f"{value.mean:+.3f} ± {value.spread:.3f}{seeds_note(value, results.seeds)}"


def training_text(results: Results) -> str:
    """Returns how long was trained, beside how long was for the published results."""
    counts = {
        of_members: {
            run.iterations
            for cell in results.cells.values()
            if (cell.kind == "multi_maml") == of_members and cell.kind != "bayes"
            for run in cell.runs
        }
        for of_members in (False, True)
    }
    ours = " or ".join(map(str, sorted(counts[False]))) or "no"
    if counts[True] - counts[False]:
        members = " or ".join(map(str, sorted(counts[True])))
        ours += f" ({members} for each member of Multi-MAML)"
    return f"{ours} outer iterations (published: {published.ITERATIONS})"


def table_notes(results: Results) -> list[str]:
    """Returns the notes under the headline table."""
    skipped = []
    for (kind, size), cell in results.cells.items():
        if cell.skipped:
            updates = len(cell.trained) * sum(run.iterations for run in cell.runs)
            skipped.append(f"{METHODS[kind].label}, {title(size)}: {cell.skipped} of {updates}")
    notes = [
        spread_note(results.seeds, ", and the Bayes-optimal row,"),
        f"¹ {published.FIRST_LAYER_NOTE}",
    ]
    if skipped:
        notes.append(
            "² Outer updates were skipped because their meta-gradient was not finite: "
            f"{'; '.join(skipped)}."
        )
    sizes = (
        f"{title(size)}: {values['median']:.0f} and {values['percentile_5']:.1f}"
        for size, values in results.effective.items()
    )
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
        f"Ours: {training_text(results)} at this scale.",
        "Ours: all hidden layers are modulated in all mode sets unless the row says otherwise.",
        "Ours: Multi-MAML is one independently trained MAML per mode, chosen by the true mode "
        "label of each task.",
        "MMAML (sigmoid) and the layer-1-only rows have no published values of their own.",
    ]


def markdown(results: Results) -> str:
    """Returns the tables and their notes in Markdown."""
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
            f"{TAILS}.\n",
            tails_table(results).markdown(),
            *report_ablations.markdown(ablations_table(results), ABLATIONS),
        ]
    )


def write_table_csv(results: Results, path: Path) -> None:
    """Writes one row per method, mode set and mode ("all" for the whole set)."""
    losses = (f"{target}_{column}" for target, column in product(TARGETS, COLUMNS))
    fields = [
        *("method", "modes", "mode", "seeds", "tasks", "spread"),
        *(name + end for name in losses for end in ("", "_spread")),
        *(f"published_{column}" for column in COLUMNS),
        "skipped_updates",
    ]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
        writer.writeheader()
        for cell in results.cells.values():
            writer.writerows(_csv_row(cell, mode) for mode in (None, *cell.modes))


def _csv_row(cell, mode):
    label = METHODS[cell.kind].label
    row = {"method": label, "modes": cell.size, "mode": mode or "all", "seeds": len(cell.runs)}
    values = published.REGRESSION.get((cell.kind, cell.size))
    if values and mode is None:
        row |= {f"published_{column}": number(getattr(values, column)) for column in COLUMNS}
    if not cell.runs:
        return row | {"spread": NOT_RUN}
    for target, column in product(TARGETS, METHODS[cell.kind].shown):
        value = cell.summary(mode, COLUMNS[column], target)
        row[f"{target}_{column}"] = number(value.mean)
        row[f"{target}_{column}_spread"] = number(value.spread)
    row["spread"] = "ci95 over tasks" if value.seeds == 1 else "standard deviation over seeds"
    return row | {"tasks": value.tasks, "skipped_updates": cell.skipped}


def write_differences_csv(results: Results, path: Path) -> None:
    """Writes paired differences, one row a seed and, for several, one over seeds."""
    fields = ["method", "reference", "modes", "mode", *DIFFERENCE]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(fields)
        mode_sets = results.mode_sets.items()
        for (size, modes), reference, kind in product(mode_sets, REFERENCES, results.kinds):
            if kind == reference:
                continue
            for mode in (None, *modes):
                labels = [METHODS[kind].label, METHODS[reference].label, size, mode or "all"]
                estimates = results.differences(kind, reference, size, mode)
                writer.writerows([*labels, *row] for row in difference_rows(estimates))


def write_summary(results: Results, path: Path) -> None:
    """Writes what the tables do not hold: silhouettes and the Bayes rows."""
    bayes = {}
    for size, modes in results.mode_sets.items():
        report = results.runs("bayes", size)[0].report
        losses = {
            mode: {target: report.estimate(mode, measure=target)._asdict() for target in TARGETS}
            for mode in (None, *modes)
        }
        bayes[str(size)] = {
            "overall": losses.pop(None),
            "modes": losses,
            "effective_sample_size": results.effective[size],
        }
    cells = sorted(results.cells.values(), key=lambda cell: cell.size)
    summary = {
        "scale": results.scale,
        "seeds": results.seeds,
        "held_out_digest": results.held_out["digest"],
        "embedding_silhouette": {
            f"{cell.name}-{run.seed}": run.silhouette
            for cell in cells
            for run in cell.runs
            if run.silhouette is not None
        },
        "bayes": bayes,
        "ablations": report_ablations.summary(results.ablations, "noisy"),
        "not_run": [cell.name for cell in cells if not cell.runs],
    }
    summary = with_earlier(summary, path, ["embedding_silhouette"])
    path.write_text(json.dumps(summary, indent=2) + "\n")
