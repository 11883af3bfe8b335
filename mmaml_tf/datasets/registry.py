"""The datasets by name, and where their files are."""

import os
from pathlib import Path

from mmaml_tf.datasets.aircraft import Aircraft
from mmaml_tf.datasets.arguments import user_path
from mmaml_tf.datasets.cifar100 import CIFARFS, FC100
from mmaml_tf.datasets.cub import CUB
from mmaml_tf.datasets.dataset import ImageDataset, check_name
from mmaml_tf.datasets.flowers import Flowers
from mmaml_tf.datasets.mini_imagenet import MiniImageNet
from mmaml_tf.datasets.omniglot import Omniglot

#: every known dataset by name
DATASETS: dict[str, ImageDataset] = {}


def register(dataset: ImageDataset) -> ImageDataset:
    """Makes a dataset of one's own known under its name, in place of one of the same name."""
    DATASETS[check_name(dataset.name)] = dataset
    return dataset


for _dataset in (Omniglot(), MiniImageNet(), FC100(), CIFARFS(), CUB(), Aircraft(), Flowers()):
    register(_dataset)


def find(dataset: str | ImageDataset) -> ImageDataset:
    """Returns a dataset by its name, or as given.

    Raises:
        ValueError: when there is none of that name.
    """
    if isinstance(dataset, ImageDataset):
        check_name(dataset.name)
        return dataset
    if not isinstance(dataset, str) or dataset not in DATASETS:
        raise ValueError(
            f"dataset={dataset!r}: {', '.join(DATASETS)} are known. Add one with "
            "register(FolderDataset(path, name))."
        )
    return DATASETS[dataset]


def data_directory(value=None) -> Path:
    """Returns the directory given, else that of the variable MMAML_DATA, else "data"."""
    return user_path(value or os.environ.get("MMAML_DATA") or "data", "data_dir")


def available(data_dir=None) -> dict[str, bool | str]:
    """Tells for every dataset whether its files are there: True, or what is missing.

    Only looks for the files, and reads none.
    """
    directory = data_directory(data_dir)
    return {
        name: True if dataset.locate(directory) else dataset.missing(directory)
        for name, dataset in DATASETS.items()
    }


def missing(name: str, data_dir=None) -> str:
    """Says which files of a dataset go where, and whether they can be downloaded."""
    return find(name).missing(data_directory(data_dir))
