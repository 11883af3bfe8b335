"""Progress of long work: a bar in a terminal, a line now and then in a log."""

import os
import sys

from tqdm import tqdm


class Progress:
    """Shows how far a training run is and its latest loss.

    Args:
        name: shown in front.
        total: number of iterations.
    """

    def __init__(self, name: str, total: int):
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            desc=name,
            unit="it",
            mininterval=0.5 if terminal else 15,
            ascii=not terminal,
            # tqdm itself looks at it when it is imported, which may be in another process.
            position=int(os.environ.get("TQDM_POSITION", "0")) or None,
        )

    def update(self, row: dict) -> None:
        """Moves the bar to the step of a row of metrics."""
        self._bar.set_postfix_str(f"loss {row['loss']:.3f}", refresh=False)
        self._bar.update(row["step"] - self._bar.n)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._bar.close()
