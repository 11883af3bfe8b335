"""Stage `report_images`: tables, paired differences, pictures and the page's section."""

from pathlib import Path

import numpy as np

from pipelines import (
    embedding_maps,
    embedding_plots,
    image_plots,
    report_ablations,
    report_data,
    report_images_inputs,
    report_rates,
)
from pipelines import params as parameters
from pipelines import report_images_tables as tables
from pipelines.plot_style import Band
from pipelines.report_images_data import Results
from pipelines.report_images_notes import deviation_notes, protocol_notes, table_notes
from pipelines.report_page import Section, bullets, figure, paragraph, write_domain
from pipelines.report_texts import NOT_HERE, NOT_RUN, listed, title

_MAPS = embedding_maps.SETTINGS["classification"]
_SHOWN_QUERIES = 5

CHANCE = (
    "Chance, the mean over modes of 1/ways, and the lower end of the 95 % confidence interval over "
    "tasks (the lowest over seeds), in %; above: whether the latter is greater"
)
DIFFERENCES = (
    "Paired difference in accuracy in percentage points over the same test tasks, positive is "
    "better than the method compared with; ± as above. differences.csv has the modes too"
)
ABLATIONS = (
    "Accuracy in % over all test tasks of variants of the methods, and their paired difference in "
    "percentage points; ± is the half-width of the 95 % confidence interval over tasks"
)
_CAPTIONS = {
    "inner_steps": "Accuracy over all test tasks in % by number of inner steps; the band is ± as "
    "in the table. The dotted vertical line marks the {steps} steps used in training. Step 0 is "
    "before the task is seen, in MMAML (FiLM) after modulation. A prototypical network has no "
    "inner steps (level dotted line). Multi-MAML after equal numbers of steps of all members, of "
    "which some train with fewer.",
    "training_curves": "Accuracy in % against outer iteration{averaged}: thin, on the query images "
    "of training tasks, each the mean of {logged} iterations; marked, on the tasks of the "
    "validation classes, which choose the checkpoint. Multi-MAML is the mean of its members, whose "
    "tasks of a batch are others. Modes with fewer classes in validation have tasks of fewer ways "
    "there.",
    "embeddings": f"t-SNE maps of the task embeddings of MMAML (FiLM) for {{protocol}}, coloured "
    f"by dataset: the first test tasks of each mode, {{embedded}} in all, {_MAPS}, "
    f"{embedding_maps.COMMON}. {embedding_maps.SILHOUETTE}",
    "confusions": embedding_maps.CONFUSION,
    "episodes": "The first {protocol} test task of each mode: its support images, one of each "
    "class, and queries with their classes. Classes have no other names than these numbers, which "
    "are new in each task.",
}


def _panels(results, content):
    """Returns `content(mode set, protocol)` by the titles of rows and panels."""
    return {
        tables.protocol_title(results, protocol): {
            title(mode_set): content(mode_set, protocol) for mode_set in results.mode_sets
        }
        for protocol in results.protocols
    }


def draw(results: Results, examples: dict, directory: Path) -> None:
    """Draws all pictures that there is something for.

    Args:
        results: the results.
        examples: `image_plots.Episode` by mode.
        directory: where to.
    """
    chance = {
        (row, panel): ways and np.mean([1 / n for n in ways.values()])
        for row, panels in _panels(results, results.ways).items()
        for panel, ways in panels.items()
    }

    def bands(mode_set, protocol):
        return {kind: _band(cell) for kind, cell in results.ran(mode_set, protocol).items()}

    def curves(mode_set, protocol):
        ran = results.ran(mode_set, protocol).items()
        found = {kind: _mean_curves(cell.runs) for kind, cell in ran}
        return {kind: pair for kind, pair in found.items() if pair}

    steps = results.defaults["inner_steps"]
    path = directory / "inner_steps.png"
    image_plots.inner_steps(_panels(results, bands), chance, steps, path)
    path = directory / "training_curves.png"
    image_plots.training_curves(_panels(results, curves), chance, path)
    embedded = {title(name): found for name, found in embedded_by_mode_set(results).items()}
    modes = list(dict.fromkeys(m for s in results.mode_sets.values() for m in s.modes))
    embedding_plots.draw(embedded, modes, _MAPS, directory)
    if examples:
        image_plots.episodes(examples, directory / "episodes.png")


def _band(cell):
    return Band.of(cell.curve, [cell.summary(steps=steps) for steps in cell.curve])


def _mean_curves(runs):
    """Returns the means over seeds of training and validation curves, or None without any."""
    curves = [run.curves for run in runs if run.curves]
    return [report_data.mean_curve(part) for part in zip(*curves, strict=True)]


def _shown_protocol(results):
    """Returns the protocol whose tasks and embeddings are shown: 5-way 1-shot, if it is there."""
    return min(results.protocols, key=lambda name: (name != "5w1s", *results.protocols[name]))


def embedded_by_mode_set(results: Results) -> dict[str, embedding_maps.Embeddings | None]:
    """Returns by mode set the embeddings of the first FiLM run that has any, else None."""
    protocol = _shown_protocol(results)
    return {
        mode_set: next(
            (r.embeddings for r in results.runs("film", mode_set, protocol) if r.embeddings), None
        )
        for mode_set in results.mode_sets
    }


