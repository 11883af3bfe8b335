"""What the pictures have in common: colours, panels, legends, and PNG files."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from pipelines.report.domains import METHODS

# Modes have colours of their own (from Paul Tol's palettes), so as not to look like methods.
MODE_STYLE = (
    ("#4477AA", "o"), ("#EE6677", "s"), ("#228833", "^"), ("#CCBB44", "D"), ("#AA3377", "P"),
    ("#66CCEE", "v"), ("#EE8866", "X"), ("#222255", "<"), ("#777777", ">"), ("#44AA99", "p"),
)  # fmt: skip
# At the width of the page, 940 pixels, no text is smaller than 11 pixels.
SETTINGS = {
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
}
WIDTH = 11.0


def panels(
    rows: Mapping[str, Mapping[str, object]], height: float, **options
) -> tuple[plt.Figure, np.ndarray]:
    """Returns a figure and its axes `[R, P]`; titles are those of the first row's panels."""
    titles = list(next(iter(rows.values())))
    size = WIDTH, height * len(rows) + 0.7
    shape = len(rows), len(titles)
    fig, axes = plt.subplots(*shape, figsize=size, squeeze=False, **options)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    return fig, axes


def panel_grid(rows, path, draw, xlabel, ylabel, legend=(), **options) -> bool:
    """Draws a grid of panels, those of a row on one vertical axis, if any has content.

    Args:
        rows: by row title and panel title, what is drawn by method; None for no panel.
        path: the file to write.
        draw: draws a panel; it is given the axes and the content.
        xlabel: what the horizontal axes show.
        ylabel: what the vertical axes show.
        legend: further pairs of handle and name.
        **options: see `plt.subplots`.
    """
    contents = [content for row in rows.values() for content in row.values() if content]
    if not contents:
        return False
    with plt.rc_context(SETTINGS):
        fig, axes = panels(rows, 3.1, sharey="row", **options)
        for line, (name, row) in zip(axes, rows.items(), strict=True):
            for ax, content in zip(line, row.values(), strict=True):
                if content is None:
                    ax.set_visible(False)
                    continue
                draw(ax, content)
                if not content:
                    note(ax, "not run")
            line[0].set_ylabel(f"{name}\n{ylabel}" if name else ylabel)
        for column in axes.T:
            [ax for ax in column if ax.get_visible()][-1].set_xlabel(xlabel)
        method_legend(fig, contents, legend)
        save(fig, path)
    return True


def method_legend(fig, contents, more=()) -> None:
    """Puts the names of the methods that some panel has below a figure."""
    found = [method for method in METHODS if any(method in content for content in contents)]
    handles = [(line_of(METHODS[method]), METHODS[method].label) for method in found]
    handles += more
    fig.legend(*zip(*handles, strict=True), loc="outside lower center", ncols=min(5, len(handles)))


def line_of(method):
    """Returns a legend's handle of a method."""
    return Line2D([], [], color=method.colour, marker=method.marker, ms=6, lw=1.7)


def mode_handles(numbers: Sequence[int]) -> list[Line2D]:
    """Returns the legend's handles of modes by their numbers."""
    styles = [MODE_STYLE[number % len(MODE_STYLE)] for number in numbers]
    return [Line2D([], [], color=c, marker=m, ls="", ms=8) for c, m in styles]


def note(ax, text: str) -> None:
    """Writes a note into a panel."""
    ax.text(0.5, 0.6, text, color="#666666", transform=ax.transAxes, ha="center")


def smooth(values: np.ndarray) -> np.ndarray:
    """Returns the centred running median over `window(len(values))`, over fewer at the ends."""
    half = window(len(values)) // 2
    return np.array(
        [np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    )


def window(rows: int) -> int:
    """Returns the number of logged rows (odd) that training curves are smoothed over."""
    return max(3, rows // 40 | 1)


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
