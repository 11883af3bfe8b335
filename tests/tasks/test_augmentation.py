"""Augmented images: what changes, as PIL changes it, and as a function of (seed, step)."""

import doctest

import numpy as np
import pytest
from images import mode as random_mode
from PIL import Image, ImageEnhance

from mmaml_tf.tasks import Augmentation, ImageTasks, augmentation
from mmaml_tf.tasks.augmentation import Changes

ALL = Augmentation(flip=True, padding=2, brightness=0.4, contrast=0.4, saturation=0.4)
RNG = np.random.default_rng(0)


def tasks(given=None, modes=None, **kwargs):
    modes = modes or [random_mode("a"), random_mode("b", seed=1, channels=1)]
    settings = {"ways": 3, "support": 2, "queries": 4} | kwargs
    return ImageTasks(modes, augmentation=given, **settings)


def images(n=1, size=12, channels=3, low=0, high=256):
    return RNG.integers(low, high, (n, size, size, channels), np.uint8)


def changes(n=1, mirrored=False, corner=(0, 0), factors=(1, 1, 1)):
    return Changes(np.full(n, mirrored), np.tile(corner, (n, 1)), np.tile(factors, (n, 1)) * 1.0)


def changed(given, shape=(3, 6), channels=3, size=12):
    """Images `[ways, points, H, W, C]`, and what an augmentation makes of them."""
    x = images(shape[0] * shape[1], size, channels).reshape(*shape, size, size, channels)
    return x, given.apply(x, given.draw(np.random.default_rng(3), shape))


def as_pil(image, b, c, s):
    image = ImageEnhance.Brightness(Image.fromarray(image)).enhance(b)
    return np.asarray(ImageEnhance.Color(ImageEnhance.Contrast(image).enhance(c)).enhance(s))


def test_the_examples_run():
    found = doctest.testmod(augmentation)
    assert found.attempted and not found.failed


def test_half_of_the_images_are_mirrored():
    x, found = changed(Augmentation(flip=True), (20, 20))
    mirrored = np.all(found == x[:, :, :, ::-1], axis=(2, 3, 4))
    assert np.all(mirrored | np.all(found == x, axis=(2, 3, 4)))
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / 400**0.5
    # No row and no column of images is mirrored together.
    assert np.all((mirrored.mean(0) > 0) & (mirrored.mean(0) < 1))
    assert np.all((mirrored.mean(1) > 0) & (mirrored.mean(1) < 1))


