"""Stage `report_policies`: tables, paired differences, pictures and the page's section."""

import warnings
from pathlib import Path

from pipelines import (
    embedding_maps,
    embedding_plots,
    policy_plots,
    report_ablations,
    report_data,
    report_rates,
)
from pipelines import params as parameters
from pipelines import report_policies_inputs as inputs
from pipelines import report_policies_tables as tables
from pipelines.plot_style import Band, smoothing_window
from pipelines.policy_frames import CannotDrawError, Strip, draw_rollouts
from pipelines.published import METHODS
from pipelines.report_page import Section, bullets, figure, paragraph, write_domain
from pipelines.report_policies_data import Results, environment_title
from pipelines.report_policies_notes import deviation_notes, protocol_notes, table_notes
from pipelines.report_texts import NOT_HERE, NOT_RUN, listed

_MAPS = embedding_maps.SETTINGS["reinforcement"]
# Rollouts are shown of the set with so many modes, or nearly so many.
_SHOWN_MODES = 4
_SHOWN_METHODS = ("mmaml", "promp")

HEADLINE = "Return after adaptation"
STEPS = "Return by mode, before adaptation and after each inner step"
DIFFERENCES = (
    "Paired difference in return after adaptation over the same held-out goals, positive is better "
    "for the first; ± as above. differences.csv has the modes too"
)
ABLATIONS = (
    "Return after adaptation of variants of the methods, and their paired difference over the same "
    "held-out goals; ± is the half-width of the 95 % confidence interval over goals"
)
LEARNING_CURVES = (
    "Return after adaptation on the goals of training against environment steps{averaged}; thin, "
    "as logged; thick, the centred running median of {window} logged values at most. Multi-ProMP "
    "is the mean of its members, against the steps of one of them."
)
INNER_STEPS = (
    "Return over all held-out goals by number of inner steps; the band is ± as in the table. The "
    "dotted vertical line marks the number used in training. MMAML is modulated from the first "
    "inner step on."
)
TRAJECTORIES = (
    "{set}: one rollout of up to four held-out goals (stars) of each mode, before adaptation and "
    "after each inner step; a dot marks its end. One seed (the first that is here); paths may "
    "leave the picture."
)
FRAMES = (
    "{set}: one rollout of MMAML for the first held-out goal (red) of two modes, before adaptation "
    "and after the last inner step. One seed (the first that is here)."
)
EMBEDDINGS = (
    "t-SNE maps of the task embeddings of MMAML, coloured by mode: all held-out goals, "
    f"{_MAPS}, {embedding_maps.COMMON}. {embedding_maps.SILHOUETTE}"
)


def draw(results: Results, frames: dict, directory: Path) -> None:
    """Draws all pictures that there is something for.

    Args:
        results: the results.
        frames: by environment, `policy_frames.Strip`.
        directory: where to.
    """
    curves = _grid(results, lambda name: _curves(results.ran(name)))
    policy_plots.learning_curves(curves, directory / "learning_curves.png")
    bands = _grid(
        results, lambda name: {kind: _band(cell) for kind, cell in results.ran(name).items()}
    )
    trained = {
        environment_title(name): max(goals.inner_steps for goals in sets.values())
        for name, sets in results.environments.items()
    }
    policy_plots.inner_steps(bands, trained, directory / "inner_steps.png")
    name = shown_set(results, "point_mass", _SHOWN_METHODS)
    if name:
        rows = {}
        for kind in _SHOWN_METHODS:
            for run in shown_runs(results, kind, name)[:1]:
                positions = run.examples.observations[..., :2]
                rows[METHODS[kind].label] = positions, run.examples.goals, run.examples.mode
        path = directory / "trajectories.png"
        policy_plots.trajectories(rows, results.sets[name].modes, path)
    for environment, strip in frames.items():
        policy_plots.frames(*strip, directory / f"frames_{environment}.png")
    for environment, embedded in embedded_panels(results).items():
        # Colours are those of the set whose rollouts are shown.
        sets = sorted(results.environments[environment].values(), key=_unlike_shown)
        modes = list(dict.fromkeys(mode for goals in sets for mode in goals.modes))
        embedding_plots.draw(embedded, modes, _MAPS, directory, f"_{environment}")


