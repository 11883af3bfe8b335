"""What evaluations keep of task embeddings: a map, and how far they tell the modes apart."""

from typing import NamedTuple

import numpy as np

#: of t-SNE, which begins with the principal components
RANDOM_STATE = 0


class Settings(NamedTuple):
    """Settings of a t-SNE map.

    Attributes:
        perplexity: its perplexity, at most a third of the number of tasks.
        learning_rate: its learning rate.
        tasks: at most so many tasks of each mode are shown, the first ones; None for all.
    """

    perplexity: float
    learning_rate: float | str = "auto"
    tasks: int | None = None

    def __str__(self):
        rate = "chosen by scikit-learn" if self.learning_rate == "auto" else self.learning_rate
        return f"perplexity {self.perplexity} (at most a third of the tasks), learning rate {rate}"


#: by domain; those of classification are published, the others are not
SETTINGS = {
    "regression": Settings(30, tasks=400),
    "classification": Settings(8, 80),
    "reinforcement": Settings(30),
}


def arrays(domain: str, values: np.ndarray, mode: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what an evaluation keeps of task embeddings.

    Args:
        domain: whose `SETTINGS` the map has.
        values: `[N, E]` embeddings.
        mode: `[N]` modes, from 0.

    Returns:
        `map` `[n, 2]`, the t-SNE map of the first tasks of each mode, and `map_mode` `[n]`;
        `silhouette`, that of the modes among the embeddings, where there are several; and
        `confusion`, see there.
    """
    # scikit-learn takes two seconds to import.
    from sklearn.metrics import silhouette_score

    points, shown = tsne(values, mode, SETTINGS[domain])
    found = {
        "map": points.astype(np.float32),
        "map_mode": shown,
        "confusion": confusion(values, mode),
    }
    if len(np.unique(mode)) > 1:
        found["silhouette"] = np.float64(silhouette_score(values, mode))
    return found


def tsne(values, mode, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Returns the map `[n, 2]` and its modes `[n]`, the same for the same embeddings."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    rows = [np.flatnonzero(mode == index)[: settings.tasks] for index in np.unique(mode)]
    chosen = np.concatenate(rows)
    # Sums over several threads end in different bits from run to run.
    with threadpool_limits(1):
        points = TSNE(
            perplexity=min(settings.perplexity, (len(chosen) - 1) / 3),
            learning_rate=settings.learning_rate,
            random_state=RANDOM_STATE,
        ).fit_transform(values[chosen])
    return points, mode[chosen]


def confusion(values: np.ndarray, mode: np.ndarray) -> np.ndarray:
    """Tells the modes of embeddings apart by the nearest centroid.

    The centroids are those of the first half of each mode's embeddings; the other half is
    classified.

    Returns:
        `[M, M]`, for each mode (row) how many of its second half are nearest to each centroid.
    """
    values = np.asarray(values, np.float64)
    rows = [values[mode == index] for index in np.unique(mode)]
    centroids = np.stack([row[: len(row) // 2].mean(axis=0) for row in rows])
    found = np.zeros((len(rows), len(rows)), int)
    for index, row in enumerate(rows):
        distances = np.linalg.norm(row[len(row) // 2 :, None] - centroids, axis=-1)
        found[index] = np.bincount(distances.argmin(axis=1), minlength=len(rows))
    return found
