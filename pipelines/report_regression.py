"""Stage `report_regression`: tables, paired differences, pictures and the page's section."""

from pathlib import Path

import numpy as np

from pipelines import (
    embedding_plots,
    plots,
    report_ablations,
    report_data,
    report_rates,
    report_tables,
)
from pipelines import params as parameters
from pipelines.embedding_maps import RANDOM_STATE, SETTINGS, Embeddings, map_panels
from pipelines.plot_style import Band, smooth, smoothing_window
from pipelines.published import METHODS
from pipelines.report_data import Results
from pipelines.report_page import Section, bullets, figure, paragraph, write_domain
from pipelines.report_texts import NOT_HERE, NOT_RUN, seeds_text, title

_MAPS = SETTINGS["regression"]

# By name of the picture; `_captions` fills the blanks.
_CAPTIONS = {
    "per_mode": "Final MSE against noisy targets by mode, with the {spread}; logarithmic axis. "
    "Where the interval reaches below the axis it is cut off.",
    "differences": "Mean over all held-out tasks of a mode set of the difference in final MSE "
    "between two methods on the same task; negative is better than the method compared with. ± is "
    "the {difference_spread}. differences.csv has the modes too.",
    "training_curves": "Training loss (mean MSE on the query points of the batch, noisy) against "
    "outer iteration{averaged}; logarithmic vertical axis. Each logged value is the mean of "
    "{logged} iterations; the curves are slightly smoothed by a centred running median of {window} "
    "logged values, and leave the picture where they diverge. Multi-MAML is the mean of its "
    "single-mode members.",
    "adaptation_steps": "MSE over all held-out tasks against noisy targets, by number of inner "
    "steps, with the {spread} as a band; logarithmic vertical axis. The dotted vertical line marks "
    "the {inner_steps} steps used in training. Step 0 is the error after modulation; for MAML and "
    "Multi-MAML, which are not modulated, it is that of the initialisation, before it has seen the "
    "task. The LSTM learner has no inner steps (level dotted line). Dashed: Bayes-optimal. A curve "
    "that diverges leaves the picture.",
    "functions": "Three example tasks per mode (one row each), not among the held-out tasks: "
    "support points, the function without noise, and the predictions of MMAML (FiLM) after "
    "modulation and after each inner step, from light to dark; dashed, MAML after as many inner "
    "steps. One seed (the first that is here); panels have different vertical axes, and curves "
    "that do not fit may leave them.",
    "embeddings": "t-SNE maps of the task embeddings of MMAML (FiLM), coloured by mode: the first "
    f"{_MAPS.tasks} held-out tasks of each mode at most, perplexity {_MAPS.perplexity}, "
    f"random_state {RANDOM_STATE}, one seed (the first that is here). The silhouette is that of "
    "the modes among the raw embeddings of all held-out tasks (Euclidean distances; 1 is "
    "separate, 0 is mixed), not of the map.",
}


def draw(results: Results, directory: Path) -> None:
    """Draws all pictures."""

    def panels(content):
        return {title(size): content(results, size) for size in results.mode_sets}

    plots.training_curves(panels(_training_curves), directory / "training_curves.png")
    bayes = panels(lambda results, size: results.cells["bayes", size].summary().mean)
    path = directory / "adaptation_steps.png"
    plots.adaptation_steps(panels(_adaptation_bands), bayes, results.inner_steps, path)
    modes = panels(lambda results, size: results.mode_sets[size])
    plots.per_mode(panels(_mode_bands), modes, directory / "per_mode.png")
    start = f"{METHODS['film'].label}, after modulation"
    drawn = _drawn(results)
    for size, film in drawn.items():
        examples = _function_examples(film, results.runs("maml", size), size)
        path = directory / f"functions_{size}.png"
        plots.functions(examples, results.mode_sets[size], path, start)
    if drawn:
        modes = max(results.mode_sets.values(), key=len)
        embedded = {title(size): None for size in results.mode_sets}
        embedded |= {title(size): Embeddings.of(film.arrays) for size, film in drawn.items()}
        maps = map_panels(embedded, modes, _MAPS)
        embedding_plots.embeddings(maps, modes, directory / "embeddings.png")


def _drawn(results):
    """Returns by number of modes the first FiLM run whose arrays are here."""
    runs = {size: _with_arrays(results.runs("film", size)) for size in results.mode_sets}
    return {size: found[0] for size, found in runs.items() if found}


def _with_arrays(runs):
    # Scores that were kept have neither embeddings nor examples.
    return [run for run in runs if "example_x" in run.arrays]


def _training_curves(results, size):
    curves = {}
    for kind, cell in results.ran(size).items():
        histories = [run.history for run in cell.runs if run.history is not None]
        if histories:
            steps, losses = report_data.mean_curve(histories).T
            curves[kind] = steps, smooth(losses)
    return curves


def _adaptation_bands(results, size):
    bands = {}
    for kind, cell in results.ran(size).items():
        if kind == "bayes":
            continue
        # The LSTM learner has no inner step; further rows of its losses mean nothing.
        adapts = METHODS[kind].post_adaptation
        count = len(cell.runs[0].report.measures["noisy"]) if adapts else 1
        # Losses may overflow beyond the steps that were trained.
        with np.errstate(invalid="ignore"):
            summaries = [cell.summary(steps=step) for step in range(count)]
            bands[kind] = Band.of(range(count), summaries)
    return bands


