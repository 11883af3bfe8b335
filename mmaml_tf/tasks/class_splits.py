"""Which classes of an image dataset train, validate and test: versioned lists, never recomputed.

The lists are `splits/<dataset>-<split>.json`, each with the source it comes from.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import NamedTuple

import numpy as np

from mmaml_tf.arguments import whole_number

#: the splits of each dataset by name, the default first
SPLITS = {
    "omniglot": ("mmaml", "vinyals"),
    "mini_imagenet": ("ravi",),
    "fc100": ("tadam",),
    "cifar_fs": ("bertinetto",),
    "cub": ("mmaml", "closerlook"),
    "aircraft": ("mmaml",),
    "flowers": ("metadataset",),
}

#: shares of classes, or of tasks, in train, validation and test where none are given
SHARES = (0.7, 0.15, 0.15)

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
    def of(
        cls,
        train: Iterable[str],
        validation: Iterable[str] = (),
        test: Iterable[str] = (),
        source: str = "",
    ) -> "ClassSplit":
        """Makes a split from lists of class names, for a dataset of one's own.

        Raises:
            ValueError: when a class is listed twice, or there is none to train on.
        """
        split = _of_lists({"train": train, "validation": validation, "test": test}, "class")
        if not split.train:
            raise ValueError("this split has no training classes: list at least one.")
        return split._replace(source=source)

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


def divided(names: Iterable, parts, what: str = "class", seed: int = 0) -> ClassSplit:
    """Divides classes, or tasks, into train, validation and test.

    Args:
        names: all of them, each once; how they are ordered does not matter for shares.
        parts: the three shares, which sum to 1, or lists by part that name each of them once.
        what: what they are, for messages.
        seed: seed of the division by shares.

    Raises:
        ValueError: for shares that are none, unknown parts or names, and names that are in no part
            or in two.
    """
    names = tuple(names)
    if isinstance(parts, Mapping):
        return _covering(_of_lists(parts, what), names, what)
    try:
        shares = np.array(parts, float)
    except (TypeError, ValueError):
        shares = np.zeros(0)
    if shares.shape != (3,) or not (shares.min() >= 0 and abs(shares.sum() - 1) < 1e-6):
        raise ValueError(
            f"split={parts!r}: expected three shares (train, validation, test) that sum to 1, or "
            f"lists of {what} names {{'train': [...], 'validation': [...], 'test': [...]}}."
        )
    seed = whole_number("seed", seed, None)
    # A name's place depends on the seed and itself alone, and not on the order of the rows.
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name!r}".encode()).digest())
    ends = np.rint(np.cumsum([0, *shares]) * len(order)).astype(int).tolist()
    return ClassSplit(*(tuple(order[a:b]) for a, b in itertools.pairwise(ends)))


def _of_lists(parts, what):
    """Returns lists of names as a split; raises ValueError for a name that is given twice."""
    if unknown := [part for part in parts if part not in _PARTS]:
        raise ValueError(f"split has the parts {unknown}; expected some of {_PARTS}.")
    if strings := [part for part in parts if isinstance(parts[part], str)]:
        raise ValueError(f"the {strings[0]} split is a string; expected a list of {what} names.")
    split = ClassSplit(*(tuple(parts.get(part, ())) for part in _PARTS))
    seen = {}
    for part in _PARTS:
        for name in getattr(split, part):
            if name in seen:
                raise ValueError(
                    f"{what} {name!r} is listed under {seen[name]} and under {part}: "
                    f"the parts of a split share no {what}, and list each once."
                )
            seen[name] = part
    return split


def _covering(split, names, what):
    """Returns a split; raises ValueError unless it lists these names and no others."""
    for wrong, verb, remedy in (
        (set(split.classes) - set(names), "lists", "it has no data, so leave it out."),
        (set(names) - set(split.classes), "misses", "list it in a part, or drop its data."),
    ):
        if wrong:
            others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise ValueError(f"the split {verb} {what} {min(wrong, key=repr)!r}{others}: {remedy}")
    return split
