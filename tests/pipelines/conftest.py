import functools

import pytest

from pipelines import embedding_maps


@pytest.fixture(autouse=True)
def short_maps(monkeypatch):
    """Maps of embeddings with a quarter of the iterations; no test looks at where a point is."""
    monkeypatch.setattr(
        embedding_maps, "TSNE", functools.partial(embedding_maps.TSNE, max_iter=250)
    )
