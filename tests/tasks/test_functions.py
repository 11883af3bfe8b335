import functools

import numpy as np
import pytest
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.tasks.families import FAMILIES, MODE_SETS, register_family

FIVE = MODE_SETS[5]


class Fixed:
    """Stands in for the random draws, and checks that each range is the published one."""

    def __init__(self, expected):
        self.expected = iter(expected)

    def __call__(self, low, high):
        bounds, value = next(self.expected)
        assert (low, high) == pytest.approx(bounds)
        return tf.constant(value, tf.float64)


THREE = (-3.0, 3.0)
ORACLES = {
    "sinusoid": (
        [((0.1, 5.0), 2.0), ((0.0, np.pi), 0.7)],
        lambda x: 2.0 * np.sin(x - 0.7),
    ),
    "linear": ([(THREE, -1.5), (THREE, 0.5)], lambda x: -1.5 * x + 0.5),
    "quadratic": (
        [((0.02, 0.15), 0.1), ((-1.0, 1.0), -0.3), (THREE, 1.0), (THREE, 2.0)],
        lambda x: -0.1 * (x - 1.0) ** 2 + 2.0,
    ),
    "tanh": (
        [(THREE, 2.0), (THREE, -1.0), (THREE, 0.5)],
        lambda x: 2.0 * np.tanh(x + 1.0) + 0.5,
    ),
    "absolute": (
        [(THREE, -2.0), (THREE, 1.0), (THREE, 0.5)],
        lambda x: -2.0 * np.abs(x - 1.0) + 0.5,
    ),
}


@pytest.mark.parametrize("name", FIVE)
def test_family_equals_its_formula(name):
    draws, oracle = ORACLES[name]
    x = np.linspace(-5, 5, 11)
    np.testing.assert_allclose(FAMILIES[name](Fixed(draws))(tf.constant(x)), oracle(x), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "second_moment"),
    list(zip(FIVE, (4.26, 28.0, 5.49, 5.39, 36.9), strict=True)),
)
def test_scale_of_each_family(name, second_moment):
    held_out = mm.tasks.FunctionTasks((name,), support=1, queries=20).held_out(20_000, seed=1)
    squares = np.mean(held_out.targets["noise_free"] ** 2, axis=(1, 2))
    error = 4 * squares.std() / np.sqrt(len(squares))
    assert abs(squares.mean() - second_moment) < error + 0.005 * second_moment


