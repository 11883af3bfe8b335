"""Which classes of an image dataset are for training, validation and test."""

import json
from pathlib import Path
from typing import NamedTuple

_DIRECTORY = Path(__file__).parent / "splits"


class ClassSplit(NamedTuple):
    """Three disjoint lists of classes.

    Attributes:
        train: classes that tasks of training are made of.
        validation: classes by which checkpoints are chosen.
        test: classes of the held-out tasks.
        source: where the lists come from.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    source: str = ""

    @classmethod
    def of(cls, train, validation, test, source: str = "") -> "ClassSplit":
        """Makes a split of your own.

        Raises:
            ValueError: when a class is in two lists, or twice in one.
        """
        split = cls(tuple(train), tuple(validation), tuple(test), source)
        classes = [*split.train, *split.validation, *split.test]
        twice = sorted({name for name in classes if classes.count(name) > 1})
        if twice:
            raise ValueError(f"classes {twice[:5]} are more than once in the split.")
        return split


def class_split(dataset: str, name: str | None = None) -> ClassSplit:
    """Returns a published split of a dataset.

    Args:
        dataset: name of the dataset.
        name: name of the split; by default the one of the published protocol.

    Raises:
        ValueError: for a dataset or a split that there is no list of.
    """
    path = _DIRECTORY / f"{dataset}.json"
    if not path.is_file():
        known = sorted(file.stem for file in _DIRECTORY.glob("*.json"))
        raise ValueError(
            f"there is no split of {dataset!r}, only of {known}; make your own with "
            "ClassSplit.of(train, validation, test)."
        )
    splits = json.loads(path.read_text())
    name = next(iter(splits)) if name is None else name
    if name not in splits:
        raise ValueError(f"{dataset!r} has no split {name!r}; expected one of {list(splits)}.")
    lists = splits[name]
    return ClassSplit.of(lists["train"], lists["validation"], lists["test"], lists["source"])
