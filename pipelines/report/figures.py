"""The pictures that all domains have: training, adaptation, and errors by mode."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipelines.report.domains import METHODS, group_title, modes_title
from pipelines.report.frame import ADAPTED
from pipelines.report.style import SETTINGS, method_legend, panel_grid, panels, save, smooth
from pipelines.report.tables import Numbers, chance_of

# Values from which a fall is drawn as no smaller: a logarithmic axis has no zero.
_SMALLEST = 1e-3
_CHANCE = {"color": "#888888", "ls": "--", "lw": 1.2}


class Figure(NamedTuple):
    """A picture of a report: the heading it stands under, its file's name, and its caption."""

    heading: str
    name: str
    caption: str


def grid(numbers: Numbers, content) -> dict:
    """Returns `content(method, set)` by titles of rows and panels and by method, where not None."""
    scores = numbers.scores
    sets = {tasks: scores.domain.values(tasks)["modes"] for tasks in scores.sets}
    rows = {}
    for group in dict.fromkeys(scores.domain.group(tasks) for tasks in sets):
        row = dict.fromkeys(modes_title(modes) for modes in dict.fromkeys(sets.values()))
        for tasks in sets:
            if scores.domain.group(tasks) == group:
                of_set = [method for method, other in numbers.cells if other == tasks]
                found = {method: content(method, tasks) for method in of_set}
                found = {method: value for method, value in found.items() if value is not None}
                row[modes_title(sets[tasks])] = found
        rows[group_title(group)] = row
    return rows


def training_curves(numbers: Numbers, directory: Path) -> list[Figure]:
    """Draws what training logged."""
    domain, logarithmic = numbers.scores.domain, numbers.scores.domain.better < 0
    policies = domain.name == "reinforcement"

    def curves(method, tasks):
        runs = numbers.scores.of(method, tasks).items()
        found = [_curve(numbers.scores, method, seed, run) for seed, run in runs]
        found = [curve for curve in found if curve is not None]
        return pd.concat(found).groupby("x", as_index=False).mean() if found else None

    def draw(ax, content):
        top = 0
        for method, curve in content.items():
            style = METHODS[method]
            x, y = curve["x"], domain.factor * curve["y"]
            top = max(top, 3 * y.iloc[0])
            ax.plot(x, y, color=style.colour, lw=0.8, alpha=0.35)
            if "validation" in curve:
                shown = curve.dropna(subset="validation")
                ax.plot(shown["x"], domain.factor * shown["validation"], color=style.colour,
                        marker=style.marker, ms=5, lw=1.7)  # fmt: skip
            else:
                ax.plot(x, smooth(y.to_numpy()), color=style.colour, marker=style.marker, ms=5,
                        lw=1.7, markevery=(0.1, 0.25))  # fmt: skip
        ax.xaxis.set_major_locator(MaxNLocator(4))
        if policies:
            ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        if logarithmic:  # a curve that diverges would flatten all others
            _log_axis(ax)
            ax.set_ylim(top=min(ax.get_ylim()[1], top))

    axis = "environment steps" if policies else "outer iteration"
    name, measure = "training_curves.png", {-1: "training loss", 1: domain.measure}[domain.better]
    if not panel_grid(grid(numbers, curves), directory / name, draw, axis, measure, sharex=False):
        return []
    caption = (
        f"{measure[0].upper()}{measure[1:]}{'' if logarithmic else ' in training'} against {axis}, "
        "averaged over the seeds; "
        "thin, as logged. "
        + (
            "Marked: on the tasks of the validation classes, which choose the checkpoint."
            if domain.name == "classification"
            else "Thick: a centred running median."
        )
        + " A method that joins one model for each mode is the mean of these members."
    )
    return [Figure("Training", name, caption)]


def _curve(scores, method, seed, run):
    """Returns x, y and validation of a run: the mean of its members."""
    names = run.names
    if method == "multi_maml" and scores.domain.name == "regression":
        names = [f"single_{mode}-{seed}" for mode in run.modes]
    histories = [scores.history(name) for name in names]
    if any(history is None or history.empty for history in histories):
        return None
    y, *validation = (name.format(steps=max(run.steps.values())) for name in scores.domain.history)
    rows = min(map(len, histories))
    steps = run.metrics.get("environment_steps", 0) / len(names) / run.metrics["iterations"]
    curves = []
    for history in histories:
        curve = {"x": history["step"] * (steps or 1), "y": history[y]}
        if validation and validation[0] in history:
            curve["validation"] = history[validation[0]]
        curves.append(pd.DataFrame(curve)[:rows])
    return pd.concat(curves).groupby(level=0).mean()