def _mode_bands(results, size):
    return {
        kind: Band.of(range(len(cell.modes)), [cell.summary(mode) for mode in cell.modes])
        for kind, cell in results.ran(size).items()
    }


def _function_examples(film, mamls, size):
    own, baseline = film.arrays, None
    for maml in _with_arrays(mamls):
        if maml.seed == film.seed:
            baseline = maml.arrays["example_predictions"][-1]
            if not np.array_equal(maml.arrays["example_support_x"], own["example_support_x"]):
                raise SystemExit(
                    f"report: the example tasks of maml_{size} and film_{size} differ; evaluate "
                    "both anew."
                )
    return plots.Functions(
        own["example_support_x"][..., 0],
        own["example_support_y"][..., 0],
        own["example_mode"],
        own["example_x"],
        own["example_truth"],
        own["example_predictions"],
        baseline,
    )


def protocol_notes(results: Results) -> list[str]:
    """Returns what was done, in short."""
    tasks = results.held_out["distribution"]
    noise = tasks["noise"]
    low, high = tasks["x_range"]
    return [
        f"Scale “{results.scale}”: {report_tables.training_text(results)}, "
        f"{results.inner_steps} inner steps; {seeds_text(results.seeds)}.",
        f"Evaluation: the same {results.held_out['tasks_per_mode']} held-out tasks per mode for "
        f"all methods, each with {tasks['support']} support and {tasks['query']} query points, x "
        f"uniform in [{low:g}, {high:g}]. SHA-256 digest of the tasks: "
        f"{results.held_out['digest']}.",
        f"Gaussian noise of standard deviation {noise:g} on support and query targets, so that no "
        f"predictor has an expected error below {noise**2:.2g} (the noise floor).",
        "Headline metric: mean squared error (MSE) on the query points against noisy targets, "
        "after modulation and before any inner step (post-modulation) and after the inner steps "
        "(post-adaptation). The final error is the latter, and for the LSTM learner, which has "
        "no inner steps, the former.",
    ]


def _captions(results):
    several = len(results.seeds) > 1
    tasks, seeds = "95 % confidence interval over tasks", "standard deviation over seeds"
    runs = (run for cell in results.cells.values() for run in cell.runs)
    histories = [run.history for run in runs if run.history is not None]
    values = {
        "spread": seeds if several else tasks,
        "difference_spread": f"{seeds}, which are paired as well"
        if several
        else f"half-width of the {tasks}",
        "averaged": ", averaged over seeds" if several else "",
        # Every logged row is the mean of as many iterations as the first row's step.
        "logged": max((int(history[0, 0]) for history in histories), default=0),
        "window": smoothing_window(max(map(len, histories), default=0)),
        "inner_steps": results.inner_steps,
    }
    return {name: text.format(**values) for name, text in _CAPTIONS.items()}


def page_sections(results: Results) -> list[Section]:
    """Returns the regression part of the page."""
    captions = _captions(results)

    def shown(name):
        return figure(f"plots/{name}.png", captions[name])

    ran = any(results.runs("film", size) for size in results.mode_sets)
    functions = embeddings = paragraph(f"MMAML (FiLM): {NOT_HERE if ran else NOT_RUN}.")
    if sizes := _drawn(results):
        embeddings = shown("embeddings")
        functions = "".join(
            figure(f"plots/functions_{size}.png", f"{title(size)}. {captions['functions']}")
            for size in sizes
        )
    t = report_tables
    return [
        Section("Protocol", bullets(protocol_notes(results))),
        Section(
            "Results beside the published ones",
            t.headline_table(results).html("MSE against noisy targets")
            + bullets(t.table_notes(results))
            + t.noise_free_table(results).html(t.NOISE_FREE),
        ),
        Section("What differs from the published protocol", bullets(t.deviation_notes(results))),
        Section(
            "By mode",
            t.per_mode_table(results).html(t.PER_MODE)
            + shown("per_mode")
            + t.tails_table(results).html(t.TAILS),
        ),
        Section(
            "Paired differences",
            paragraph(captions["differences"])
            + t.differences_table(results).html("Difference in final MSE against noisy targets"),
        ),
        *report_ablations.sections(t.ablations_table(results), t.ABLATIONS),
        Section("Training", shown("training_curves")),
        Section("Adaptation", shown("adaptation_steps")),
        Section("Functions", functions),
        Section("Task embeddings", embeddings),
    ]


def main() -> None:
    """Writes the regression report of the scale that the command line names."""
    arguments = parameters.report_arguments(__doc__)
    params = parameters.load()
    files, cells = report_data.Files(arguments.scale), report_data.table_cells(params)
    report_data.check_inputs(params, files, cells, arguments.partial)
    results = report_data.load(params, files, cells)

    directory = files.results
    (directory / "table.md").write_text(report_tables.markdown(results))
    report_tables.write_table_csv(results, directory / "table.csv")
    report_tables.write_differences_csv(results, directory / "differences.csv")
    report_tables.write_summary(results, directory / "summary.json")
    draw(results, directory / "plots")
    rates = report_rates.find(directory)
    report_rates.draw(rates, directory / "plots")
    sections = page_sections(results) + report_rates.sections(rates)
    write_domain(directory / "section.html", "Few-shot regression", sections)
    print(report_tables.headline_table(results).markdown(), directory, sep="\n")


if __name__ == "__main__":
    main()
