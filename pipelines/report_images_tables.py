"""The tables of the classification report, and the files that hold them."""

import csv
import json
from itertools import product
from pathlib import Path

from pipelines import embedding_maps, published, report_ablations
from pipelines.published import METHODS
from pipelines.report_data import Summary
from pipelines.report_images_data import Results
from pipelines.report_images_notes import markers
from pipelines.report_inputs import with_earlier
from pipelines.report_page import Table
from pipelines.report_texts import (
    DASH,
    DIFFERENCE,
    NOT_RUN,
    REFERENCES,
    difference_rows,
    number,
    seeds_note,
    title,
)


def protocol_title(results: Results, protocol: str) -> str:
    """Returns the name of a protocol in tables and pictures."""
    ways, support = results.protocols[protocol]
    return f"{ways}-way {support}-shot"


def headline_table(results: Results) -> Table:
    """Returns the table of accuracies beside the published ones."""

    def texts(kind, mode_set, protocol):
        theirs = published.CLASSIFICATION.get((kind, mode_set), {}).get(protocol)
        ours = _accuracy(results, kind, mode_set, protocol)
        return [
            ours + markers(results, kind, mode_set, protocol),
            DASH if theirs is None else f"{theirs:.2f}",
        ]

    return _by_protocol(results, ["ours", "published"], texts)


def chance_table(results: Results) -> Table:
    """Returns whether each cell is above chance."""

    def texts(*key):
        runs = results.runs(*key)
        if not runs:
            return [NOT_RUN if key in results.cells else DASH] * 3
        lowest = min(run.lower_end for run in runs)
        above = "yes" if above_chance(runs) else "no"
        return [f"{100 * runs[0].chance:.1f}", f"{100 * lowest:.1f}", above]

    return _by_protocol(results, ["chance", "lower end", "above"], texts)


def above_chance(runs) -> bool:
    """Returns whether the lower end of every run's interval is above chance."""
    return all(run.lower_end > run.chance for run in runs)


def differences_table(results: Results) -> Table:
    """Returns the table of paired differences over all tasks of a mode set."""

    def texts(kind, *column):
        return [_difference(results, kind, reference, *column) for reference in REFERENCES]

    return _by_protocol(results, [f"− {METHODS[r].label}" for r in REFERENCES], texts)


def ablations_table(results: Results) -> Table:
    """Returns the table of the variants that were evaluated, each beside its cell."""
    return report_ablations.table(results.ablations, "accuracy", _estimate)


def _estimate(value, sign=""):
    return f"{100 * value.mean:{sign}.1f} ± {100 * value.ci95:.1f}"


def per_mode_table(results: Results, protocol: str) -> Table:
    """Returns the table of accuracies by mode, with the ways of those that have fewer."""
    asked, rows = results.protocols[protocol][0], []
    for name, mode_set in results.mode_sets.items():
        ways = results.ways(name, protocol)
        for mode in mode_set.modes:
            fewer = f" ({ways[mode]}-way)" if ways.get(mode, asked) < asked else ""
            texts = (_accuracy(results, k, name, protocol, mode=mode) for k in results.kinds)
            rows.append([f"{title(name)}, {mode}{fewer}", *texts])
    return Table(["modes, mode", *(METHODS[kind].label for kind in results.kinds)], rows)


def _by_protocol(results, names, texts):
    """Returns a table of one row per mode set and method with columns `names` per protocol."""
    rows = [
        [
            f"{title(mode_set)}, {METHODS[kind].label}",
            *(text for protocol in results.protocols for text in texts(kind, mode_set, protocol)),
        ]
        for mode_set, kind in product(results.mode_sets, results.kinds)
    ]
    groups = [(protocol_title(results, protocol), len(names)) for protocol in results.protocols]
    return Table(["modes, method", *names * len(groups)], rows, groups)


def _accuracy(results, *key, **which):
    cell = results.cells.get(key)
    if cell is None:
        return DASH
    if not cell.runs:
        return NOT_RUN
    value = cell.summary(**which)
    return percent(value) + seeds_note(value, results.seeds)


def percent(value: Summary, sign: str = "") -> str:
    """Returns a mean and its spread in %."""
    return f"{100 * value.mean:{sign}.1f} ± {100 * value.spread:.1f}"


