"""Pictures of the classification report. They take plain arrays and write PNG files."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipelines.plot_style import SMALL, STYLE, WIDTH, Band, panel_grid, save, step_bands

_ACCURACY = "accuracy in %"
_CHANCE = {"color": "#888888", "ls": "--", "lw": 1.2}
_CHANCE_HANDLE = {"chance": Line2D([], [], **_CHANCE)}


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

    def draw(ax, titles, curves):
        for kind, (training, validation) in curves.items():
            colour, marker = STYLE[kind]
            ax.plot(training[:, 0], 100 * training[:, 1], color=colour, lw=1, alpha=0.55)
            ax.plot(
                validation[:, 0], 100 * validation[:, 1], color=colour, marker=marker, ms=5, lw=1.7
            )
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        _chance(ax, chance[titles], curves)

    more = {
        "training (query accuracy, thin)": Line2D([], [], color="#555555", lw=1, alpha=0.7),
        "validation (marked)": Line2D([], [], color="#555555", marker="o", ms=5, lw=1.7),
    }
    more |= _CHANCE_HANDLE
    panel_grid(rows, path, draw, "outer iteration", _ACCURACY, own_x=True, more=more)


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
    panels = [panel for row in rows.values() for panel in row.values()]
    last = max([trained, *(band.x[-1] for panel in panels for band in panel.values())])
    level = {kind for panel in panels for kind, band in panel.items() if len(band.x) == 1}

    def draw(ax, titles, bands):
        percent = {k: Band(b.x, 100 * b.mean, 100 * b.spread) for k, b in bands.items()}
        step_bands(ax, percent, trained, last)
        _chance(ax, chance[titles], bands)

    panel_grid(rows, path, draw, "inner steps", _ACCURACY, level=level, more=_CHANCE_HANDLE)


def _chance(ax, accuracy, content):
    if content:
        ax.axhline(100 * accuracy, **_CHANCE)


def episodes(examples: Mapping[str, Episode], path: Path) -> None:
    """Draws one task of each mode, one row each: its support images, then some queries.

    Args:
        examples: the tasks by mode.
        path: the file to write.
    """
    ways, queries = (max(len(example[part]) for example in examples.values()) for part in (0, 1))
    widths = [1] * ways + [0.35] + [1] * queries  # with a gap between the two
    with plt.rc_context(SMALL | {"axes.grid": False}):
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
        save(fig, path)


def _image(ax, image, title):
    ax.imshow(image, interpolation="nearest")
    ax.set_title(title, fontsize=10, pad=3)
