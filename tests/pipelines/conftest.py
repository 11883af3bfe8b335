"""What the tests of the pipeline share."""

import functools

import pytest
import sklearn.manifold


@pytest.fixture(autouse=True)
def quick_maps(monkeypatch):
    """Maps of embeddings with a quarter of the iterations; no test looks at where a point is."""
    quick = functools.partial(sklearn.manifold.TSNE, max_iter=250)
    monkeypatch.setattr(sklearn.manifold, "TSNE", quick)
