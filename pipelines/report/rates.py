"""The pictures of the rates that update rules of the inner loop learned."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from pipelines.report.figures import Figure
from pipelines.report.style import SETTINGS, save
from pipelines.report.tables import Numbers


def learned_rates(numbers: Numbers, directory: Path) -> list[Figure]:
    """Draws a heat map for each run, with a panel for each mode that has rates of its own.

    The metrics of a run that learned any have the rows of `mmaml_tf.update_rules.rate_table`.
    """
    found = []
    for run in numbers.scores.runs.values():
        rows = run.metrics.get("learned_rates")
        if not rows:
            continue
        name = f"rates_{run.names[0]}.png"
        _draw(rows, directory / name)
        same = any(row["step"] is None for row in rows)
        caption = (
            f"Learned inner rates of {run.names[0]}: of each weight, in the order of the network's "
            "layers, and each inner step; the mean over the weight's elements"
            f"{', which is the same in all steps' if same else ''}. White is the median."
        )
        found.append(Figure("Learned inner rates", name, caption))
    return found


def _draw(rows, path):
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    panels = [_grid([row for row in rows if row["mode"] == mode]) for mode in modes]
    middle = float(np.median([value for *_, values in panels for value in values.flat]))
    reach = max(np.abs(values - middle).max() for *_, values in panels) or 1.0
    limits = {"vmin": middle - reach, "vmax": middle + reach}
    with plt.rc_context(SETTINGS | {"axes.grid": False}):
        size = 2 + 3.5 * len(modes), 1.2 + 0.32 * len(panels[0][0])
        fig, axes = plt.subplots(1, len(modes), figsize=size, squeeze=False, sharey=True)
        for ax, mode, (variables, steps, values) in zip(axes[0], modes, panels, strict=True):
            shown = ax.imshow(values, "RdBu_r", aspect="auto", **limits)
            ax.set_xticks(range(len(steps)), steps)
            ax.set_yticks(range(len(variables)), variables)
            ax.set_xlabel("inner step")
            ax.set_title(mode or "")
        fig.colorbar(shown, ax=axes[0], label="rate")
        save(fig, path)


def _grid(rows):
    """Returns the names of variables and of steps, and the mean rates `[V, S]`."""
    variables = list(dict.fromkeys(row["variable"] for row in rows))
    steps = list(dict.fromkeys(row["step"] for row in rows))
    means = {(row["variable"], row["step"]): row["mean"] for row in rows}
    values = np.array([[means[v, s] for s in steps] for v in variables])
    names = ["/".join(v.split("/")[-2:]) for v in variables]
    return names, ["all" if s is None else s + 1 for s in steps], values
