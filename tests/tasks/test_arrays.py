"""Tasks from arrays and frames: no leakage, balance, determinism, and what is refused."""

import doctest
import functools

import factory
import numpy as np
import pandas as pd
import pytest

import mmaml_tf as mm
from mmaml_tf.tasks import ArrayTasks, arrays
from mmaml_tf.training import train

SIZES = [9, 12, 10, 9, 15, 11, 9, 9, 10, 13, 9, 9, 14, 9, 10, 9]
USERS = [f"u{i}" for i in range(len(SIZES))]
TASK = np.repeat(USERS, SIZES)
N = len(TASK)
#: x tells the number of the point, and y that of the task
X = np.arange(N, dtype=np.float64)
Y = np.repeat(np.arange(len(SIZES)), SIZES).astype(np.float64)
MODE = {user: "even" if i % 2 == 0 else "odd" for i, user in enumerate(USERS)}
HALVES = (0.5, 0.25, 0.25)


def made(x=X, y=Y, task=TASK, mode=MODE, **settings):
    defaults = {"support": 3, "queries": 4, "parts": HALVES}
    return ArrayTasks(x, y, task, mode, **defaults | settings)


def points(batch):
    """The numbers of the points of each task, support and query, `[T, K + Q]`."""
    return np.concatenate([batch.support_x, batch.query_x], axis=1)[..., 0].astype(int)


def test_the_examples_run():
    found = doctest.testmod(arrays)
    assert found.attempted and not found.failed


def test_points_are_of_one_task_each_and_drawn_once():
    tasks = made()
    seen = set()
    for step in range(60):
        batch = tasks.sample(4, seed=0, step=step)
        assert batch.support_x.shape == (4, 3, 1) and batch.query_y.shape == (4, 4, 1)
        assert batch.support_x.dtype == batch.query_y.dtype == np.float32
        assert batch.mode.tolist() == [0, 0, 1, 1] and batch.origin.tolist() == [0, step]
        for task, mode in zip(range(4), ("even", "even", "odd", "odd"), strict=True):
            numbers = points(batch)[task]
            assert len(set(numbers)) == 7, "no point twice"
            (user,) = set(TASK[numbers])
            assert user in tasks.tasks[mode] and MODE[user] == mode
            assert set(batch.query_y[task].ravel()) == {USERS.index(user)}
            seen |= set(numbers)
        assert len(set(TASK[points(batch)[:, 0]])) == 4, "no task twice"
    train_users = [user for users in tasks.tasks.values() for user in users]
    assert seen == set(np.flatnonzero(np.isin(TASK, train_users))), "all points in time"


@pytest.mark.parametrize("count", [1, 3, 4])
def test_modes_are_balanced(count):
    tasks = made()
    modes = np.concatenate([tasks.sample(count, seed=0, step=step).mode for step in range(6)])
    assert np.bincount(modes).tolist() == [3 * count] * 2


def test_the_split_divides_the_tasks_of_each_mode():
    parts = [made().part(split).tasks for split in ("train", "validation", "test")]
    for mode in ("even", "odd"):
        labels = [label for part in parts for label in part[mode]]
        assert [len(part[mode]) for part in parts] == [4, 2, 2]
        assert sorted(labels) == sorted(user for user in USERS if MODE[user] == mode)
    order = np.random.default_rng(0).permutation(N)
    assert made(X[order], Y[order], TASK[order]).tasks == made().tasks
    assert len({str(made(seed=seed).tasks) for seed in range(4)}) == 4


def test_the_split_may_be_listed():
    lists = {"train": USERS[:10], "validation": USERS[10:12], "test": np.array(USERS[12:])}
    tasks = made(parts=lists, split="test")
    assert tasks.tasks == {"even": ("u12", "u14"), "odd": ("u13", "u15")}
    assert tasks.part("train").digest() == made(parts=lists | {"train": set(USERS[:10])}).digest()


