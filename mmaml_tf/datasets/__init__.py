"""Image datasets, read from their official distributions and prepared for few-shot tasks."""

import os
from pathlib import Path

from mmaml_tf.datasets.aircraft import Aircraft
from mmaml_tf.datasets.archives import DatasetError
from mmaml_tf.datasets.cifar100 import FC100
from mmaml_tf.datasets.cub import CUB
from mmaml_tf.datasets.dataset import Dataset
from mmaml_tf.datasets.flowers import Flowers
from mmaml_tf.datasets.folder import FolderDataset
from mmaml_tf.datasets.mini_imagenet import MiniImageNet
from mmaml_tf.datasets.omniglot import Omniglot
from mmaml_tf.datasets.prepared import PreparedImages, prepare

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetError",
    "FolderDataset",
    "PreparedImages",
    "available",
    "data_directory",
    "get",
    "prepare",
]

#: the datasets that have a loader, by name
DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (Omniglot(), MiniImageNet(), FC100(), CUB(), Aircraft(), Flowers())
}


def get(name: str) -> Dataset:
    """Returns the loader of a dataset; raises ValueError for an unknown name."""
    if name not in DATASETS:
        raise ValueError(
            f"unknown dataset {name!r}; expected one of {tuple(DATASETS)}, or a folder of class "
            "folders as FolderDataset(name, place)."
        )
    return DATASETS[name]


def available(directory) -> dict[str, bool]:
    """Returns for every dataset whether its files are in a data directory."""
    return {name: d.locate(Path(directory)) is not None for name, d in DATASETS.items()}


def data_directory(given=None) -> Path:
    """Returns the data directory: the one given, else $MMAML_DATA, else `data`."""
    return Path(given or os.environ.get("MMAML_DATA") or "data")
