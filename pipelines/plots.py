"""Pictures of the regression report. They take plain arrays and write PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipelines.plot_style import (
    BEHIND_TEXT,
    SETTINGS,
    STYLE,
    WIDTH,
    Band,
    kinds_in,
    method_legend,
    note_if_empty,
    panels_in_a_row,
    save,
)
from pipelines.published import METHODS

# Values from which a fall is drawn as no smaller: a logarithmic axis has no zero.
_SMALLEST = 1e-3


class Functions(NamedTuple):
    """Example tasks of one mode set and how a method fits them.

    Attributes:
        support_x: `[X, K]` support points.
        support_y: `[X, K]` their targets.
        mode: `[X]` mode of each task.
        x: `[P]` grid.
        truth: `[X, P]` the functions without noise.
        predictions: `[S + 1, X, P]` after modulation, then after each inner step.
        baseline: `[X, P]` predictions of the adapted baseline, or None.
    """

    support_x: np.ndarray
    support_y: np.ndarray
    mode: np.ndarray
    x: np.ndarray
    truth: np.ndarray
    predictions: np.ndarray
    baseline: np.ndarray | None


def training_curves(panels: Mapping[str, Mapping[str, tuple]], path: Path) -> None:
    """Draws training loss against iteration.

    Args:
        panels: by panel title and kind, pairs of iterations `[P]` and losses `[P]`.
        path: the file to write.
    """
    with plt.rc_context(SETTINGS):
        fig, axes = panels_in_a_row(panels, height=4.9, sharey=True, sharex=True)
        for ax, curves in zip(axes, panels.values(), strict=True):
            for kind, (steps, losses) in curves.items():
                colour, marker = STYLE[kind]
                ax.plot(
                    steps, losses, color=colour, marker=marker, ms=6, lw=1.7, markevery=(0.08, 0.2)
                )
            _log_axis(ax.yaxis)
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.set_xlabel("outer iteration")
            note_if_empty(ax, curves)
        axes[0].set_ylabel("training loss (MSE on noisy query points)")
        losses = [losses for curves in panels.values() for _, losses in curves.values()]
        _limit_diverging(axes[0], losses)
        method_legend(fig, panels.values())
        save(fig, path)


def adaptation_steps(
    panels: Mapping[str, Mapping[str, Band]], bayes: Mapping[str, float], trained: int, path: Path
) -> None:
    """Draws the error against the number of inner steps.

    Args:
        panels: by panel title and kind, the curve; one of a single point is drawn level.
        bayes: the Bayes-optimal error by panel title.
        trained: the number of inner steps used in training, which is marked.
        path: the file to write.
    """
    with plt.rc_context(SETTINGS):
        fig, axes = panels_in_a_row(panels, height=5.0, sharey=True)
        last = max([trained, *(band.x[-1] for p in panels.values() for band in p.values())])
        for ax, (title, curves) in zip(axes, panels.items(), strict=True):
            for kind, band in curves.items():
                _band(ax, band, last, *STYLE[kind])
            ax.axhline(bayes[title], color="black", ls="--", lw=1.5)
            ax.axvline(trained, color="#888888", ls=":", lw=1.5)
            ax.annotate(
                "steps in training",
                (trained, 1),
                (4, -4),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
                fontsize=10.5,
                color="#555555",
                bbox=BEHIND_TEXT,
            )
            _log_axis(ax.yaxis)
            ax.set_xlim(-0.3, last + 0.3)
            ax.set_xticks(range(0, last + 1, max(1, last // 5)))
            ax.set_xlabel("inner steps")
            note_if_empty(ax, curves)
        axes[0].set_ylabel("MSE against noisy targets")
        means = [band.mean for curves in panels.values() for band in curves.values()]
        _limit_diverging(axes[0], means, bayes.values())
        bayes = {METHODS["bayes"].label: Line2D([], [], color="black", ls="--", lw=1.5)}
        method_legend(fig, panels.values(), level=["lstm"], more=bayes)
        save(fig, path)


def per_mode(
    panels: Mapping[str, Mapping[str, Band]], modes: Mapping[str, Sequence[str]], path: Path
) -> None:
    """Draws each mode's error after adaptation as dots with intervals.

    Args:
        panels: by panel title and kind, one value per mode.
        modes: names of the modes by panel title.
        path: the file to write.
    """
    with plt.rc_context(SETTINGS):
        widths = [len(modes[title]) + 0.6 for title in panels]
        fig, axes = panels_in_a_row(panels, height=5.0, sharey=True, width_ratios=widths)
        kinds = kinds_in(panels.values())
        for ax, (title, values) in zip(axes, panels.items(), strict=True):
            for kind, band in values.items():
                offset = (kinds.index(kind) - (len(kinds) - 1) / 2) * 0.7 / max(1, len(kinds) - 1)
                colour, marker = STYLE[kind]
                ax.errorbar(
                    np.arange(len(band.mean)) + offset,
                    band.mean,
                    _log_error(band),
                    fmt=marker,
                    color=colour,
                    ms=9 if kind == "bayes" else 6.5,
                    mew=0.5,
                    elinewidth=1.6,
                    zorder=3,
                )
            for edge in np.arange(len(modes[title]) - 1) + 0.5:
                ax.axvline(edge, color="#bbbbbb", lw=1)
            _log_axis(ax.yaxis)
            ax.grid(axis="x", visible=False)
            ax.set_xticks(range(len(modes[title])), modes[title])
            ax.set_xlim(-0.5, len(modes[title]) - 0.5)
            note_if_empty(ax, set(values) - {"bayes"})
        axes[0].set_ylabel("final MSE against noisy targets")
        method_legend(fig, panels.values(), markers_only=True)
        save(fig, path)


def functions(
    examples: Functions,
    modes: Sequence[str],
    path: Path,
    start: str = "prediction, no inner step",
) -> None:
    """Draws example tasks, one row per mode, and how the predictions adapt to them.

    Args:
        examples: the tasks and predictions.
        modes: names of the modes.
        path: the file to write.
        start: name of the prediction before any inner step.
    """
    steps = len(examples.predictions) - 1
    ramp = matplotlib.colormaps["Blues"](np.linspace(1.0, 0.32, steps + 1))[::-1]
    rows = [np.flatnonzero(examples.mode == index) for index in range(len(modes))]
    columns = max(len(row) for row in rows)
    with plt.rc_context(SETTINGS):
        fig, axes = plt.subplots(
            len(rows),
            columns,
            squeeze=False,
            sharex=True,
            figsize=(WIDTH, 3.0 * len(rows) + 0.9),
        )
        for row, tasks, name in zip(axes, rows, modes, strict=True):
            for ax, task in zip(row, tasks, strict=False):
                _function(ax, examples, task, ramp)
            row[0].set_ylabel(f"{name}\ny")
        for ax in axes[-1]:
            ax.set_xlabel("x")
        handles = [
            Line2D([], [], color="black", lw=1.4),
            Line2D([], [], color="black", marker="o", ls="", ms=8, mec="white"),
            *(Line2D([], [], color=colour, lw=2.2) for colour in ramp),
        ]
        names = ["truth", "support points", start]
        names += [f"after {n} inner step{'s' if n > 1 else ''}" for n in range(1, steps + 1)]
        if examples.baseline is not None:
            handles.append(Line2D([], [], color=STYLE["maml"][0], ls="--", lw=2))
            names.append("MAML, adapted")
        fig.legend(handles, names, loc="outside lower center", ncols=5)
        save(fig, path)


def _band(ax, band, last, colour, marker):
    if len(band.x) == 1:
        ax.plot([0, last], [band.mean[0]] * 2, color=colour, ls=":", lw=1.8)
        ax.errorbar(band.x, band.mean, _log_error(band), fmt=marker, color=colour, ms=6)
        return
    below, above = _log_error(band)
    ax.fill_between(
        band.x, band.mean - below, band.mean + above, color=colour, alpha=0.18, linewidth=0
    )
    ax.plot(band.x, band.mean, color=colour, marker=marker, ms=5.5, lw=1.7)


def _log_error(band):
    """Returns the lengths of the bars below and above, which stay on a logarithmic axis."""
    mean = np.asarray(band.mean, float)
    spread = np.nan_to_num(np.asarray(band.spread, float), nan=0.0, posinf=0.0)
    return np.stack([np.minimum(spread, np.maximum(mean - _SMALLEST, 0)), spread])


def _limit_diverging(ax, curves, levels=()):
    """Keeps a curve that diverges from flattening all others, by where the curves start."""
    starts = [*(float(curve[0]) for curve in curves), *levels]
    lowest = [*(float(np.nanmin(curve)) for curve in curves), *levels]
    low, high = ax.get_ylim()
    if starts:
        ax.set_ylim(max(low, min(lowest) / 1.6), min(high, 3 * max(starts)))


def _function(ax, examples, task, ramp):
    for curve, colour in zip(examples.predictions[:, task], ramp, strict=True):
        ax.plot(examples.x, curve, color=colour, lw=2.2)
    ax.plot(examples.x, examples.truth[task], color="black", lw=1.4)
    if examples.baseline is not None:
        ax.plot(examples.x, examples.baseline[task], color=STYLE["maml"][0], ls="--", lw=2)
    ax.plot(
        examples.support_x[task],
        examples.support_y[task],
        "o",
        color="black",
        ms=8,
        mec="white",
        zorder=4,
    )
    ax.set_ylim(*_function_limits(examples, task))


def _function_limits(examples, task):
    """Returns limits that show truth and support, and predictions as far as that allows."""
    values = np.concatenate([examples.truth[task], examples.support_y[task]])
    middle, half = (values.max() + values.min()) / 2, max(np.ptp(values) / 2, 1.0)
    low, high = middle - half, middle + half
    # A curve that does not fit would otherwise shrink the one to be seen.
    low = min(low, max(examples.predictions[-1, task].min(), low - half))
    high = max(high, min(examples.predictions[-1, task].max(), high + half))
    margin = 0.1 * (high - low)
    return low - margin, high + margin


def _log_axis(axis):
    axis.axes.set_yscale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=30))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