def example_tasks(params: dict, results: Results) -> tuple[dict, str]:
    """Returns a test task of each mode of the largest mode set, and why there is none."""
    from mmaml_tf.datasets import DatasetError
    from pipelines import classification

    largest = max(results.mode_sets, key=lambda name: len(results.mode_sets[name].modes))
    if not results.mode_sets[largest].modes:
        return {}, "no mode has images"
    method = parameters.get(params, "classification.trained.methods")[0]
    name = f"{method}-{largest}-{_shown_protocol(results)}"
    cell = classification.cell(params, results.scale, name, results.seeds[0])
    try:
        tasks = cell.tasks("test")
    except DatasetError as error:
        return {}, str(error)
    seed = parameters.get(params, "classification.evaluation.seed")
    examples = {}
    for episodes, _ in tasks.held_out(1, seed).batches(1):
        # One support image of each class, in the order of the labels.
        order = np.unique(episodes.support_y[0], return_index=True)[1]
        examples[tasks.modes[episodes.mode[0]]] = image_plots.Episode(
            episodes.support_x[0][order],
            episodes.query_x[0][:_SHOWN_QUERIES],
            episodes.query_y[0][:_SHOWN_QUERIES],
        )
    return examples, ""


def _captions(results):
    runs = [run for cell in results.cells.values() for run in cell.runs]
    logged = [int(run.curves.training[0, 0]) for run in runs if run.curves]
    values = {
        "steps": results.defaults["inner_steps"],
        "averaged": ", averaged over seeds" if len(results.seeds) > 1 else "",
        # Every logged row is the mean of as many iterations as the first row's step.
        "logged": max(logged, default=results.schedule["log_every"]),
        "protocol": tables.protocol_title(results, _shown_protocol(results)),
        "embedded": ", ".join(
            f"{len(embeddings.mode)} ({title(name)})"
            for name, embeddings in embedded_by_mode_set(results).items()
            if embeddings
        ),
    }
    return {name: text.format(**values) for name, text in _CAPTIONS.items()}


def page_sections(results: Results, missing_examples: str) -> list[Section]:
    """Returns the classification part of the page.

    Args:
        results: the results.
        missing_examples: why there is no picture of tasks; empty where there is one.
    """
    captions = _captions(results)

    def shown(name):
        return figure(f"plots/{name}.png", captions[name])

    protocol = _shown_protocol(results)
    ran = any(results.runs("film", mode_set, protocol) for mode_set in results.mode_sets)
    embeddings = paragraph(f"MMAML (FiLM): {NOT_HERE if ran else NOT_RUN}.")
    if any(embedded_by_mode_set(results).values()):
        embeddings = shown("embeddings") + shown("confusions")
    episodes = (
        paragraph(f"Not shown: {missing_examples}") if missing_examples else shown("episodes")
    )
    return [
        Section("Protocol", bullets(protocol_notes(results))),
        Section("Example tasks", episodes),
        Section(
            "Results beside the published ones",
            tables.headline_table(results).html("Accuracy in %")
            + bullets(table_notes(results))
            + tables.chance_table(results).html(CHANCE),
        ),
        Section("What differs from the published protocol", bullets(deviation_notes(results))),
        Section(
            "By mode",
            "".join(
                tables.per_mode_table(results, name).html(_per_mode_caption(results, name))
                for name in results.protocols
            ),
        ),
        Section("Paired differences", tables.differences_table(results).html(DIFFERENCES)),
        *report_ablations.sections(tables.ablations_table(results), ABLATIONS),
        Section("Adaptation", shown("inner_steps")),
        Section("Training", shown("training_curves")),
        Section("Task embeddings", embeddings),
    ]


def _per_mode_caption(results, protocol):
    return f"Accuracy in % by mode, {tables.protocol_title(results, protocol)}"


def markdown(results: Results) -> str:
    """Returns the tables and their notes in Markdown."""
    parts = [
        f"# Few-shot image classification at {results.scale} scale\n",
        "Accuracy in %, and the published values beside it.\n",
        tables.headline_table(results).markdown(),
        listed(table_notes(results)),
        "What was done:\n",
        listed(protocol_notes(results)),
        "What differs from the published protocol, or may:\n",
        listed(deviation_notes(results)),
        f"{CHANCE}.\n",
        tables.chance_table(results).markdown(),
    ]
    for name in results.protocols:
        parts.append(f"{_per_mode_caption(results, name)}.\n")
        parts.append(tables.per_mode_table(results, name).markdown())
    parts += [f"{DIFFERENCES}.\n", tables.differences_table(results).markdown()]
    parts += report_ablations.markdown(tables.ablations_table(results), ABLATIONS)
    return "\n".join(parts)


def main() -> None:
    """Writes the classification report of the scale that the command line names."""
    arguments = parameters.report_arguments(__doc__)
    params, files = parameters.load(), report_images_inputs.Files(arguments.scale)
    # Which cells there are depends on the modes, without which there is no report.
    report_data.check_inputs(params, files, [], partial=True)
    cells = report_images_inputs.table_cells(params, files)
    report_data.check_inputs(params, files, cells, arguments.partial)
    results = report_images_inputs.load(params, files, cells)
    examples, missing_examples = example_tasks(params, results)

    directory = files.results
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "table.md").write_text(markdown(results))
    tables.write_table_csv(results, directory / "table.csv")
    tables.write_differences_csv(results, directory / "differences.csv")
    embedded = embedded_by_mode_set(results)
    tables.write_summary(results, embedded, directory / "summary.json")
    draw(results, examples, directory / "plots")
    sections = page_sections(results, missing_examples)
    rates = report_rates.find(directory)
    report_rates.draw(rates, directory / "plots")
    sections += report_rates.sections(rates)
    write_domain(directory / "section.html", "Few-shot image classification", sections)
    print(tables.headline_table(results).markdown(), directory, sep="\n")


if __name__ == "__main__":
    main()