def test_x_is_uniform_and_the_noise_normal():
    held_out = mm.tasks.FunctionTasks(noise=0.3).held_out(5000, seed=1)
    x = held_out.episodes.query_x.ravel()
    assert x.min() >= -5 and x.max() < 5
    quantiles = np.quantile(x, [0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(quantiles, [-4, -2.5, 0, 2.5, 4], atol=0.1)
    noise = (held_out.targets["noisy"] - held_out.targets["noise_free"]).ravel()
    assert abs(noise.mean()) < 0.006
    assert abs(noise.std() - 0.3) < 0.005
    assert abs(np.mean(noise**4) / 0.3**4 - 3) < 0.2
    correlation = np.corrcoef(noise[:-1], noise[1:])[0, 1]
    assert abs(correlation) < 0.02


def test_support_is_noisy_too_and_independent_of_the_query():
    tasks = mm.tasks.FunctionTasks(("linear",), support=5, queries=5, noise=0.3)
    episodes = tasks.sample(3000, seed=4)
    x, y = (np.asarray(a)[..., 0] for a in (episodes.support_x, episodes.support_y))
    design = np.stack([x, np.ones_like(x)], axis=-1)
    fitted = np.linalg.pinv(design) @ y[..., None]
    residuals = y - (design @ fitted)[..., 0]
    # Five points less two parameters leave three degrees of freedom.
    assert abs(np.sum(residuals**2) / (3000 * 3) - 0.09) < 0.005
    assert abs(np.corrcoef(x.ravel(), np.asarray(episodes.query_x).ravel())[0, 1]) < 0.03


def test_batches_are_exactly_balanced():
    tasks = mm.tasks.FunctionTasks(FIVE)
    for step in range(3):
        mode = tasks.sample(125, seed=0, step=step).mode
        np.testing.assert_array_equal(np.bincount(mode), [25] * 5)


def test_a_batch_is_a_function_of_seed_and_step():
    tasks = mm.tasks.FunctionTasks()
    batch = tasks.sample(4, seed=3, step=5)
    resumed = next(iter(tasks.dataset(4, seed=3, start=5)))
    for a, b in zip(resumed, list(tasks.dataset(4, seed=3).take(6))[5], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(batch, tasks.sample(4, seed=3, step=5), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(batch, resumed, strict=True):  # eager and graph round differently
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for seed, step in ((3, 6), (4, 5), (5, 3)):
        other = tasks.sample(4, seed, step)
        assert not np.intersect1d(batch.support_x, other.support_x).size
    np.testing.assert_array_equal(batch.origin, [3, 5])


def test_datasets_of_one_distribution_have_their_own_seeds_and_sizes():
    tasks = mm.tasks.FunctionTasks()
    for count, seed, start in ((4, 3, 5), (4, 9, 0), (6, 3, 5), (4, 3, 2)):
        batch = next(iter(tasks.dataset(count, seed, start)))
        for a, b in zip(batch, tasks.sample(count, seed, start), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_tasks_of_a_mode_do_not_depend_on_the_other_modes():
    both = mm.tasks.FunctionTasks(("sinusoid", "linear")).sample(6, seed=1)
    alone = mm.tasks.FunctionTasks(("linear",)).sample(3, seed=1)
    np.testing.assert_array_equal(np.asarray(both.support_y)[3:], alone.support_y)


def test_held_out_tasks_are_fixed_and_apart_from_training():
    tasks = mm.tasks.FunctionTasks()
    a, b, c = (tasks.held_out(10, seed) for seed in (7, 7, 8))
    assert a.digest() == b.digest() != c.digest()
    assert not np.intersect1d(a.episodes.support_x, tasks.sample(20, seed=7).support_x).size


def test_held_out_round_trip_and_selection(tmp_path):
    held_out = mm.tasks.FunctionTasks(FIVE).held_out(4, seed=7)
    held_out.save(tmp_path / "held_out.npz")
    loaded = type(held_out).load(tmp_path / "held_out.npz")
    assert loaded.digest() == held_out.digest()
    chosen = held_out.only(("tanh", "sinusoid"))
    np.testing.assert_array_equal(chosen.episodes.mode, [0] * 4 + [1] * 4)
    np.testing.assert_array_equal(chosen.episodes.support_x[:4], held_out.episodes.support_x[12:16])
    with pytest.raises(ValueError, match="cosine"):
        held_out.only(("cosine",))


def test_a_user_adds_a_family_with_one_function():
    @register_family("test_constant")
    def constant(draw):
        value = draw(1.0, 2.0)
        return lambda x: value + 0.0 * x

    try:
        held_out = mm.tasks.FunctionTasks(("test_constant",), noise=0.0).held_out(50, seed=0)
        y = held_out.episodes.query_y
        assert (y >= 1).all() and (y < 2).all()
        np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
    finally:
        del FAMILIES["test_constant"]


def test_the_digest_tells_distributions_apart():
    digests = {
        mm.tasks.FunctionTasks(*arguments).digest()
        for arguments in ((FIVE,), (FIVE[:2],), (FIVE, 6), (FIVE, 5, 6), (FIVE, 5, 5, 0.1))
    }
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modes": ("sinusoid", "cosine")}, "cosine"),
        ({"modes": ()}, "modes="),
        ({"modes": ("linear", "linear")}, "different families"),
        ({"support": 0}, "support=0: expected a whole number of at least 1"),
        ({"queries": -1}, "queries=-1: expected a whole number of at least 1"),
        ({"queries": True}, "queries=True: expected a whole number"),
        ({"noise": -0.1}, "not negative"),
        ({"noise": np.nan}, "noise=.*finite"),
        ({"noise": "much"}, "noise=.*finite"),
        ({"x_range": (1.0, 1.0)}, "lower bound"),
        ({"x_range": (0.0, np.inf)}, "x_range=.*finite"),
        ({"x_range": (0.0, 1.0, 2.0)}, "lower bound"),
        ({"x_range": 3.0}, "x_range=.*two finite bounds"),
    ],
)
def test_bad_distributions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mm.tasks.FunctionTasks(**arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.sample(3, seed=0), "tasks=3: .* multiple of 2"),
        (lambda t: t.sample(0, seed=0), "tasks=0"),
        (lambda t: t.sample(True, seed=0), "tasks=True"),
        (lambda t: t.sample(2, seed=0.5), "seed=0.5"),
        (lambda t: t.sample(2, seed=0, step=-1), "step=-1"),
        (lambda t: t.dataset(2, seed=0, start=-1), "start=-1"),
        (lambda t: t.dataset(2, seed=None), "seed=None"),
        (lambda t: t.held_out(0, seed=0), "tasks_per_mode=0"),
        (lambda t: t.held_out(2.5, seed=0), "tasks_per_mode=2.5"),
        (lambda t: t.examples(0, 0, [0.0]), "tasks_per_mode=0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(mm.tasks.FunctionTasks())


def test_integers_of_numpy_are_numbers():
    tasks = mm.tasks.FunctionTasks(support=np.int64(3), queries=np.int32(4))
    assert tasks.digest() == mm.tasks.FunctionTasks(support=3, queries=4).digest()
    found, expected = tasks.sample(np.int64(2), np.uint8(1), np.int16(5)), tasks.sample(2, 1, 5)
    np.testing.assert_array_equal(found.support_x, expected.support_x)
    a, b = tasks.held_out(np.int64(2), np.int64(7)), tasks.held_out(2, 7)
    assert a.digest() == b.digest()


SLOPE = 1.0


def line(draw, slope=1.0):
    value = draw(0.0, 1.0)
    return lambda x: value * x * slope


def curve(draw):
    return line(draw, SLOPE)


def typed(source):
    """A function as at a prompt, without source that can be read."""
    names = {"line": line}
    exec(compile(source, "<stdin>", "exec"), names)
    return names["family"]


class Line:
    def __init__(self, slope):
        self.slope = slope

    def __call__(self, draw):
        return line(draw, self.slope)

    def method(self, draw):
        return line(draw, self.slope)


@pytest.mark.parametrize(
    "make",
    [
        lambda k: functools.partial(line, slope=k),
        lambda k: functools.partial(functools.partial(line), slope=np.float32(k)),
        lambda k: lambda draw: line(draw, k),
        lambda k: lambda draw, k=k: line(draw, k),
        lambda k: typed(f"def family(draw):\n    return line(draw, {k})"),
        lambda k: Line(k),
        lambda k: Line(np.array([k])),
        lambda k: Line(k).method,
    ],
)
def test_the_digest_follows_what_a_family_does(make, family):
    digests = []
    for slope in (1.0, 2.0, 2.0):
        family(make(slope))
        digests.append(mm.tasks.FunctionTasks("mine").digest())
    assert digests[0] != digests[1] == digests[2]


def test_the_digest_follows_lambdas_of_one_line_and_globals(family, monkeypatch):
    one, other = lambda draw: line(draw, 1.0), lambda draw: line(draw, 2.0)
    digests = set()
    for made in (one, other, curve):
        family(made)
        digests.add(mm.tasks.FunctionTasks("mine").digest())
    monkeypatch.setitem(globals(), "SLOPE", 3.0)
    digests.add(mm.tasks.FunctionTasks("mine").digest())
    assert len(digests) == 4


def test_a_family_that_calls_itself_has_a_digest(family):
    def around(draw, again=True):
        return around(draw, False) if again else line(draw)

    family(around)
    assert mm.tasks.FunctionTasks("mine").digest() == mm.tasks.FunctionTasks("mine").digest()


def test_a_family_that_cannot_be_told_from_others_is_refused(family):
    rng = np.random.default_rng(0)
    family(lambda draw: line(draw, rng.normal()))
    with pytest.raises(ValueError, match="the family 'mine' has no digest: it uses a Gener"):
        mm.tasks.FunctionTasks("mine").digest()


@pytest.fixture
def family():
    """Registers a family as "mine", for as long as a test runs."""
    yield register_family("mine", overwrite=True)
    FAMILIES.pop("mine", None)


def test_families_are_not_replaced_by_accident(family):
    with pytest.raises(ValueError, match="another family 'linear' already"):
        register_family("linear")(line)
    assert FAMILIES["linear"] is not line
    family(line)
    register_family("mine")(line)  # the same again
    with pytest.raises(ValueError, match="overwrite=True"):
        register_family("mine")(curve)
    register_family("mine", overwrite=True)(curve)
    assert FAMILIES["mine"] is curve


def test_what_is_no_family_is_refused():
    with pytest.raises(ValueError, match=r"write @register_family\('name'\)"):
        register_family(line)
    with pytest.raises(ValueError, match="'mine' is a float; expected a function of draw"):
        register_family("mine")(3.0)
