"""Pictures of task embeddings. They take plain arrays and write PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from pipelines.embedding_maps import Embeddings, Settings, confusion_panels, map_panels
from pipelines.plot_style import (
    MODE_STYLE,
    SETTINGS,
    SMALL,
    WIDTH,
    marker_of,
    note_if_empty,
    panels_in_a_row,
    save,
)

# A model may not have run, or the arrays of its evaluation are elsewhere.
_NONE = "no embeddings here"


def draw(
    embedded: Mapping[str, Embeddings | None],
    modes: Sequence[str],
    settings: Settings,
    directory: Path,
    end: str = "",
) -> None:
    """Draws maps of embeddings, and which centroids they are nearest to, if there are any.

    Args:
        embedded: by panel title, the embeddings; None where there are none.
        modes: names of all modes, in the order of their colours.
        settings: those of the maps.
        directory: where `embeddings.png` and `confusions.png` go.
        end: what stands behind these names.
    """
    if any(embedded.values()):
        maps = map_panels(embedded, modes, settings)
        embeddings(maps, modes, directory / f"embeddings{end}.png")
        confusions(confusion_panels(embedded), directory / f"confusions{end}.png")


def embeddings(panels: Mapping[str, tuple], modes: Sequence[str], path: Path) -> None:
    """Draws two-dimensional maps of task embeddings.

    Args:
        panels: by panel title, points `[N, 2]` and their modes `[N]` as indices into `modes`;
            None for both where there are none.
        modes: names of all modes.
        path: the file to write.
    """
    with plt.rc_context(SETTINGS):
        fig, axes = panels_in_a_row(panels, height=5.4)
        shown = set()
        for ax, (points, mode) in zip(axes, panels.values(), strict=True):
            shown |= set(_map(ax, points, mode))
        fig.legend(
            [_handle(i) for i in sorted(shown)],
            [modes[i] for i in sorted(shown)],
            loc="outside lower center",
            ncols=len(modes),
        )
        save(fig, path)


def domains(panels: Mapping[str, tuple], path: Path) -> None:
    """Draws a map of each of four domains, each with modes of its own.

    Args:
        panels: by panel title, points `[N, 2]`, their modes `[N]` and the modes' names; None for
            all three where there are none.
        path: the file to write.
    """
    with plt.rc_context(SETTINGS):
        fig, axes = plt.subplots(2, 2, figsize=(WIDTH, 11.5))
        for ax, (title, (points, mode, modes)) in zip(axes.flat, panels.items(), strict=True):
            ax.set_title(title)
            handles = [_handle(index) for index in _map(ax, points, mode)]
            if handles:
                where = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.01), "ncols": 5}
                spacing = {"handletextpad": 0.1, "columnspacing": 0.9}
                ax.legend(handles, modes, **where, **spacing)
        save(fig, path)


def _map(ax, points, mode) -> list[int]:
    """Draws one map; returns the modes that it has."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(True)
    note_if_empty(ax, points is not None, _NONE)
    if points is None:
        return []
    numbers = np.unique(mode).tolist()
    size = np.clip(6000 / len(mode), 13, 40)
    for index in numbers:
        colour, marker = MODE_STYLE[index % len(MODE_STYLE)]
        x, y = points[mode == index].T
        ax.scatter(x, y, s=size, color=colour, marker=marker, alpha=0.65, linewidths=0)
    ax.set_aspect("equal", "datalim")
    return numbers


def _handle(index):
    return marker_of(*MODE_STYLE[index % len(MODE_STYLE)])


def confusions(panels: Mapping[str, tuple[np.ndarray, Sequence[str]]], path: Path) -> None:
    """Draws the modes that task embeddings are nearest to.

    Args:
        panels: by panel title, counts `[M, M]` of true modes (rows) and found ones, and the
            modes' names; None for both where there are none.
        path: the file to write.
    """
    with plt.rc_context(SMALL | {"axes.grid": False}):
        fig, axes = panels_in_a_row(panels, height=4.4)
        for ax, (counts, modes) in zip(axes, panels.values(), strict=True):
            ax.set_xticks([])
            ax.set_yticks([])
            note_if_empty(ax, counts is not None, _NONE)
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
