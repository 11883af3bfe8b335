"""What the pictures of all reports have in common: colours, panels, legends, and PNG files."""

import io
from collections.abc import Mapping, Sequence
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
# Policy learners look like what they are the counterparts of.
STYLE |= {"promp": STYLE["maml"], "multi_promp": STYLE["multi_maml"], "mmaml": STYLE["film"]}

# Modes have colours of their own (from Paul Tol's palettes), so as not to look like methods.
MODE_STYLE = (
    ("#4477AA", "o"),
    ("#EE6677", "s"),
    ("#228833", "^"),
    ("#CCBB44", "D"),
    ("#AA3377", "P"),
    ("#66CCEE", "v"),
    ("#EE8866", "X"),
    ("#222255", "<"),
    ("#777777", ">"),
    ("#44AA99", "p"),
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
SMALL = SETTINGS | {"figure.dpi": 72, "font.size": 11.5, "axes.titlesize": 12.5}
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

    @classmethod
    def of(cls, x: Sequence[float], summaries: Sequence) -> "Band":
        """Returns the curve of a `report_data.Summary` at each position."""
        means, spreads = np.array([(s.mean, s.spread) for s in summaries]).T
        return cls(np.array(x), means, spreads)


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


def note_if_empty(ax, content, note="not run"):
    """Writes a note into a panel without content."""
    if not content:
        where = {"transform": ax.transAxes, "ha": "center", "bbox": BEHIND_TEXT}
        ax.text(0.5, 0.6, note, color="#666666", **where)


def panel_grid(
    rows: Mapping[str, Mapping[str, Mapping]],
    path: Path,
    draw,
    xlabel: str,
    ylabel: str,
    own_x: bool = False,
    level=(),
    more: Mapping[str, Line2D] = {},
) -> None:
    """Draws a grid of panels of one measure, those of a row on one vertical axis.

    Args:
        rows: by row title and panel title, what is drawn by kind; None for no panel at all.
        path: the file to write.
        draw: draws a panel; it is given the axes, the two titles, and the content.
        xlabel: what the horizontal axes show.
        ylabel: what the vertical axes show.
        own_x: whether each panel has its own horizontal axis.
        level: see `method_legend`.
        more: see `method_legend`.
    """
    with plt.rc_context(SMALL):
        sharex = False if own_x else "all"
        fig, axes = panels_in_rows(rows, 0.9 + 3.1 * len(rows), sharex=sharex, sharey="row")
        for line, (name, panels) in zip(axes, rows.items(), strict=True):
            for ax, (title, content) in zip(line, panels.items(), strict=True):
                if content is None:
                    ax.set_visible(False)
                    continue
                draw(ax, (name, title), content)
                if own_x and not content:
                    ax.set_xticks([])
                note_if_empty(ax, content)
            if not any(panels.values()):
                line[0].set_yticks([])
            line[0].set_ylabel(f"{name}\n{ylabel}")
        for column in axes.T:
            [ax for ax in column if ax.get_visible()][-1].set_xlabel(xlabel)
        method_legend(fig, [p for row in rows.values() for p in row.values() if p], level=level,
                      more=more)  # fmt: skip
        save(fig, path)


def step_bands(ax, bands: Mapping[str, Band], trained: int, last: int) -> None:
    """Draws a measure against inner steps; a band of a single point is drawn level.

    Args:
        ax: the axes.
        bands: the bands by kind.
        trained: the number of inner steps in training, which is marked.
        last: the end of the axis.
    """
    ax.axvline(trained, color="#888888", ls=":", lw=1.3)
    for kind, band in bands.items():
        colour, marker = STYLE[kind]
        x = np.array([0, last]) if len(band.x) == 1 else band.x
        mean, spread = (np.broadcast_to(part, x.shape) for part in band[1:])
        ls, shown = (":", "") if len(band.x) == 1 else ("-", marker)
        ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.16, linewidth=0)
        ax.plot(x, mean, color=colour, marker=shown, ms=5, lw=1.7, ls=ls)
    ax.set_xticks(sorted({int(x) for band in bands.values() for x in band.x} | {trained}))
    ax.set_xlim(-0.3, last + 0.3)


def smoothing_window(rows: int) -> int:
    """Returns the number of logged rows (odd) that training curves are smoothed over."""
    return max(3, rows // 40 | 1)


def smooth(values: np.ndarray) -> np.ndarray:
    """Returns the centred running median over `smoothing_window`, over fewer at the ends."""
    half = smoothing_window(len(values)) // 2
    return np.array(
        [np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    )


def save(fig, path: Path) -> None:
    """Writes a figure with a palette of its own, at about a third of the size, and closes it.

    The file depends on nothing but the pixels: equal pictures are equal files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    fig.savefig(drawn, format="png")
    plt.close(fig)
    image = Image.open(drawn).convert("RGB")
    # Of Pillow's ways, the one that keeps the colours of thin lines and small marks.
    image = image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(path, "PNG", optimize=True)
