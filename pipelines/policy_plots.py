"""Pictures of the reinforcement-learning report. They take plain arrays and write PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import EngFormatter, MaxNLocator

from pipelines.plot_style import (
    MODE_STYLE,
    SMALL,
    STYLE,
    WIDTH,
    Band,
    marker_of,
    panel_grid,
    save,
    smooth,
    step_bands,
)
from pipelines.report_texts import when

_RETURN = "return"
# How far beyond the goals the plane is shown.
_MARGIN = 3.0


def learning_curves(
    rows: Mapping[str, Mapping[str, Mapping[str, np.ndarray] | None]], path: Path
) -> None:
    """Draws returns after adaptation against environment steps.

    Args:
        rows: by row title, panel title and kind, curves `[P, 2]`; None for no panel.
        path: the file to write.
    """

    def draw(ax, titles, curves):
        del titles
        for kind, curve in curves.items():
            colour, marker = STYLE[kind]
            x, y = curve.T
            ax.plot(x, y, color=colour, lw=0.8, alpha=0.35)
            ax.plot(x, smooth(y), color=colour, marker=marker, ms=5, lw=1.7, markevery=(0.1, 0.25))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))

    panel_grid(rows, path, draw, "environment steps", _RETURN, own_x=True)


def inner_steps(
    rows: Mapping[str, Mapping[str, Mapping[str, Band] | None]],
    trained: Mapping[str, int],
    path: Path,
) -> None:
    """Draws returns against the number of inner steps.

    Args:
        rows: by row title, panel title and kind, a band; None for no panel.
        trained: the number of inner steps in training by row title.
        path: the file to write.
    """

    def draw(ax, titles, bands):
        step_bands(ax, bands, trained[titles[0]], trained[titles[0]])

    panel_grid(rows, path, draw, "inner steps", _RETURN, own_x=True)


def trajectories(
    rows: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    modes: Sequence[str],
    path: Path,
) -> None:
    """Draws where a point goes before and after each inner step, one row for each method.

    Args:
        rows: by name of the method, positions `[C, n, L, 2]`, goals `[n, 2]` and modes `[n]`.
        modes: names of the modes.
        path: the file to write.
    """
    columns = max(len(positions) for positions, _, _ in rows.values())
    width = WIDTH / columns
    reach = max(np.abs(goals).max() for _, goals, _ in rows.values()) + _MARGIN
    with plt.rc_context(SMALL):
        fig, axes = plt.subplots(
            len(rows),
            columns,
            squeeze=False,
            sharex=True,
            sharey=True,
            figsize=(WIDTH, width * len(rows) + 0.6),
        )
        for ax, steps in zip(axes[0], range(columns), strict=True):
            ax.set_title(when(steps))
        for line, (name, (positions, goals, mode)) in zip(axes, rows.items(), strict=True):
            for ax, paths in zip(line, positions, strict=True):
                _paths(ax, paths, goals, mode)
                ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
            line[0].set_ylabel(name)
        handles = [marker_of(MODE_STYLE[i][0], "*") for i in range(len(modes))]
        names = [f"goals of {mode}" for mode in modes]
        fig.legend(handles, names, loc="outside lower center", ncols=len(modes))
        save(fig, path)


def _paths(ax, paths, goals, mode):
    for points, goal, index in zip(paths, goals, mode, strict=True):
        colour = MODE_STYLE[index][0]
        ax.plot(*points.T, color=colour, lw=1.2, alpha=0.8)
        ax.plot(*points[-1], "o", color=colour, ms=4)
        ax.plot(*goal, "*", color=colour, ms=11, mec="black", mew=0.6, zorder=4)


def frames(rows: Mapping[str, np.ndarray], times: Sequence[int], path: Path) -> None:
    """Draws rows of frames.

    Args:
        rows: by row title, frames `[F, H, W, 3]` uint8.
        times: `[F]` the time step of each frame.
        path: the file to write.
    """
    with plt.rc_context(SMALL | {"axes.grid": False}):
        height = WIDTH / len(times) * len(rows) + 0.4
        fig, axes = plt.subplots(len(rows), len(times), squeeze=False, figsize=(WIDTH, height))
        for line, (name, images) in zip(axes, rows.items(), strict=True):
            for ax, image in zip(line, images, strict=True):
                ax.imshow(image)
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
            line[0].set_ylabel(name)
        for ax, time in zip(axes[0], times, strict=True):
            ax.set_title(f"step {time}")
        save(fig, path)