def _difference(results, kind, reference, *column):
    if kind == reference or not {(kind, *column), (reference, *column)} <= set(results.cells):
        return DASH
    estimates = results.differences(kind, reference, *column)
    if not estimates:
        return NOT_RUN
    value = Summary.of([*estimates.values()])
    return percent(value, "+") + seeds_note(value, results.seeds)


def write_table_csv(results: Results, path: Path) -> None:
    """Writes one row per method, mode set, protocol and mode ("all" for the whole set)."""
    curve = {steps for cell in results.cells.values() if cell.runs for steps in cell.curve}
    after = {f"accuracy_{steps}_steps": steps for steps in sorted(curve)}
    fields = [
        *("method", "modes", "protocol", "mode", "ways", "seeds", "tasks", "inner_steps"),
        *("accuracy", "accuracy_spread", "spread", "published", "chance", *after),
        "skipped_updates",
    ]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
        writer.writeheader()
        for cell in results.cells.values():
            for mode in (None, *results.mode_sets[cell.mode_set].modes):
                writer.writerow(_csv_row(cell, mode, after))


def _csv_row(cell, mode, after):
    """Returns a row; accuracies are fractions, as in all files, except the published."""
    row = {
        "method": METHODS[cell.kind].label,
        "modes": cell.mode_set,
        "protocol": cell.protocol,
        "mode": mode or "all",
        "seeds": len(cell.runs),
    }
    if mode is None:
        theirs = published.CLASSIFICATION.get((cell.kind, cell.mode_set), {})
        row["published"] = number(theirs.get(cell.protocol))
    if not cell.runs:
        return row | {"spread": NOT_RUN}
    run, value = cell.runs[0], cell.summary(mode)
    of = run.ways if mode is None else {mode: run.ways[mode]}
    steps = run.steps if mode is None else {mode: run.steps[mode]}
    for name, count in after.items():
        if count in cell.curve:
            row[name] = number(cell.summary(mode, count).mean)
    return row | {
        "ways": "/".join(map(str, dict.fromkeys(of.values()))),
        "tasks": value.tasks,
        "inner_steps": "/".join(map(str, dict.fromkeys(steps.values()))),
        "accuracy": number(value.mean),
        "accuracy_spread": number(value.spread),
        "spread": "ci95 over tasks" if value.seeds == 1 else "standard deviation over seeds",
        "chance": number(run.chance if mode is None else 1 / run.ways[mode]),
        "skipped_updates": cell.skipped,
    }


def write_differences_csv(results: Results, path: Path) -> None:
    """Writes paired differences, one row a seed and, for several, one over seeds."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "reference", "modes", "protocol", "mode", *DIFFERENCE])
        keys = product(results.mode_sets.items(), results.protocols, REFERENCES, results.kinds)
        for (name, mode_set), protocol, reference, kind in keys:
            if kind == reference:
                continue
            for mode in (None, *mode_set.modes):
                estimates = results.differences(kind, reference, name, protocol, mode)
                labels = METHODS[kind].label, METHODS[reference].label
                for row in difference_rows(estimates):
                    writer.writerow([*labels, name, protocol, mode or "all", *row])


def write_summary(results: Results, embedded: dict, path: Path) -> None:
    """Writes what the tables do not hold.

    Args:
        results: the results.
        embedded: by mode set, the `embedding_maps.Embeddings` that are shown, or None.
        path: where to.
    """
    cells = results.cells.values()
    runs = [(f"{cell.name}-{run.seed}", cell, run) for cell in cells for run in cell.runs]
    summary = {
        "scale": results.scale,
        "seeds": results.seeds,
        "mode_sets": {name: mode_set._asdict() for name, mode_set in results.mode_sets.items()},
        "held_out_digests": results.digests,
        "chosen_iterations": {name: run.chosen for name, _, run in runs},
        "not_above_chance": [c.name for c in cells if c.runs and not above_chance(c.runs)],
        "nearest_centroid_accuracy": {
            name: embedding_maps.nearest_centroid_accuracy(found)
            for name, found in embedded.items()
            if found
        },
        "ablations": report_ablations.summary(results.ablations, "accuracy"),
        "not_run": [cell.name for cell in cells if not cell.runs],
    }
    summary = with_earlier(summary, path, ["nearest_centroid_accuracy"])
    path.write_text(json.dumps(summary, indent=1) + "\n")
