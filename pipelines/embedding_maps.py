"""What the reports show of task embeddings: maps of them, and how far they tell the modes apart."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

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
#: what all of them share, and what is said of the scores beside them
COMMON = (
    f"initialised by PCA, random_state {RANDOM_STATE}, no jitter, one seed (the first that is here)"
)
SILHOUETTE = (
    "The silhouette is that of the modes among the raw embeddings (Euclidean distances; 1 is "
    "separate, 0 is mixed)."
)
CONFUSION = (
    "The mode whose centroid is nearest to a task's raw embedding, in % of the tasks of its true "
    "mode (row). Centroids are of the first half of each mode's embedded tasks, the other half is "
    "classified; in the title, how much of it correctly, and chance."
)


class Embeddings(NamedTuple):
    """Embeddings of the tasks of an evaluation.

    Attributes:
        values: `[N, E]`.
        mode: `[N]` mode of each.
        modes: names of the modes.
    """

    values: np.ndarray
    mode: np.ndarray
    modes: Sequence[str]

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> "Embeddings | None":
        """Returns the embeddings among an evaluation's arrays, or None without any."""
        if "embeddings" not in arrays:
            return None
        mode = arrays.get("embeddings_mode", arrays["mode"])
        return cls(arrays["embeddings"], mode, [str(name) for name in arrays["modes"]])

    @property
    def silhouette(self) -> float:
        """The silhouette score of the modes (Euclidean distances)."""
        return float(silhouette_score(self.values, self.mode))

    def titled(self, title: str) -> str:
        """Returns the title of a map with the silhouette score, which one mode has not."""
        return f"{title} (silhouette {self.silhouette:.2f})" if len(self.modes) > 1 else title


def tsne(embeddings: Embeddings, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Returns the t-SNE map `[n, 2]` and the modes `[n]`, the same for the same embeddings."""
    numbers = range(len(embeddings.modes))
    rows = [np.flatnonzero(embeddings.mode == index)[: settings.tasks] for index in numbers]
    chosen = np.concatenate(rows)
    # Sums over several threads end in different bits from run to run.
    with threadpool_limits(1):
        points = TSNE(
            perplexity=min(settings.perplexity, (len(chosen) - 1) / 3),
            learning_rate=settings.learning_rate,
            random_state=RANDOM_STATE,
        ).fit_transform(embeddings.values[chosen])
    return points, embeddings.mode[chosen]


def map_panels(
    embedded: Mapping[str, Embeddings | None], modes: Sequence[str], settings: Settings
) -> dict:
    """Returns t-SNE maps by panel title, with modes as indices into `modes`.

    Args:
        embedded: by title, the embeddings; None for both parts of a panel without any.
        modes: names of all modes.
        settings: those of the maps.
    """
    panels = {}
    for title, embeddings in embedded.items():
        if embeddings is None:
            panels[title] = None, None
            continue
        points, mode = tsne(embeddings, settings)
        own = np.array([modes.index(name) for name in embeddings.modes])
        panels[embeddings.titled(title)] = points, own[mode]
    return panels


def confusion(embeddings: Embeddings) -> np.ndarray:
    """Tells the modes of embeddings apart by the nearest centroid.

    The centroids are those of the first half of each mode's embeddings; the other half is
    classified.

    Args:
        embeddings: of M modes.

    Returns:
        `[M, M]`, for each mode (row) how many of its second half are nearest to each centroid.
    """
    values = np.asarray(embeddings.values, np.float64)
    rows = [values[embeddings.mode == index] for index in range(len(embeddings.modes))]
    centroids = np.stack([row[: len(row) // 2].mean(axis=0) for row in rows])
    found = np.zeros((len(rows), len(rows)), int)
    for index, row in enumerate(rows):
        distances = np.linalg.norm(row[len(row) // 2 :, None] - centroids, axis=-1)
        found[index] = np.bincount(distances.argmin(axis=1), minlength=len(rows))
    return found


def nearest_centroid_accuracy(embeddings: Embeddings) -> float:
    """Returns the share of embeddings whose mode the nearest centroid tells; see `confusion`."""
    counts = confusion(embeddings)
    return float(counts.trace() / counts.sum())


def confusion_panels(embedded: Mapping[str, Embeddings | None]) -> dict:
    """Returns counts and modes by panel title, with the accuracy and chance in it.

    Args:
        embedded: by title, the embeddings; None for both parts of a panel without any.
    """
    panels = {}
    for title, embeddings in embedded.items():
        if embeddings is None:
            panels[title] = None, None
            continue
        share, modes = nearest_centroid_accuracy(embeddings), embeddings.modes
        text = f"{title} ({share:.0%}, chance {1 / len(modes):.0%})"
        panels[text] = confusion(embeddings), modes
    return panels