def test_crops_are_those_of_the_padded_image_and_reach_every_corner():
    x, found = changed(Augmentation(padding=2), (20, 20))
    corners = np.zeros((5, 5), int)
    for image, crop in zip(x.reshape(-1, 12, 12, 3), found.reshape(-1, 12, 12, 3), strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        fits = [
            np.array_equal(padded[i : i + 12, j : j + 12], crop) for i in range(5) for j in range(5)
        ]
        corners += np.reshape(fits, (5, 5))
    # 400 crops at 25 corners, within four deviations.
    assert corners.sum() == 400 and np.all(np.abs(corners - 16) < 16)


def test_an_image_is_mirrored_before_it_is_cropped():
    (x,), given = images(), Augmentation(flip=True, padding=3)
    (found,) = given.apply(x[None], changes(mirrored=True, corner=(1, 5)))
    padded = np.pad(x[:, ::-1], ((3, 3), (3, 3), (0, 0)))
    np.testing.assert_array_equal(found, padded[1:13, 5:17])


def test_images_need_not_be_square():
    x = RNG.integers(0, 256, (2, 7, 11, 3), np.uint8)
    found = Augmentation(padding=6).apply(x, changes(2, corner=(12, 0)))
    np.testing.assert_array_equal(found[:, :1, 6:], x[:, 6:, :5])
    assert found[:, 1:].max() == found[:, :, :6].max() == 0


@pytest.mark.parametrize(
    "factors", [(0.7, 1, 1), (1.2, 1, 1), (1, 0.5, 1), (1, 1.3, 1), (1, 1, 0), (1, 1, 1.4)]
)
@pytest.mark.parametrize("channels", [3, 1])
def test_each_colour_change_is_that_of_pil(factors, channels):
    x = images(5, low=80, high=170, channels=channels)  # nothing is cut off
    found = ALL.apply(x, changes(5, corner=(2, 2), factors=factors))
    for image, other in zip(x, found, strict=True):
        expected = as_pil(np.repeat(image, 3 // channels, axis=-1), *factors)
        # PIL rounds the grey values and their mean.
        assert np.abs(expected.astype(int) - other).max() <= 2


def test_together_they_are_those_of_pil_in_any_order():
    x = images(5, low=100, high=150)
    factors = (1.2, 0.7, 1.3)
    found = ALL.apply(x, changes(5, corner=(2, 2), factors=factors))
    for image, other in zip(x, found, strict=True):
        assert np.abs(as_pil(image, *factors).astype(int) - other).max() <= 4


def test_factors_are_uniform_around_one():
    given = Augmentation(brightness=0.5, saturation=1.0)
    factors = given.draw(np.random.default_rng(0), (100, 50)).factors
    np.testing.assert_allclose(factors.min((0, 1)), [0.5, 1, 0], atol=1e-3)
    np.testing.assert_allclose(factors.max((0, 1)), [1.5, 1, 2], atol=1e-3)
    np.testing.assert_allclose(factors.mean((0, 1)), 1, atol=0.03)
    assert abs(np.corrcoef(factors[..., 0].ravel(), factors[..., 2].ravel())[0, 1]) < 0.06


@pytest.mark.parametrize("channels", [1, 3])
def test_values_stay_in_the_range(channels):
    bright = np.full((1, 8, 8, channels), 250, np.uint8)
    assert ALL.apply(bright, changes(corner=(2, 2), factors=(1.4, 1, 1))).min() == 255
    dark = bright.copy()
    dark[:, :4] = 3
    found = ALL.apply(dark, changes(corner=(2, 2), factors=(1, 2, 1)))
    assert found[:, :4].max() == 0 and found[:, 4:].min() == 255
    batch = tasks(Augmentation(brightness=1.0, contrast=1.0)).sample(4, seed=0)
    for x in (batch.support_x, batch.query_x):
        assert x.dtype == np.float32 and x.min() == 0 and x.max() == 1


def test_each_image_of_each_task_has_its_own_draw():
    mode = random_mode("a")
    images = np.broadcast_to(mode.images[0], mode.images.shape)
    distribution = tasks(ALL, [mode._replace(images=images)])
    # All images are one, so that they differ by their draws alone.
    batches = [distribution.sample(4, *origin) for origin in ((0, 0), (0, 1), (1, 0))]
    found = [x.reshape(-1, images[0].size) for b in batches for x in (b.support_x, b.query_x)]
    assert len(np.unique(np.concatenate(found), axis=0)) == 3 * 4 * 18


def test_the_images_and_labels_are_those_of_plain_tasks():
    flips = tasks(Augmentation(flip=True))
    plain, found = tasks().sample(4, 5, 6), flips.sample(4, 5, 6)
    for name in ("support_y", "query_y", "mode", "origin"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(found, name))
    for name in ("support_x", "query_x"):
        x, other = getattr(plain, name), getattr(found, name)
        mirrored = np.all(other == x[:, :, :, ::-1], axis=(2, 3, 4))
        assert np.all(mirrored | np.all(other == x, axis=(2, 3, 4)))
        assert mirrored.any() and not mirrored.all()


def test_a_batch_is_a_function_of_seed_and_step():
    first, second = tasks(ALL), tasks(ALL)
    second.sample(2, seed=9)
    for x, y in zip(first.sample(4, 1, 7), second.sample(4, 1, 7), strict=True):
        np.testing.assert_array_equal(x, y)
    others = [first.sample(4, 1, 8), first.sample(4, 2, 7), tasks().sample(4, 1, 7)]
    for other in others:
        assert np.any(other.query_x != first.sample(4, 1, 7).query_x)


def test_a_task_does_not_depend_on_the_size_of_the_batch():
    distribution = tasks(ALL, [random_mode("a")])
    whole, part = distribution.sample(5, 1, 7), distribution.sample(2, 1, 7)
    np.testing.assert_array_equal(whole.support_x[:2], part.support_x)
    np.testing.assert_array_equal(whole.query_x[:2], part.query_x)


@pytest.mark.parametrize("cores", [1, 16])
def test_the_dataset_goes_on_where_it_is_told_to(monkeypatch, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    distribution = tasks(ALL)
    dataset = distribution.dataset(4, seed=1, start=3)
    for step, batch in zip(range(3, 13), dataset, strict=False):
        for x, y in zip(batch, distribution.sample(4, 1, step), strict=True):
            np.testing.assert_array_equal(x, y)


def test_modes_may_differ():
    plain, found = tasks().sample(4, seed=0), tasks({"a": ALL}).sample(4, seed=0)
    of_all = tasks(ALL).sample(4, seed=0)
    a, b = plain.mode == 0, plain.mode == 1
    np.testing.assert_array_equal(found.query_x[b], plain.query_x[b])
    np.testing.assert_array_equal(found.query_x[a], of_all.query_x[a])
    assert np.all(np.any(of_all.query_x != plain.query_x, axis=(2, 3, 4)).mean(axis=1) > 0.5)


def test_grey_images_stay_grey():
    batch = tasks(ALL).sample(4, seed=0)
    grey = batch.query_x[batch.mode == 1]
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    colour = batch.query_x[batch.mode == 0]
    assert np.any(colour[..., 0] != colour[..., 2])


def test_held_out_tasks_are_plain_unless_they_are_asked_for_otherwise():
    def x(held_out):
        return np.concatenate([episodes.query_x for episodes, _ in held_out.batches(2)])

    plain = tasks().held_out(3, seed=7)
    of_augmented = tasks(ALL).held_out(3, seed=7)
    assert of_augmented.digest() == plain.digest()
    np.testing.assert_array_equal(x(of_augmented), x(plain))
    found = tasks(split="test").held_out(3, seed=7, augmentation={"b": Augmentation(flip=True)})
    usual = tasks(split="test").held_out(3, seed=7)
    assert found.digest() != usual.digest()
    np.testing.assert_array_equal(x(found), x(found))
    np.testing.assert_array_equal(x(found)[:3], x(usual)[:3])
    assert np.any(x(found)[3:] != x(usual)[3:])
    np.testing.assert_array_equal(x(found.only(["b"])), x(found)[3:])
    np.testing.assert_array_equal(x(found.only(["a"])), x(found)[:3])


def test_settings_are_part_of_the_digest():
    found = [tasks(), tasks(ALL), tasks({"a": ALL}), tasks(Augmentation(flip=True))]
    assert len({distribution.digest() for distribution in found}) == 4
    assert "augmentation" not in tasks().config()
    assert tasks({"a": Augmentation(padding=np.int64(2))}).config()["augmentation"] == {
        "a": {"flip": False, "padding": 2, "brightness": 0, "contrast": 0, "saturation": 0}
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "changes nothing; give flip=True"),
        ({"flip": "no"}, "flip='no': expected True or False"),
        ({"padding": -1}, "padding=-1: expected a whole number of at least 0"),
        ({"padding": 2.5}, "padding=2.5"),
        ({"brightness": 1.5}, "brightness=1.5: expected a number from 0 to 1"),
        ({"contrast": -0.1}, "contrast=-0.1"),
        ({"saturation": float("nan")}, "saturation=nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)


@pytest.mark.parametrize(
    ("given", "kwargs", "message"),
    [
        ("flip", {}, "augmentation holds 'flip'; expected an Augmentation, or"),
        ({"a": True}, {}, "augmentation holds True"),
        ({"c": ALL}, {}, "names the mode 'c'; the modes are a, b"),
        (Augmentation(padding=8), {}, "padding=8: the images of mode 'a' have 8 by 8 pixels"),
        ({"b": Augmentation(saturation=0.5)}, {}, "saturation=0.5: the images of b are grey"),
        (ALL, {"split": "test"}, "augmentation is for training, and split='test'"),
    ],
)
def test_what_does_not_fit_is_refused(given, kwargs, message):
    with pytest.raises(ValueError, match=message):
        tasks(given, **kwargs)
    if not kwargs:
        with pytest.raises(ValueError, match=message):
            tasks().held_out(2, 0, given)