def _grid(results, content):
    """Returns `content(set of goals)` by titles of environments and numbers of modes."""
    titles = dict.fromkeys(goals.title for goals in results.sets.values())
    rows = {}
    for environment, sets in results.environments.items():
        found = {goals.title: content(name) for name, goals in sets.items()}
        rows[environment_title(environment)] = {title: found.get(title) for title in titles}
    return rows


def _curves(cells):
    curves = {
        kind: [run.curve for run in cell.runs if run.curve is not None]
        for kind, cell in cells.items()
    }
    return {kind: report_data.mean_curve(found) for kind, found in curves.items() if found}


def _band(cell):
    return Band.of(cell.curve, [cell.summary(steps=steps) for steps in cell.curve])


def shown_set(results: Results, environment: str, kinds) -> str | None:
    """Returns the set of an environment whose rollouts are shown, None if `kinds` have none.

    It is one that most of them have rollouts of.
    """
    counts = {
        name: sum(bool(shown_runs(results, kind, name)) for kind in kinds)
        for name in results.environments.get(environment, {})
    }
    shown = [name for name in counts if counts[name] and counts[name] == max(counts.values())]
    return min(shown, key=lambda name: _unlike_shown(results.sets[name]), default=None)


def shown_runs(results: Results, kind: str, column: str) -> list:
    """Returns the runs of a kind on a set of goals that have rollouts to show."""
    return [run for run in results.runs(kind, column) if run.examples]


def _none_to_show(results, environment, kinds):
    """Returns why kinds have no rollouts of an environment."""
    names = results.environments.get(environment, {})
    ran = any(results.runs(kind, name) for kind in kinds for name in names)
    return NOT_HERE if ran else NOT_RUN


def _unlike_shown(goals):
    return abs(len(goals.modes) - _SHOWN_MODES)


def embedded_by_set(results: Results) -> dict[str, embedding_maps.Embeddings | None]:
    """Returns by set of goals the embeddings of the first MMAML run that has any, else None."""
    return {
        name: next((r.embeddings for r in results.runs("mmaml", name) if r.embeddings), None)
        for name in results.sets
    }


def embedded_panels(results: Results) -> dict[str, dict]:
    """Returns by environment that has embeddings, them by title of the set of goals."""
    embedded = embedded_by_set(results)
    panels = {
        environment: {goals.title: embedded[name] for name, goals in sets.items()}
        for environment, sets in results.environments.items()
    }
    return {name: found for name, found in panels.items() if any(found.values())}


def rollout_frames(results: Results) -> tuple[dict[str, Strip], dict[str, str]]:
    """Returns by environment the frames of MMAML's rollouts, and why others have none."""
    frames, missing = {}, {}
    for environment in results.environments:
        if environment == "point_mass":  # its paths are shown whole
            continue
        name = shown_set(results, environment, ["mmaml"])
        if name is None:
            missing[environment] = f"MMAML: {_none_to_show(results, environment, ['mmaml'])}."
            continue
        run = shown_runs(results, "mmaml", name)[0]
        try:
            frames[environment] = draw_rollouts(environment, run.examples, run.report.modes)
        except CannotDrawError as error:
            missing[environment] = str(error)
            warnings.warn(f"no frames of the {environment}: {error}", stacklevel=1)
    return frames, missing


def page_sections(results: Results, frames: dict, missing_frames: dict) -> list[Section]:
    """Returns the reinforcement-learning part of the page.

    Args:
        results: the results.
        frames: see `draw`.
        missing_frames: by environment, why it has no frames.
    """
    return [
        Section("Protocol", bullets(protocol_notes(results))),
        Section(
            "Results beside the published ones",
            tables.headline_table(results).html(HEADLINE) + bullets(table_notes(results)),
        ),
        Section("What differs from the published protocol", bullets(deviation_notes(results))),
        Section("Paired differences", tables.differences_table(results).html(DIFFERENCES)),
        Section(
            "By mode and inner step",
            "".join(
                tables.steps_table(results, name).html(_steps_caption(name))
                for name in results.environments
            ),
        ),
        *report_ablations.sections(tables.ablations_table(results), ABLATIONS),
        Section("Training", figure("plots/learning_curves.png", _learning_curves_caption(results))),
        Section("Adaptation", figure("plots/inner_steps.png", INNER_STEPS)),
        Section("Rollouts", _rollouts(results, frames, missing_frames)),
        Section("Task embeddings", _embeddings(results)),
    ]