def inner_steps(numbers: Numbers, directory: Path) -> list[Figure]:
    """Draws the headline measure against the number of inner steps."""
    scores, domain = numbers.scores, numbers.scores.domain
    runs = {key: run for key, run in scores.runs.items() if key[:2] in set(numbers.cells)}
    last = {domain.group(tasks): 0 for _, tasks, _ in runs}
    for (_, tasks, _), run in runs.items():
        last[domain.group(tasks)] = max(last[domain.group(tasks)], *run.curve)

    def bands(method, tasks):
        of_seed = scores.of(method, tasks)
        if not of_seed:
            return None
        run = next(iter(of_seed.values()))
        curve = run.curve if any(run.steps.values()) else [0]
        found = [numbers.value(method, tasks, step=step) for step in curve]
        return {"curve": curve, "values": pd.DataFrame(found), "run": run,
                "last": last[domain.group(tasks)]}  # fmt: skip

    def draw(ax, content):
        trained = 0
        for method, band in content.items():
            style, x = METHODS[method], np.array(band["curve"])
            trained = max(trained, *band["run"].steps.values())
            mean, spread = (
                domain.factor * band["values"][c].to_numpy() for c in ("mean", "spread")
            )
            level = len(x) == 1
            if level:
                x, mean, spread = (
                    np.array([0, band["last"]]),
                    np.repeat(mean, 2),
                    np.repeat(spread, 2),
                )
            low = mean - np.nan_to_num(spread)
            low = np.maximum(low, np.minimum(mean, _SMALLEST)) if domain.better < 0 else low
            ax.fill_between(x, low, mean + np.nan_to_num(spread), color=style.colour, alpha=0.16,
                            linewidth=0)  # fmt: skip
            ax.plot(x, mean, color=style.colour, marker="" if level else style.marker, ms=5, lw=1.7,
                    ls=":" if level else "-")  # fmt: skip
            if domain.name == "classification":
                ax.axhline(100 * chance_of({0: band["run"]}), **_CHANCE)
        ax.axvline(trained, color="#888888", ls=":", lw=1.3)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if domain.better < 0:
            _log_axis(ax)
            starts = [band["values"]["mean"].iloc[0] for band in content.values()]
            ax.set_ylim(top=min(ax.get_ylim()[1], 3 * max(starts)))

    name, legend = "inner_steps.png", []
    if domain.name == "classification":
        legend = [(Line2D([], [], **_CHANCE), "chance")]
    rows = grid(numbers, bands)
    if not panel_grid(
        rows, directory / name, draw, "inner steps", domain.measure, legend, sharex=False
    ):
        return []
    caption = (
        f"{domain.measure[0].upper()}{domain.measure[1:]} over all held-out tasks by number of "
        "inner steps; the band is ± as in the table. The dotted vertical line marks the steps used "
        "in training. Step 0 is before the task is seen, in modulated methods after modulation. A "
        "method without inner steps is a level dotted line; a curve that diverges leaves the "
        "picture."
    )
    return [Figure("Adaptation", name, caption)]


def per_mode(numbers: Numbers, directory: Path) -> list[Figure]:
    """Draws each mode's error after adaptation as dots with intervals."""
    scores = numbers.scores
    rows = grid(numbers, lambda method, tasks: tasks if scores.of(method, tasks) else None)
    ((_, row),) = rows.items()
    if not any(row.values()):
        return []
    with plt.rc_context(SETTINGS | {"axes.grid.axis": "y"}):
        widths = [len(scores.modes(tasks)) + 0.6 for tasks in scores.sets]
        fig, (axes,) = panels(rows, 4.2, sharey=True, width_ratios=widths)
        methods = scores.methods
        for ax, content in zip(axes, row.values(), strict=True):
            modes = scores.modes(next(iter(content.values())))
            for method, tasks in content.items():
                style = METHODS[method]
                found = [numbers.value(method, tasks, mode=mode, step=ADAPTED) for mode in modes]
                mean, spread = np.array([(value["mean"], value["spread"]) for value in found]).T
                offset = (methods.index(method) / max(1, len(methods) - 1) - 0.5) * 0.7
                below = np.minimum(np.nan_to_num(spread), np.maximum(mean - _SMALLEST, 0))
                ax.errorbar(np.arange(len(modes)) + offset, mean, [below, np.nan_to_num(spread)],
                            fmt=style.marker, color=style.colour, ms=6, elinewidth=1.5)  # fmt: skip
            for edge in np.arange(len(modes) - 1) + 0.5:
                ax.axvline(edge, color="#bbbbbb", lw=1)
            _log_axis(ax)
            ax.set_xticks(range(len(modes)), modes)
            ax.set_xlim(-0.5, len(modes) - 0.5)
        axes[0].set_ylabel("final MSE against noisy targets")
        method_legend(fig, row.values())
        save(fig, directory / "per_mode.png")
    caption = (
        "Final error against noisy targets by mode, with ± as in the table; logarithmic axis. "
        "Where the interval reaches below the axis it is cut off."
    )
    return [Figure("By mode", "per_mode.png", caption)]


def _log_axis(ax):
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=30))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
