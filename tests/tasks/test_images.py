"""Episodes of images: balance, no leakage, determinism, rotations, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.tasks.class_splits import ClassSplit
from mmaml_tf.tasks.image_modes import ImageMode
from mmaml_tf.tasks.images import ImageTasks

SIZE = 6


def mode(name="a", classes=(8, 5, 4), per_class=7, channels=3, size=SIZE, **kwargs):
    """A mode in which every image tells its number: the bytes of the first two pixels."""
    names = [f"{name}{i:02d}" for i in range(sum(classes))]
    count = len(names) * per_class
    images = np.zeros((count, size, size, channels), np.uint8)
    images[:, 0, 0] = (np.arange(count) // 250)[:, None]
    images[:, 0, 1] = (np.arange(count) % 250)[:, None]
    images[:, 2:, 2:] = 255
    offsets = {n: (i * per_class, (i + 1) * per_class) for i, n in enumerate(names)}
    ends = np.cumsum(classes)
    split = ClassSplit(*(tuple(names[a:b]) for a, b in zip((0, *ends), ends, strict=False)), "test")
    return ImageMode(name, images, offsets, split, digest=name, **kwargs)


def numbers(images):
    """Reads the images' numbers back, `[..., H, W, C]` to `[...]`."""
    pixels = np.rint(np.asarray(images)[..., 0, :2, 0] * 255).astype(int)
    return pixels[..., 0] * 250 + pixels[..., 1]


def tasks(**kwargs):
    settings = {"ways": 3, "support": 2, "queries": 4} | kwargs
    return ImageTasks(settings.pop("modes", [mode("a"), mode("b", channels=1)]), **settings)


def test_shapes_types_and_range():
    batch = tasks().sample(4, seed=0)
    assert batch.support_x.shape == (4, 6, SIZE, SIZE, 3) and batch.support_x.dtype == np.float32
    assert batch.query_x.shape == (4, 12, SIZE, SIZE, 3)
    assert batch.support_y.shape == (4, 6) and batch.support_y.dtype == np.int32
    assert batch.query_x.min() == 0 and batch.query_x.max() == 1
    assert batch.origin.tolist() == [0, 0]
    gray = batch.support_x[batch.mode == 1]
    np.testing.assert_array_equal(gray[..., 0], gray[..., 2])


def test_classes_and_images_are_drawn_without_replacement_and_without_leakage():
    distribution = tasks()
    for step in range(50):
        batch = distribution.sample(2, seed=3, step=step)
        for task in range(2):
            support, query = numbers(batch.support_x[task]), numbers(batch.query_x[task])
            together = np.concatenate([support, query])
            assert len(set(together)) == len(together), "no image twice"
            labels = np.concatenate([batch.support_y[task], batch.query_y[task]])
            classes = together // 7
            pairs = set(zip(classes.tolist(), labels.tolist(), strict=True))
            assert len(pairs) == len(set(classes)) == len(set(labels)) == 3, "one label a class"
            assert set(classes) <= set(range(8)), "training classes only"
            for of, count in ((batch.support_y, 2), (batch.query_y, 4)):
                assert np.bincount(of[task]).tolist() == [count] * 3


