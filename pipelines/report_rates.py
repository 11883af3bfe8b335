"""How the reports show the rates that update rules of the inner loop learned."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipelines.plot_style import SMALL, plt, save
from pipelines.report_page import Section, figure

_CAPTION = (
    "Learned inner rates of {name}: of each weight, in the order of the network's layers, and each "
    "inner step; the mean over the weight's elements{all_steps}. White is the median."
)


def find(results: Path) -> dict[str, list[dict]]:
    """Returns the rows of `mmaml_tf.update_rules.rate_table` by the run that learned them.

    Args:
        results: the results of a domain, with the metrics of its evaluations.
    """
    found = {}
    for path in sorted((results / "metrics").glob("*.json")):
        if rows := json.loads(path.read_text()).get("learned_rates"):
            found[path.stem] = rows
    return found


def draw(rates: Mapping[str, list[dict]], directory: Path) -> None:
    """Draws a heat map for each run, with a panel for each mode that has rates of its own.

    Args:
        rates: see `find`.
        directory: where to.
    """
    for name, rows in rates.items():
        modes = list(dict.fromkeys(row["mode"] for row in rows))
        panels = [_grid([row for row in rows if row["mode"] == mode]) for mode in modes]
        middle = float(np.median([value for *_, values in panels for value in values.flat]))
        reach = max(np.abs(values - middle).max() for *_, values in panels) or 1.0
        with plt.rc_context(SMALL | {"axes.grid": False}):
            size = 2 + 3.5 * len(modes), 1.2 + 0.32 * len(panels[0][0])
            fig, axes = plt.subplots(1, len(modes), figsize=size, squeeze=False, sharey=True)
            for ax, mode, (variables, steps, values) in zip(axes[0], modes, panels, strict=True):
                shown = ax.imshow(
                    values, "RdBu_r", vmin=middle - reach, vmax=middle + reach, aspect="auto"
                )
                ax.set_xticks(range(len(steps)), steps)
                ax.set_yticks(range(len(variables)), variables)
                ax.set_xlabel("inner step")
                ax.set_title(mode or "")
            fig.colorbar(shown, ax=axes[0], label="rate")
            save(fig, directory / f"rates_{name}.png")


def _grid(rows):
    """Returns the names of variables and of steps, and the mean rates `[V, S]`."""
    variables = list(dict.fromkeys(row["variable"] for row in rows))
    steps = list(dict.fromkeys(row["step"] for row in rows))
    means = {(row["variable"], row["step"]): row["mean"] for row in rows}
    values = np.array([[means[v, s] for s in steps] for v in variables])
    names = ["/".join(v.split("/")[-2:]) for v in variables]
    return names, ["all" if s is None else s + 1 for s in steps], values


def sections(rates: Mapping[str, list[dict]]) -> list[Section]:
    """Returns the page's section of learned rates; none where nothing was learned."""
    figures = []
    for name, rows in rates.items():
        same = any(row["step"] is None for row in rows)
        all_steps = ", which is the same in all steps" if same else ""
        caption = _CAPTION.format(name=name, all_steps=all_steps)
        figures.append(figure(f"plots/rates_{name}.png", caption))
    return [Section("Learned inner rates", "".join(figures))] if figures else []
