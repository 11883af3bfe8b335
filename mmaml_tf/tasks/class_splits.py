"""Which classes of an image dataset train, validate and test: versioned lists, never recomputed.

The lists are `splits/<dataset>-<split>.json`, each with the source it comes from.
"""

import json
from importlib import resources
from typing import NamedTuple

#: the splits of each dataset by name, the default first
SPLITS = {
    "omniglot": ("mmaml", "vinyals"),
    "mini_imagenet": ("ravi",),
    "fc100": ("tadam",),
    "cub": ("mmaml", "closerlook"),
    "aircraft": ("mmaml",),
    "flowers": ("metadataset",),
}

_PARTS = ("train", "validation", "test")


class ClassSplit(NamedTuple):
    """A division of a dataset's classes.

    Attributes:
        train: names of the classes to train on.
        validation: names of the classes that select a checkpoint; may be empty.
        test: names of the classes of the final evaluation; may be empty.
        source: where the lists come from.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    source: str = ""

    @classmethod
    def of(cls, train, validation=(), test=(), source: str = "") -> "ClassSplit":
        """Makes a split from lists of class names, for a dataset of one's own.

        Raises:
            ValueError: when a class is listed twice, or there is none to train on.
        """
        split = cls(tuple(train), tuple(validation), tuple(test), source)
        if not split.train:
            raise ValueError("this split has no training classes: list at least one.")
        seen = {}
        for part in _PARTS:
            for name in getattr(split, part):
                if name in seen:
                    raise ValueError(
                        f"class {name!r} is listed under {seen[name]} and under {part}: "
                        "the parts of a split share no class, and list each once."
                    )
                seen[name] = part
        return split

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of all classes: train, validation, test."""
        return self.train + self.validation + self.test


def class_split(dataset: str, split: str | None = None) -> ClassSplit:
    """Reads a versioned split.

    Args:
        dataset: name of the dataset.
        split: name of the split; the dataset's default, the first of `SPLITS`, if None.

    Raises:
        ValueError: when there is no such list, naming those there are.
    """
    if dataset not in SPLITS:
        raise ValueError(
            f"dataset={dataset!r}: there are class lists for {', '.join(SPLITS)}. For a dataset "
            "of your own make one with ClassSplit.of(train, validation, test)."
        )
    split = SPLITS[dataset][0] if split is None else split
    if split not in SPLITS[dataset]:
        raise ValueError(
            f"split={split!r}: the splits of {dataset} are {', '.join(SPLITS[dataset])}."
        )
    file = resources.files(__package__) / "splits" / f"{dataset}-{split}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    return ClassSplit.of(*(content[part] for part in _PARTS), content["source"])
