"""The scores of an evaluation: what it measured of each held-out task.

They are small and kept with the code, beside the metrics, while embeddings and rollouts are in
DVC's cache. Reports take them where the rest is gone, so that a cell can be compared with cells
that were evaluated on another machine.
"""

from pathlib import Path

import numpy as np


def path(metrics: Path) -> Path:
    """Returns the file of the scores that belong to a file of metrics."""
    return metrics.parents[1] / "scores" / f"{metrics.stem}.npz"


def save(metrics: Path, **arrays) -> None:
    """Writes the scores that belong to a file of metrics."""
    file = path(metrics)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **arrays)