def test_batches_are_functions_of_seed_and_step():
    tasks = made(support=(2, 4), queries=None)
    dataset = tasks.dataset(4, seed=np.int64(1), start=np.int32(3))
    assert dataset.element_spec.support_x.shape.as_list() == [4, None, 1]
    sizes = set()
    for step, batch in zip(range(3, 20), dataset, strict=False):
        for a, b in zip(batch, made(support=(2, 4), queries=None).sample(4, 1, step), strict=True):
            np.testing.assert_array_equal(a, b)
        support, query = batch.support_x.shape[1], batch.query_x.shape[1]
        assert support + query == 9, "what the smallest task has"
        sizes.add(support)
    assert sizes == {2, 3, 4}
    a, *others = (points(tasks.sample(4, *at)).tolist() for at in ((1, 3), (1, 4), (2, 3)))
    assert a not in others


def test_held_out_tasks_have_all_that_is_left():
    tasks = made(queries=None, split="test")
    held_out = tasks.held_out()
    found = {}
    for batch, targets in held_out.batches():
        np.testing.assert_array_equal(targets["loss"], batch.query_y)
        for task, numbers in enumerate(points(batch)):
            assert len(set(numbers)) == len(numbers)
            (user,) = set(TASK[numbers])
            found[user] = (len(numbers), int(batch.mode[task]))
    users = [user for users in tasks.tasks.values() for user in users]
    expected = {u: (SIZES[USERS.index(u)], tasks.modes.index(MODE[u])) for u in users}
    assert found == expected and list(found) == held_out.tasks
    assert [found[user][1] for user in held_out.tasks] == held_out.mode.tolist()
    assert held_out.digest() == tasks.held_out().digest() != tasks.held_out(seed=8).digest()
    odd = held_out.only(["odd"])
    assert odd.modes == ("odd",) and set(odd.tasks) == set(tasks.tasks["odd"])
    assert odd.mode.tolist() == [0, 0]


def test_held_out_tasks_of_a_mode_may_be_some():
    held_out = made(split="train").held_out(np.int64(2), seed=0)
    assert held_out.mode.tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="tasks_per_mode=5: mode 'even' has 4 tasks in its train"):
        made().held_out(5)


def test_a_held_out_task_does_not_depend_on_the_others():
    lists = {"train": USERS[:8], "test": USERS[8:]}
    all_of_them = made(parts=lists, split="test").held_out()
    fewer = made(parts={"train": USERS[:10], "test": USERS[10:]}, split="test").held_out()
    by_user = [
        {TASK[row[0]]: row.tolist() for batch, _ in held_out.batches() for row in points(batch)}
        for held_out in (all_of_them, fewer)
    ]
    assert len(by_user[1]) == 6
    assert all(by_user[0][user] == row for user, row in by_user[1].items())


def test_the_digest_follows_settings_and_values():
    digests = {
        made(**change).digest()
        for change in (
            {},
            {"support": 2},
            {"queries": None},
            {"split": "test"},
            {"seed": 1},
            {"mode": None},
            {"y": Y + 1},
            {"x": X + 0.5},
        )
    }
    assert len(digests) == 8
    assert made().digest() == made().digest()


def test_class_labels_stay_whole_numbers():
    labels = (np.arange(N) % 3).astype(np.int64)
    batch = made(y=labels).sample(2, seed=0)
    assert batch.query_y.shape == (2, 4) and batch.query_y.dtype == np.int32
    np.testing.assert_array_equal(batch.query_y, batch.query_x[..., 0] % 3)
    column = made(y=(labels == 2)[:, None]).sample(2, seed=0)
    assert column.query_y.shape == (2, 4, 1) and column.query_y.dtype == np.int32
    assert made(y=labels, classes=5).digest() == made(y=labels).digest()
    one_hot = made(y=np.eye(3, dtype=int)[labels]).sample(2, seed=0)
    assert one_hot.query_y.shape == (2, 4, 3) and one_hot.query_y.dtype == np.float32


def frame(**columns):
    mode = [MODE[user] for user in TASK]
    return pd.DataFrame({"user": TASK, "a": X, "b": X**0.5, "y": Y, "mode": mode} | columns)


def test_a_frame_gives_what_its_columns_give():
    settings = {"support": 3, "queries": 4, "parts": HALVES}
    from_frame = functools.partial(ArrayTasks.from_frame, **settings)
    found = from_frame(frame(), "user", ["a", "b"], "y", "mode")
    assert found.digest() == made(np.stack([X, X**0.5], 1)).digest()
    labels = frame(y=np.arange(N) % 3)
    assert from_frame(labels, "user", "a", "y", MODE).digest() == made(y=np.arange(N) % 3).digest()
    both = from_frame(labels, "user", "a", ["y", "b"]).sample(1, seed=0)
    assert both.query_y.shape == (1, 4, 2)


