"""The figure of the page that shows the task embeddings of all domains."""

from collections.abc import Sequence
from pathlib import Path

from pipelines import embedding_plots
from pipelines.embedding_maps import COMMON, SETTINGS, SILHOUETTE, Embeddings, tsne
from pipelines.report_inputs import Files
from pipelines.report_texts import NOT_HERE, NOT_RUN

#: by title, the domain and the MMAML of a panel, as in the published figure
PANELS = {
    "Regression, 5 modes": ("regression", "film_5"),
    "Image classification, 5 modes": ("classification", "film-5-5w1s"),
    "Reacher, 4 modes": ("reinforcement", "mmaml-reacher-4"),
    "Point mass, 4 modes": ("reinforcement", "mmaml-point_mass-4"),
}
CAPTION = (
    "t-SNE maps of the task embeddings of MMAML, coloured by mode; of regression and images from "
    "the support set (5-way 1-shot), of policies from the rollouts before adaptation. Each map: "
    f"{COMMON}. {SILHOUETTE}"
)


def draw(scale: str, seeds: Sequence[int], path: Path) -> tuple[bool, list[str]]:
    """Draws the figure, if any panel has embeddings.

    Args:
        scale: name of the scale.
        seeds: those of params.yaml; of each panel the first that is here is shown.
        path: the file to write.

    Returns:
        Whether there is something to show, and what is said of each panel.
    """
    embedded = {title: _embeddings(scale, *model, seeds) for title, model in PANELS.items()}
    panels, notes = {}, []
    for title, (found, why) in embedded.items():
        if found is None:
            panels[title] = None, None, None
            notes.append(f"{title}: {why}.")
            continue
        settings = SETTINGS[PANELS[title][0]]
        points, mode = tsne(found, settings)
        panels[found.titled(title)] = points, mode, found.modes
        notes.append(
            f"{title}: {len(points)} of {len(found.mode)} held-out tasks, {settings}, embeddings "
            f"of size {found.values.shape[1]}."
        )
    drawn = any(found for found, _ in embedded.values())
    if drawn:
        embedding_plots.domains(panels, path)
    return drawn, notes


def _embeddings(scale, domain, name, seeds):
    """Returns the embeddings of a model's first seed that has any, or None and why."""
    files, why = Files(domain, scale), NOT_RUN
    for seed in seeds:
        if seed not in files.evaluated_seeds(name):
            continue
        arrays, metrics = files.read(name, seed) or ({}, {})
        if found := Embeddings.of(arrays):
            return found, ""
        if not metrics.get("left_out"):
            why = NOT_HERE
    return None, why