@pytest.mark.parametrize(
    ("split", "classes"), [("validation", range(8, 13)), ("test", range(13, 17))]
)
def test_each_split_has_its_own_classes(split, classes):
    batch = tasks(split=split).sample(20, seed=0)
    assert set((numbers(batch.query_x) // 7).ravel()) == set(classes)


def test_labels_say_nothing_of_classes_and_positions_nothing_of_labels():
    distribution = tasks(modes=[mode("a")])
    labels, first = np.zeros((8, 3)), np.zeros(3)
    for step in range(300):
        batch = distribution.sample(1, seed=0, step=step)
        np.add.at(labels, (numbers(batch.support_x[0]) // 7, batch.support_y[0]), 0.5)
        first[batch.query_y[0, 0]] += 1
    # 300 tasks of 3 of 8 classes: 37.5 tasks a pair, 100 a label, within five deviations.
    assert np.all(np.abs(labels - 37.5) < 5 * 37.5**0.5)
    assert np.all(np.abs(first - 100) < 5 * 100**0.5)


@pytest.mark.parametrize("count", [4, 5, 1])
def test_modes_are_balanced(count):
    modes = [mode("a"), mode("b"), mode("c")]
    distribution = tasks(modes=modes)
    drawn = [distribution.sample(count, seed=0, step=step).mode for step in range(6)]
    for batch in drawn:
        counts = np.bincount(batch, minlength=3)
        assert counts.max() - counts.min() <= 1
        assert np.all(np.diff(batch) >= 0)
    assert np.bincount(np.concatenate(drawn)).tolist() == [2 * count] * 3


def test_a_batch_is_a_function_of_seed_and_step():
    a, b = tasks(), tasks()
    b.sample(2, seed=9)
    for x, y in zip(a.sample(4, 1, 7), b.sample(4, 1, 7), strict=True):
        np.testing.assert_array_equal(x, y)
    assert np.any(a.sample(4, 1, 7).support_x != a.sample(4, 1, 8).support_x)
    assert np.any(a.sample(4, 1, 7).support_x != a.sample(4, 2, 7).support_x)


@pytest.mark.parametrize("cores", [1, 16])
def test_the_dataset_goes_on_where_it_is_told_to(monkeypatch, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    distribution = tasks()
    dataset = distribution.dataset(4, seed=1, start=3)
    spec = dataset.element_spec
    assert isinstance(spec, mm.Episodes) and spec.support_x.shape == (4, 6, SIZE, SIZE, 3)
    for step, batch in zip(range(3, 23), dataset, strict=False):
        for x, y in zip(batch, distribution.sample(4, 1, step), strict=True):
            np.testing.assert_array_equal(x, y)


def test_rotation_turns_each_class_of_a_task_as_a_whole():
    turned = tasks(modes=[mode("a", rotated=True)])
    plain = tasks(modes=[mode("a")])
    seen = set()
    for step in range(20):
        a, b = turned.sample(1, 0, step), plain.sample(1, 0, step)
        turns = {}
        for half in ("support", "query"):
            x, y = getattr(a, f"{half}_x")[0], getattr(a, f"{half}_y")[0]
            for image, label in zip(x, y, strict=True):
                upright = [np.rot90(image, -k) for k in range(4)]
                bright = [u[0, 2:].max() == 0 and u[-1, -1].min() == 1 for u in upright]
                turns.setdefault(label, set()).add(bright.index(True))
        assert all(len(values) == 1 for values in turns.values())
        seen |= set.union(*turns.values())
        np.testing.assert_array_equal(a.mode, b.mode)
    assert seen == {0, 1, 2, 3}


def test_held_out_tasks_are_fixed_and_no_training_batch():
    distribution = tasks(split="test")
    held_out = distribution.held_out(5, seed=7)
    parts = list(held_out.batches(2))
    assert [len(episodes.mode) for episodes, _ in parts] == [2, 2, 1, 2, 2, 1]
    together = [np.concatenate(arrays) for arrays in zip(*(e[:5] for e, _ in parts), strict=True)]
    np.testing.assert_array_equal(together[4], held_out.mode)
    whole = list(held_out.batches())
    again = [np.concatenate(arrays) for arrays in zip(*(e[:5] for e, _ in whole), strict=True)]
    for a, b in zip(together, again, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(parts[0][1]["labels"], parts[0][0].query_y)
    assert held_out.digest() == tasks(split="test").held_out(5, seed=7).digest()
    assert held_out.digest() != distribution.held_out(5, seed=8).digest()
    assert held_out.digest() != distribution.held_out(6, seed=7).digest()
    training = distribution.sample(2, seed=7, step=0)
    assert np.any(training.support_x[0] != together[0][0])


def test_the_held_out_tasks_of_a_mode_do_not_depend_on_the_others():
    distribution = tasks(split="test")
    alone = distribution.held_out(3, seed=7).only(["b"])
    assert alone.modes == ("b",) and alone.mode.tolist() == [0, 0, 0]
    (of_both, _) = list(distribution.held_out(3, seed=7).batches(3))[1]
    (of_one, _) = next(iter(alone.batches(3)))
    np.testing.assert_array_equal(of_both.query_x, of_one.query_x)
    with pytest.raises(ValueError, match=r"modes \['z'\] are not among"):
        distribution.held_out(3, seed=7).only(["z"])


def test_too_few_classes_or_images_are_errors_that_name_them():
    with pytest.raises(ValueError, match=r"mode 'a' has 4 classes in its test split.* 5-way"):
        tasks(ways=5, split="test")
    with pytest.raises(ValueError, match=r"mode 'a', class 'a00' has 7 images; 2 support and 6"):
        tasks(queries=6)
    broken = mode("a")
    del broken.offsets["a03"]
    with pytest.raises(ValueError, match=r"train split names 1 classes .* 'a03'"):
        tasks(modes=[broken])


def test_fewer_ways_on_request():
    distribution = tasks(
        ways=5, split="test", fewer_ways=True, modes=[mode("a"), mode("b", (2, 2, 6))]
    )
    assert [distribution.ways_of(name) for name in "ab"] == [4, 5]
    assert distribution.config()["ways"] == {"a": 4, "b": 5}
    a, b = (episodes for episodes, _ in distribution.held_out(2, seed=0).batches())
    assert a.support_y.shape == (2, 8) and b.support_y.shape == (2, 10)
    with pytest.raises(ValueError, match=r"modes \['a'\] have tasks of fewer than 5 classes"):
        distribution.sample(2, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modes": []}, "give at least one"),
        ({"modes": [mode("a"), mode("a")]}, "each of another name"),
        ({"modes": [mode("a"), mode("b", size=8)]}, "images of different sizes"),
        ({"modes": ["a"]}, "modes holds 'a'; expected ImageModes"),
        ({"channels": 1}, "channels=1: expected 3"),
        ({"channels": True}, "channels=True"),
        ({"split": ["train"]}, "expected one of"),
        ({"split": "val"}, "split='val': expected one of"),
        ({"ways": 1}, "ways=1: expected a whole number of at least 2"),
        ({"support": 0}, "support=0: expected"),
        ({"queries": 1.5}, "queries=1.5: expected"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tasks(**change)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.sample(0, seed=0), "tasks=0"),
        (lambda t: t.sample(True, seed=0), "tasks=True"),
        (lambda t: t.sample(2, seed=0.5), "seed=0.5"),
        (lambda t: t.sample(2, seed=0, step=-1), "step=-1"),
        (lambda t: t.dataset(2, seed=0, start=-1), "start=-1"),
        (lambda t: t.held_out(0, seed=0), "tasks_per_mode=0"),
        (lambda t: t.held_out(2, seed="7"), "seed='7'"),
        (lambda t: next(t.held_out(2, seed=7).batches(0)), "batch_size=0"),
        (lambda t: t.held_out(2, seed=7).only([]), "at least one"),
        (lambda t: t.held_out(2, seed=7).only(["a", "a"]), "each once"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(tasks())


def test_integers_of_numpy_are_numbers():
    made = tasks(ways=np.int64(3), support=np.int32(2), queries=np.uint8(4), channels=np.int64(3))
    assert made.digest() == tasks().digest()
    found, expected = made.sample(np.int64(2), np.int64(1), np.int64(5)), tasks().sample(2, 1, 5)
    np.testing.assert_array_equal(found.support_x, expected.support_x)
    held_out = made.held_out(np.int64(2), np.int64(7))
    assert held_out.digest() == tasks().held_out(2, 7).digest()


def test_the_digest_follows_settings_classes_and_images():
    digests = {
        tasks(**change).digest()
        for change in (
            {},
            {"support": 1},
            {"split": "validation"},
            {"modes": [mode("a"), mode("b", channels=1, rotated=True)]},
            {"modes": [mode("a"), mode("b", channels=1)._replace(digest="other")]},
        )
    }
    assert len(digests) == 5


def test_numbers_survive_the_way_into_the_graph():
    batch = next(iter(tasks(modes=[mode("a")]).dataset(1, seed=0)))
    assert set(numbers(batch.support_x).ravel()) <= set(range(8 * 7))
    assert isinstance(batch.support_x, tf.Tensor)