@pytest.mark.parametrize("kind", [dict, list])
def test_pairs_give_what_their_arrays_give(kind):
    pairs = [(X[user == TASK], Y[user == TASK]) for user in USERS]
    settings = {"support": 3, "queries": 4, "parts": HALVES}
    if kind is dict:
        found = ArrayTasks.from_tasks(dict(zip(USERS, pairs, strict=True)), MODE, **settings)
        assert found.digest() == made().digest()
    else:
        numbers = np.repeat(np.arange(16), SIZES)
        modes = [MODE[user] for user in USERS]
        found = ArrayTasks.from_tasks(pairs, modes, **settings)
        assert found.digest() == made(task=numbers, mode=dict(enumerate(modes))).digest()


def test_labels_are_any_hashable_ones():
    for make in (int, float, lambda i: (i, str(i)), lambda i: pd.Timestamp(2020, 1, 1 + i)):
        task = [make(i) for i in np.repeat(np.arange(16), SIZES)]
        assert sum(map(len, made(task=task, mode=None, parts=(1, 0, 0)).tasks.values())) == 16
    mixed = [1] * 20 + ["1"] * 20
    tasks = ArrayTasks(X[:40], Y[:40], mixed, support=3, parts=(1, 0, 0))
    assert set(tasks.tasks["tasks"]) == {1, "1"}


