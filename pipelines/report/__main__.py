"""The stages `report_*`: tables, differences, pictures and the section of one domain."""

import argparse
import json
from pathlib import Path

from pipelines import params as parameters
from pipelines.report import facts, figures, rates, special, tables, templates, variants
from pipelines.report.domains import DOMAINS
from pipelines.report.frame import Scores, read


def main() -> None:
    """Writes the report of the domain and scale that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("domain", choices=sorted(DOMAINS))
    parser.add_argument("--scale", required=True, choices=parameters.SCALES)
    parser.add_argument("--partial", action="store_true", help="report the cells that there are")
    arguments = parser.parse_args()
    write(arguments.domain, arguments.scale, parameters.load(), arguments.partial)


def write(domain: str, scale: str, params: dict, partial: bool = False) -> None:
    """Writes the report of a domain at a scale.

    Args:
        domain: its name.
        scale: the scale.
        params: params.yaml.
        partial: whether cells of params.yaml may be missing.
    """
    cells = DOMAINS[domain].cells(params)
    scores = read(DOMAINS[domain], scale)
    missing = facts.not_run(scores, params)
    if missing and not partial:
        raise SystemExit(
            f"report: {missing[0]} was not evaluated at {scale} scale, and {len(missing) - 1} "
            "more; run `dvc repro`, or report what there is with --partial."
        )
    directory = scores.directory
    if not scores.runs and any((directory / "metrics").glob("*.json")) and not scores.left_out:
        raise SystemExit(
            f"report: {directory} has metrics but no scores, which are needed; its report is a "
            "record of an earlier version. Evaluate anew to replace it."
        )
    directory.mkdir(parents=True, exist_ok=True)
    numbers = tables.Numbers(scores, cells)
    known = facts.collect(scores, params)
    compared = variants.compare(scores, params)
    tables.write_table(numbers, directory / "table.csv")
    tables.write_differences(numbers, directory / "differences.csv")
    summary = summarise(scores, numbers, compared, missing)
    (directory / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    content = {
        "domain": scores.domain,
        "scale": scale,
        "remarks": facts.remarks(known, domain),
        "headline": tables.headline(numbers),
        "more": tables.more(numbers),
        "by_mode": tables.by_mode(numbers),
        "variants": variants.table(scores, compared),
        "figures": draw(numbers, directory),
    }
    templates.write("section.md.j2", directory / "table.md", **content)
    templates.write("section.html.j2", directory / "section.html", **content)
    print(directory)


def draw(numbers: tables.Numbers, directory: Path) -> dict[str, list]:
    """Draws all pictures that there is something for; returns them by heading.

    What cannot be drawn, because its evaluation kept nothing of it, is shown from `records/`.
    """
    plots = directory / "plots"
    plots.mkdir(exist_ok=True)
    name = numbers.scores.domain.name
    kinds = [*special.PICTURES[name], figures.training_curves, figures.inner_steps]
    kinds += [rates.learned_rates] + [figures.per_mode] * (name == "regression")
    found = [figure for kind in kinds if numbers.cells for figure in kind(numbers, plots)]
    shown = {figure.name for figure in found}
    for picture in plots.glob("*.png"):
        if picture.name not in shown:
            picture.unlink()
    by_heading = {}
    for figure in found:
        by_heading.setdefault(figure.heading, []).append((f"plots/{figure.name}", figure.caption))
    for picture in sorted((directory / "records").glob("*.png")):
        figure = special.record(picture.name, name)
        if figure and picture.name not in shown:
            pair = f"records/{figure.name}", figure.caption
            by_heading.setdefault(figure.heading, []).append(pair)
    return by_heading


def summarise(scores: Scores, numbers: tables.Numbers, compared: list, missing: list) -> dict:
    """Returns what the tables do not hold."""
    runs = {
        f"{scores.domain.run_name(method, tasks)}-{seed}": run
        for (method, tasks, seed), run in scores.runs.items()
        if (method, tasks) in numbers.cells and method != "bayes"
    }
    embedded = {}
    for name, run in runs.items():
        if len(run.names) == 1 and "confusion" in (arrays := scores.arrays(run.names[0])):
            embedded[name] = {"nearest_centroid_accuracy": special.accuracy(arrays["confusion"])}
            if "silhouette" in arrays:
                embedded[name]["silhouette"] = float(arrays["silhouette"])
    found = {}
    for item in compared:
        difference = {key: float(item["difference"][key]) for key in ("mean", "ci95", "n")}
        entry = {"differs_in": item["changes"], "difference": difference}
        found.setdefault(item["name"], {})[item["reference"]] = entry
    return {
        "scale": scores.scale,
        "seeds": scores.seeds,
        "modes": {tasks: list(scores.modes(tasks)) for tasks in scores.sets},
        "held_out_digests": facts.digests(scores),
        "iterations": {name: run.metrics.get("iterations") for name, run in runs.items()},
        "chosen_iterations": facts.chosen(scores),
        "embeddings": embedded,
        "variants": found,
        "not_run": missing,
    }


if __name__ == "__main__":
    main()
