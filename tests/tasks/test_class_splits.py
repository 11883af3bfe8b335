"""The class lists are disjoint and complete, and follow from the rules that they are said to."""

import numpy as np
import pytest

from mmaml_tf.tasks.class_splits import SPLITS, ClassSplit, class_split

COUNTS = {
    ("omniglot", "mmaml"): (1000, 100, 523),
    ("omniglot", "vinyals"): (1028, 172, 423),
    ("mini_imagenet", "ravi"): (64, 16, 20),
    ("fc100", "tadam"): (60, 20, 20),
    ("cifar_fs", "bertinetto"): (64, 16, 20),
    ("cub", "mmaml"): (140, 30, 30),
    ("cub", "closerlook"): (100, 50, 50),
    ("aircraft", "mmaml"): (70, 15, 15),
    ("flowers", "metadataset"): (71, 15, 16),
}


def test_every_split_has_its_published_counts_and_is_disjoint():
    assert {(d, s) for d, splits in SPLITS.items() for s in splits} == set(COUNTS)
    for (dataset, name), counts in COUNTS.items():
        split = class_split(dataset, name)
        assert tuple(map(len, split[:3])) == counts
        assert len(set(split.classes)) == sum(counts)
        assert split.source


def test_the_default_is_the_first():
    assert class_split("cub") == class_split("cub", "mmaml")
    assert class_split("omniglot") == class_split("omniglot", "mmaml")


@pytest.mark.parametrize("dataset", ["omniglot", "cub"])
def test_splits_of_one_dataset_divide_the_same_classes(dataset):
    one, other = (set(class_split(dataset, name).classes) for name in SPLITS[dataset])
    assert one == other


def test_cifar_fs_and_fc100_divide_the_same_classes_in_another_way():
    fs, fc = class_split("cifar_fs"), class_split("fc100")
    assert set(fs.classes) == set(fc.classes) and len(fs.classes) == 100
    # FC100 keeps superclasses together, CIFAR-FS does not.
    trees = {"maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"}
    assert trees <= set(fc.train)
    assert trees & set(fs.validation) == {"maple_tree"} and not trees & set(fs.test)
    assert {"bus", "train", "orchid", "lion"} <= set(fs.train)
    assert {"motorcycle", "sea", "otter", "crab"} <= set(fs.validation)
    assert {"bicycle", "whale", "rose", "leopard"} <= set(fs.test)


def test_cub_follows_the_seeded_shuffle_of_the_sorted_names():
    names = sorted(class_split("cub", "closerlook").classes)
    np.random.RandomState(123).shuffle(names)
    assert class_split("cub", "mmaml").classes == tuple(names)


def test_cub_closerlook_follows_its_rule():
    names = sorted(class_split("cub").classes)
    split = class_split("cub", "closerlook")
    assert split[:3] == (tuple(names[::2]), tuple(names[1::4]), tuple(names[3::4]))


def test_aircraft_keeps_the_variants_with_slashes():
    split = class_split("aircraft")
    assert "F/A-18" in split.test
    assert "F-16A/B" in split.train
    names = sorted(split.classes)
    np.random.RandomState(123).shuffle(names)
    assert split.classes == tuple(names)


def test_omniglot_validates_on_the_last_100_of_the_first_1100():
    split = class_split("omniglot")
    assert split.train[0] == "Alphabet_of_the_Magi/character01"
    assert split.test == tuple(sorted(split.test))
    # The evaluation half is in sorted order across the border of training and validation.
    evaluation = split.train[964:] + split.validation + split.test
    assert len(evaluation) == 659
    assert evaluation == tuple(sorted(evaluation))


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'birds'.*omniglot.*ClassSplit\.of"):
        class_split("birds")
    with pytest.raises(ValueError, match=r"'ravi'.*mmaml, closerlook"):
        class_split("cub", "ravi")


def test_a_split_of_ones_own_is_checked():
    split = ClassSplit.of(["a", "b"], test=["c"])
    assert split == (("a", "b"), (), ("c",), "")
    with pytest.raises(ValueError, match="'b' is listed under train and under test"):
        ClassSplit.of(["a", "b"], ["c"], ["b"])
    with pytest.raises(ValueError, match="listed under train and under train"):
        ClassSplit.of(["a", "a"])
    with pytest.raises(ValueError, match="no training classes"):
        ClassSplit.of([], ["a"])
