"""What the reports show of task embeddings: maps of them, and how far they tell the modes apart."""

import numpy as np
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

RANDOM_STATE = 0


def tsne(values: np.ndarray, perplexity: float, learning_rate: float | str = "auto") -> np.ndarray:
    """Returns the t-SNE map `[N, 2]` of embeddings `[N, E]`, the same for the same embeddings."""
    perplexity = min(perplexity, (len(values) - 1) / 3)
    # Sums over several threads end in different bits from run to run.
    with threadpool_limits(1):
        return TSNE(
            perplexity=perplexity, learning_rate=learning_rate, random_state=RANDOM_STATE
        ).fit_transform(values)


def confusion(values: np.ndarray, mode: np.ndarray, modes: int) -> np.ndarray:
    """Tells the modes of embeddings apart by the nearest centroid.

    The centroids are those of the first half of each mode's embeddings; the other half is
    classified.

    Args:
        values: `[N, E]`.
        mode: `[N]` mode of each.
        modes: number of modes M.

    Returns:
        `[M, M]`, for each mode (row) how many of its second half are nearest to each centroid.
    """
    values = np.asarray(values, np.float64)
    rows = [values[mode == index] for index in range(modes)]
    centroids = np.stack([row[: len(row) // 2].mean(axis=0) for row in rows])
    found = np.zeros((modes, modes), int)
    for index, row in enumerate(rows):
        distances = np.linalg.norm(row[len(row) // 2 :, None] - centroids, axis=-1)
        found[index] = np.bincount(distances.argmin(axis=1), minlength=modes)
    return found
