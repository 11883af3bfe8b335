"""Pictures of the classification report. They take plain arrays and write PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipelines.plot_style import (
    SETTINGS,
    STYLE,
    WIDTH,
    Band,
    method_legend,
    note_if_empty,
    panels_in_a_row,
    panels_in_rows,
    save,
)

_SMALL = SETTINGS | {"figure.dpi": 72, "font.size": 11.5, "axes.titlesize": 12.5}
_CHANCE = "#888888"


class Episode(NamedTuple):
    """An example task.

    Attributes:
        support: `[N, H, W, 3]` one support image of each class, in the order of the labels.
        query: `[Q, H, W, 3]` some query images.
        labels: `[Q]` their classes.
    """

    support: np.ndarray
    query: np.ndarray
    labels: np.ndarray


def training_curves(
    rows: Mapping[str, Mapping[str, Mapping[str, tuple]]], chance: Mapping[tuple, float], path: Path
) -> None:
    """Draws accuracies in training and validation against iteration.

    Args:
        rows: by row title, panel title and kind, pairs of `[P, 2]` training and `[V, 2]`
            validation curves of iterations and fractions.
        chance: the accuracy of guessing by (row title, panel title).
        path: the file to write.
    """

    def draw(ax, curves):
        for kind, (training, validation) in curves.items():
            colour, marker = STYLE[kind]
            ax.plot(training[:, 0], 100 * training[:, 1], color=colour, lw=1, alpha=0.55)
            ax.plot(
                validation[:, 0], 100 * validation[:, 1], color=colour, marker=marker, ms=5, lw=1.7
            )
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    more = {
        "training (query accuracy, thin)": Line2D([], [], color="#555555", lw=1, alpha=0.7),
        "validation (marked)": Line2D([], [], color="#555555", marker="o", ms=5, lw=1.7),
    }
    _accuracy_panels(rows, chance, path, draw, "outer iteration", more=more, own_x=True)


def inner_steps(
    rows: Mapping[str, Mapping[str, Mapping[str, Band]]],
    chance: Mapping[tuple, float],
    trained: int,
    path: Path,
) -> None:
    """Draws the accuracy against the number of inner steps.

    Args:
        rows: by row title, panel title and kind, a band of fractions; one of a single point is
            drawn level.
        chance: the accuracy of guessing by (row title, panel title).
        trained: the number of inner steps that is usual, which is marked.
        path: the file to write.
    """
    curves = [band for panels in rows.values() for p in panels.values() for band in p.values()]
    last = max([trained, *(band.x[-1] for band in curves)])
    level = {
        kind: None
        for panels in rows.values()
        for p in panels.values()
        for kind, band in p.items()
        if len(band.x) == 1
    }

    def draw(ax, curves):
        ax.axvline(trained, color=_CHANCE, ls=":", lw=1.3)
        for kind, band in curves.items():
            colour, marker = STYLE[kind]
            x = np.array([0, last]) if len(band.x) == 1 else band.x
            mean, spread = (100 * np.broadcast_to(part, x.shape) for part in band[1:])
            ls, shown = (":", "") if len(band.x) == 1 else ("-", marker)
            ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.16, linewidth=0)
            ax.plot(x, mean, color=colour, marker=shown, ms=5, lw=1.7, ls=ls)
        ax.set_xticks(sorted({int(x) for band in curves.values() for x in band.x} | {trained}))
        ax.set_xlim(-0.3, last + 0.3)

    _accuracy_panels(rows, chance, path, draw, "inner steps", level=level)


def _accuracy_panels(rows, chance, path, draw, xlabel, level=(), more=None, own_x=False):
    """Draws a grid of panels with accuracies in %, those of a row on one axis."""
    with plt.rc_context(_SMALL):
        height = 0.9 + 3.1 * len(rows)
        sharex = False if own_x else "all"
        fig, axes = panels_in_rows(rows, height, sharex=sharex, sharey="row")
        for line, (name, panels) in zip(axes, rows.items(), strict=True):
            for ax, (title, curves) in zip(line, panels.items(), strict=True):
                draw(ax, curves)
                if curves:
                    ax.axhline(100 * chance[name, title], color=_CHANCE, ls="--", lw=1.2)
                note_if_empty(ax, curves)
            line[0].set_ylabel(f"{name}\naccuracy in %")
        for ax in axes[-1]:
            ax.set_xlabel(xlabel)
        guessing = {"chance": Line2D([], [], color=_CHANCE, ls="--", lw=1.2)}
        panels = [panel for row in rows.values() for panel in row.values()]
        method_legend(fig, panels, level=level, more=(more or {}) | guessing)
        save(fig, path)


def confusions(panels: Mapping[str, tuple[np.ndarray, Sequence[str]]], path: Path) -> None:
    """Draws the modes that task embeddings are nearest to.

    Args:
        panels: by panel title, counts `[M, M]` of true modes (rows) and found ones, and the
            modes' names; None for both where there are none.
        path: the file to write.
    """
    with plt.rc_context(_SMALL | {"axes.grid": False}):
        fig, axes = panels_in_a_row(panels, height=4.4)
        for ax, (counts, modes) in zip(axes, panels.values(), strict=True):
            ax.set_xticks([])
            ax.set_yticks([])
            note_if_empty(ax, counts is not None)
            if counts is None:
                continue
            shares = 100 * counts / counts.sum(axis=1, keepdims=True)
            ax.imshow(shares, cmap="Blues", vmin=0, vmax=100)
            for (row, column), share in np.ndenumerate(shares):
                colour = "white" if share > 55 else "black"
                ax.text(column, row, f"{share:.0f}", color=colour, ha="center", va="center")
            ax.set_xticks(range(len(modes)), modes, rotation=30, ha="right")
            ax.set_yticks(range(len(modes)), modes)
            ax.set_xlabel("nearest centroid")
        axes[0].set_ylabel("true mode")
        save(fig, path)


def episodes(examples: Mapping[str, Episode], path: Path) -> None:
    """Draws one task of each mode, one row each: its support images, then some queries.

    Args:
        examples: the tasks by mode.
        path: the file to write.
    """
    ways, queries = (max(len(example[part]) for example in examples.values()) for part in (0, 1))
    widths = [1] * ways + [0.35] + [1] * queries  # with a gap between the two
    with plt.rc_context(_SMALL | {"axes.grid": False}):
        height = WIDTH / sum(widths) * 1.22 * len(examples)
        fig, axes = plt.subplots(
            len(examples),
            len(widths),
            squeeze=False,
            figsize=(WIDTH, height),
            gridspec_kw={"width_ratios": widths},
        )
        for ax in axes.flat:
            ax.axis("off")
        for row, (mode, example) in zip(axes, examples.items(), strict=True):
            for label, (ax, image) in enumerate(zip(row, example.support, strict=False)):
                _image(ax, image, f"class {label + 1}")
            shown = zip(row[ways + 1 :], example.query, example.labels, strict=False)
            for ax, image, label in shown:
                _image(ax, image, f"query, class {label + 1}")
            row[0].text(-0.12, 0.5, mode, transform=row[0].transAxes, rotation=90, va="center",
                        ha="right")  # fmt: skip
        save(fig, path, colours=256)


def _image(ax, image, title):
    ax.imshow(image, interpolation="nearest")
    ax.set_title(title, fontsize=10, pad=3)