def without(array, row, value):
    array = np.array(array)
    array[row] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": without(X, 20, np.nan)}, "x of row 20, task 'u1', is nan; expected finite"),
        ({"y": without(Y, 0, np.inf)}, "y of row 0, task 'u0', is inf"),
        ({"x": without(X, 5, 1e300)}, "x of row 5, task 'u0', is inf"),
        ({"x": X[:-1]}, f"x has {N - 1} points and task {N}"),
        ({"y": Y[:-1]}, f"y has {N - 1} points and task {N}"),
        ({"x": TASK}, "x has shape .* type <U3; expected numbers"),
        ({"x": [[1], [2, 3]]}, "x has shape"),
        ({"x": np.zeros((N, 0))}, "x has shape"),
        ({"y": 3.0}, r"y has shape \(\)"),
        ({"task": "user"}, "task='user': expected one label for each point"),
        ({"task": set(TASK)}, "expected one label for each point"),
        ({"task": [None, *TASK[1:]]}, "task of row 0 is None; fill it in"),
        ({"task": np.where(X == 7, np.nan, 1.0)}, "task of row 7 is nan"),
        ({"task": [[user] for user in TASK]}, "task of row 0 is .* which is not hashable"),
        ({"task": [object()] * N, "mode": None}, "not told from others"),
        ({"mode": MODE | {"u99": "odd"}}, "mode names task 'u99', which has no data"),
        ({"mode": {"u0": "even"}}, "mode names no mode of task 'u1'"),
        ({"mode": ["even"] * 3 + ["odd"] * (N - 3)}, "task 'u0' has the modes 'even' and 'odd'"),
        ({"mode": ["even"]}, f"mode has 1 values for {N} points"),
        ({"support": 0}, "support=0"),
        ({"support": (3, 2)}, "the least is larger"),
        ({"support": (1, 2, 3)}, "the least and the most"),
        ({"support": True}, "support=True"),
        ({"queries": 0}, "queries=0"),
        ({"queries": 7}, "has 9 points; support=3 and queries=7 need 10 of each task, and"),
        ({"support": (3, 9), "queries": None}, "need 10 of each task"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"split": "val"}, "split='val': expected one of"),
        ({"parts": (1, 1, 1)}, "three shares"),
        ({"parts": {"train": USERS, "test": ["u3"]}}, "task 'u3' is listed under train and under"),
        ({"parts": {"train": USERS[1:]}}, "the split misses task 'u0'"),
        ({"parts": {"train": [*USERS, "u99"]}}, "the split lists task 'u99'"),
        ({"parts": (1, 0, 0), "split": "test"}, "mode 'even' has 8 tasks, and none is in the test"),
        ({"y": 1 + np.arange(N) % 3}, "y holds whole numbers from 1 to 3, .* number the N classes"),
        ({"y": np.arange(N) % 3 - 1}, "whole numbers from -1 to 1"),
        ({"y": 2 * (np.arange(N) % 3)}, "from 0 to 4, .*give classes=N"),
        ({"y": np.zeros(N, int)}, "from 0 to 0"),
        ({"y": np.arange(N) % 3, "classes": 2}, "from 0 to 2"),
        ({"y": np.arange(N) % 3, "classes": 3.0}, "classes=3.0"),
        ({"classes": 3}, "classes=3 is for class labels"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        made(**change)


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({}, ("user", ["a", "z"], "y"), "there is no column 'z'"),
        ({}, ("who", "a", "y"), "there is no column 'who'"),
        ({}, ("user", "a", "y", "kind"), "there is no column 'kind'"),
        ({}, ("user", [], "y"), "inputs=.*at least one column"),
        ({}, ("user", "a", ["y", "a"]), "column 'a' is given twice"),
        ({}, ("user", "a", "user"), "targets cannot be that of tasks"),
        (
            {"a": without(X, 3, np.nan)},
            ("user", "a", "y"),
            "column 'a' of row 3, task 'u0', is nan",
        ),
        ({"a": TASK}, ("user", "a", "y"), "column 'a' has type .*; expected numbers"),
        ({"user": [None, *TASK[1:]]}, ("user", "a", "y"), "column 'user' of row 0"),
    ],
)
def test_frames_that_do_not_fit_are_refused(columns, arguments, message):
    with pytest.raises(ValueError, match=message):
        ArrayTasks.from_frame(frame(**columns), *arguments)
    with pytest.raises(ValueError, match="frame is a dict; expected a pandas"):
        ArrayTasks.from_frame({"user": TASK, "a": X, "y": Y}, "user", "a", "y")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "there are no tasks"),
        ([(X, Y[:-1])], r"task 0 has x of shape .* as many points in both"),
        ({"a": (X, Y), "b": (X[:, None], Y)}, "points of task 'b' have the shapes"),
        ([X], "task 0 is a ndarray; expected a pair"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        ArrayTasks.from_tasks(pairs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.sample(0, seed=0), "tasks=0"),
        (lambda t: t.sample(2, seed=0, step=-1), "step=-1"),
        (lambda t: t.dataset(2, seed=None), "seed=None"),
        (lambda t: t.dataset(2, seed=0, start=1.0), "start=1.0"),
        (lambda t: t.held_out(0), "tasks_per_mode=0"),
        (lambda t: t.held_out().only(["none"]), "are not among"),
        (lambda t: next(t.held_out().batches(0)), "batch_size=0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(made())


def test_a_learner_trains_and_is_evaluated_on_them():
    rng = np.random.default_rng(0)
    slope = np.repeat(rng.normal(size=16), SIZES)
    x = rng.normal(size=N)
    mode = {user: factory.MODES[i % 2] for i, user in enumerate(USERS)}
    tasks = ArrayTasks(x, slope * x, TASK, mode, support=(2, 4), parts=HALVES)
    learner = factory.learner("MAML", loop=factory.inner_loop(1))
    learner.modes = tasks.modes
    history = train(learner, tasks, iterations=20, batch_size=4, seed=0, log_every=10)
    assert history[-1]["loss"] < history[0]["loss"]
    held_out = tasks.part("test").held_out()
    report = mm.evaluate(learner, held_out)
    assert report.mode.tolist() == held_out.mode.tolist() and report.modes == tasks.modes
    expected = {}
    for batch, _ in held_out.batches():
        found = learner.adapt(batch.support_x, batch.support_y)(batch.query_x)
        errors = np.mean((found - batch.query_y) ** 2, (1, 2))
        expected |= zip(points_of(batch, x), errors, strict=True)
    np.testing.assert_allclose(report.values(), [expected[u] for u in held_out.tasks], rtol=1e-4)


def points_of(batch, x):
    """The tasks of a batch, by the first input of each."""
    return [TASK[np.argmin(np.abs(x - first))] for first in batch.support_x[:, 0, 0]]
