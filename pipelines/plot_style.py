"""What the pictures of all reports have in common: colours, panels, legends, and PNG files."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from pipelines.published import METHODS

# One colour and marker per method in all pictures; the palette of Okabe and Ito, which people
# with colour-blindness tell apart.
STYLE = {
    "maml": ("#E69F00", "o"),
    "multi_maml": ("#009E73", "s"),
    "lstm": ("#CC79A7", "D"),
    "softmax": ("#56B4E9", "^"),
    "film": ("#0072B2", "v"),
    "sigmoid": ("#D55E00", "P"),
    "film_layer1": ("#7A7A7A", "X"),
    "bayes": ("#000000", "*"),
    "protonet": ("#882255", "p"),
}

# Modes have colours of their own (Paul Tol's bright palette), so as not to look like methods.
MODE_STYLE = (
    ("#4477AA", "o"),
    ("#EE6677", "s"),
    ("#228833", "^"),
    ("#CCBB44", "D"),
    ("#AA3377", "P"),
)

SETTINGS = {
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 11.5,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.dpi": 80,
}
WIDTH = 14.0
BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}


class Band(NamedTuple):
    """A curve with its uncertainty.

    Attributes:
        x: `[P]` positions.
        mean: `[P]` values.
        spread: `[P]` half-widths of the band.
    """

    x: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


def panels_in_a_row(panels, height, sharex=False, sharey=False, **grid):
    """Returns a figure and its axes `[P]`, titled with the keys of `panels`."""
    fig, axes = panels_in_rows({None: panels}, height, sharex, sharey, **grid)
    return fig, axes[0]


def panels_in_rows(rows: Mapping[str, Mapping], height, sharex=False, sharey=False, **grid):
    """Returns a figure and its axes `[R, P]`; the titles over the columns are of the first row.

    Args:
        rows: by name, panels by title.
        height: height of the figure in inches.
        sharex: see `plt.subplots`.
        sharey: see `plt.subplots`.
        **grid: see `matplotlib.gridspec.GridSpec`.
    """
    titles = list(next(iter(rows.values())))
    fig, axes = plt.subplots(
        len(rows),
        len(titles),
        figsize=(WIDTH, height),
        squeeze=False,
        sharex=sharex,
        sharey=sharey,
        gridspec_kw=grid,
    )
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    return fig, axes


def kinds_in(panels) -> list[str]:
    """Returns the kinds that some panel has, in the order of the tables."""
    return [kind for kind in METHODS if any(kind in panel for panel in panels)]


def marker_of(colour, marker):
    """Returns a legend's handle for points without a line."""
    return Line2D([], [], color=colour, marker=marker, ls="", ms=8)


def method_legend(fig, panels, markers_only=False, level=(), more: Mapping[str, Line2D] = {}):
    """Puts the methods' names below a figure.

    Args:
        fig: the figure.
        panels: its panels' contents by kind.
        markers_only: for points without lines.
        level: kinds that are drawn as a dotted level line.
        more: further handles by name.
    """
    kinds = kinds_in(panels)
    handles = []
    for kind in kinds:
        colour, marker = STYLE[kind]
        line = "" if markers_only else ":" if kind in level else "-"
        handles.append(Line2D([], [], color=colour, marker=marker, ls=line, ms=7, lw=1.8))
    handles += more.values()
    labels = [*(METHODS[kind].label for kind in kinds), *more]
    if handles:
        fig.legend(handles, labels, loc="outside lower center", ncols=4)


def note_if_empty(ax, content):
    """Writes "not run" into a panel without content."""
    if not content:
        where = {"transform": ax.transAxes, "ha": "center", "bbox": BEHIND_TEXT}
        ax.text(0.5, 0.6, "not run", color="#666666", **where)


def save(fig, path: Path, colours: int = 128) -> None:
    """Writes a figure with a palette of its own, at about a third of the size, and closes it.

    The file depends on nothing but the pixels: equal pictures are equal files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    fig.savefig(drawn, format="png")
    plt.close(fig)
    image = Image.open(drawn).convert("RGB")
    image.quantize(colours, dither=Image.Dither.NONE).save(path, "PNG", optimize=True)