def _rollouts(results, frames, missing_frames):
    name = shown_set(results, "point_mass", _SHOWN_METHODS)
    if name:
        caption = TRAJECTORIES.format(set=results.sets[name].full_title.capitalize())
        body = figure("plots/trajectories.png", caption)
    else:
        why = _none_to_show(results, "point_mass", _SHOWN_METHODS)
        body = paragraph(f"Paths of the point mass are not shown. MMAML and ProMP: {why}.")
    for environment in frames:
        name = shown_set(results, environment, ["mmaml"])
        caption = FRAMES.format(set=results.sets[name].full_title.capitalize())
        body += figure(f"plots/frames_{environment}.png", caption)
    for environment, why in missing_frames.items():
        name = environment_title(environment)
        body += paragraph(f"Frames of the {name} are not shown: {why}")
    return body


def _embeddings(results):
    environments = embedded_panels(results)
    if not environments:
        why = {_none_to_show(results, name, ["mmaml"]) for name in results.environments}
        return paragraph(f"MMAML: {NOT_HERE if NOT_HERE in why else NOT_RUN}.")
    body = paragraph(EMBEDDINGS) + paragraph(embedding_maps.CONFUSION)
    for environment in environments:
        name = environment_title(environment).capitalize()
        body += figure(f"plots/embeddings_{environment}.png", f"{name}, maps.")
        body += figure(f"plots/confusions_{environment}.png", f"{name}, nearest centroids.")
    return body


def _learning_curves_caption(results):
    runs = [run for cell in results.cells.values() for run in cell.runs]
    lengths = [len(run.curve) for run in runs if run.curve is not None]
    return LEARNING_CURVES.format(
        averaged=", averaged over seeds" if len(results.seeds) > 1 else "",
        window=smoothing_window(max(lengths, default=0)),
    )


def _steps_caption(environment):
    return f"{STEPS}, {environment_title(environment)}"


def markdown(results: Results) -> str:
    """Returns the tables and their notes in Markdown."""
    parts = [
        f"# Meta-reinforcement learning at {results.scale} scale\n",
        f"{HEADLINE}, and the published values below it.\n",
        tables.headline_table(results).markdown(),
        listed(table_notes(results)),
        "What was done:\n",
        listed(protocol_notes(results)),
        "What differs from the published protocol, or may:\n",
        listed(deviation_notes(results)),
        f"{DIFFERENCES}.\n",
        tables.differences_table(results).markdown(),
    ]
    for name in results.environments:
        parts += [f"{_steps_caption(name)}.\n", tables.steps_table(results, name).markdown()]
    parts += report_ablations.markdown(tables.ablations_table(results), ABLATIONS)
    return "\n".join(parts)


def main() -> None:
    """Writes the reinforcement-learning report of the scale that the command line names."""
    arguments = parameters.report_arguments(__doc__)
    params, files = parameters.load(), inputs.Files(arguments.scale)
    cells = inputs.table_cells(params)
    report_data.check_inputs(params, files, cells, arguments.partial)
    results = inputs.load(params, files, cells)
    frames, missing_frames = rollout_frames(results)

    directory = files.results
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "table.md").write_text(markdown(results))
    tables.write_table_csv(results, directory / "table.csv")
    tables.write_differences_csv(results, directory / "differences.csv")
    tables.write_summary(results, embedded_by_set(results), directory / "summary.json")
    draw(results, frames, directory / "plots")
    sections = page_sections(results, frames, missing_frames)
    rates = report_rates.find(directory)
    report_rates.draw(rates, directory / "plots")
    sections += report_rates.sections(rates)
    write_domain(directory / "section.html", "Meta-reinforcement learning", sections)
    print(tables.headline_table(results).markdown(), directory, sep="\n")


if __name__ == "__main__":
    main()
