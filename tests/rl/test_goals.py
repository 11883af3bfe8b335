import numpy as np
import pytest
import tensorflow as tf

from mmaml_tf.rl.goal_modes import SETTINGS, GoalModes
from mmaml_tf.rl.goals import GoalTasks

# Centres as published, by environment and number of modes, in the order of the mode sets.
R = 0.225
CENTRES = {
    ("point_mass", 1): [(5, 5)],
    ("point_mass", 2): [(-5, -5), (5, 5)],
    ("point_mass", 4): [(5, 5), (-5, 5), (-5, -5), (5, -5)],
    ("point_mass", 6): [
        (5, 0),
        (2.5, 4.330127),
        (-2.5, 4.330127),
        (-5, 0),
        (-2.5, -4.330127),
        (2.5, -4.330127),
    ],
    ("reacher", 1): [(R, R)],
    ("reacher", 2): [(-R, -R), (R, R)],
    ("reacher", 4): [(R, R), (-R, R), (-R, -R), (R, -R)],
    ("reacher", 6): [
        (0.318198, 0),
        (0.159099, 0.275568),
        (-0.159099, 0.275568),
        (-0.318198, 0),
        (-0.159099, -0.275568),
        (0.159099, -0.275568),
    ],
    ("ant", 1): [(-4, 0)],
    ("ant", 2): [(-4, 0), (4, 0)],
    ("ant", 4): [(-4, 0), (-2, 3.464102), (2, 3.464102), (4, 0)],
}
CYCLIC = {("point_mass", 6), ("ant", 4)}


@pytest.mark.parametrize("case", CENTRES, ids=str)
def test_centres_are_the_published_ones(case):
    np.testing.assert_allclose(GoalModes(*case).centres, CENTRES[case], atol=1e-6)


def test_every_published_mode_set_is_covered_here():
    assert set(CENTRES) == {(name, n) for name, s in SETTINGS.items() for n in s.mode_sets}


@pytest.mark.parametrize(("environment", "noise"), [("point_mass", 1.0), ("ant", 0.8)])
def test_goals_are_normal_around_their_centre(environment, noise):
    held_out = GoalTasks(environment, 4).held_out(20_000, seed=3)
    centres = np.array(CENTRES[environment, 4])[held_out.mode]
    deviation = (held_out.goals.goal[:, :2] - centres) / noise
    for index in range(4):
        values = deviation[held_out.mode == index]
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=4 / np.sqrt(20_000))
        np.testing.assert_allclose(np.cov(values.T), np.eye(2), atol=6 / np.sqrt(20_000))


def test_ant_goals_lie_near_the_ground():
    goals = GoalTasks("ant", 2).held_out(100, seed=0).goals.goal
    np.testing.assert_array_equal(goals[:, 2], np.float32(0.03))


def test_reacher_goals_are_pulled_within_reach():
    goals = GoalTasks("reacher", 4).held_out(10_000, seed=1).goals.goal
    norm = np.linalg.norm(goals, axis=1)
    clipped = norm > 0.3 - 1e-6
    assert norm.max() < 0.3 + 1e-6
    assert clipped.mean() == pytest.approx(0.64, abs=0.015)
    np.testing.assert_allclose(goals[~clipped, 2], 0.03)
    # A pulled-back goal keeps its direction: its height shrinks with the rest.
    assert goals[clipped, 2].max() < 0.03


def test_rescaling_keeps_the_direction():
    goal = GoalModes("reacher", 1).place(np.array([[0.3, 0.4]]), np.zeros((1, 2)), np)[0]
    np.testing.assert_allclose(goal, 0.3 * np.array([0.3, 0.4, 0.03]) / np.sqrt(0.2509))


@pytest.mark.parametrize("case", CENTRES, ids=str)
def test_modes_are_in_turn_or_uniform_as_published(case):
    tasks = GoalTasks(*case)
    count = len(tasks.modes)
    mode = tasks.sample(6000, seed=0).mode.numpy()
    shares = np.bincount(mode, minlength=count) / 6000
    np.testing.assert_allclose(shares, 1 / count, atol=4 * 0.5 / np.sqrt(6000))
    in_turn = np.array_equal(mode, np.arange(6000) % count)
    assert in_turn == (case in CYCLIC or count == 1)


def test_batches_are_functions_of_seed_and_step():
    tasks = GoalTasks("point_mass", 4)
    first = tasks.sample(40, seed=5, step=3)
    np.testing.assert_array_equal(first.goal, tasks.sample(40, seed=5, step=3).goal)
    np.testing.assert_array_equal(first.origin, [5, 3])
    for seed, step in ((5, 4), (6, 3)):
        assert not np.any(first.goal == tasks.sample(40, seed=seed, step=step).goal)


def test_dataset_resumes_at_any_step():
    tasks = GoalTasks("ant", 2)
    for step, batch in zip((7, 8), tasks.dataset(10, seed=1, start=7), strict=False):
        expected = tasks.sample(10, seed=1, step=step)
        assert batch.goal.shape == (10, 3)
        for a, b in zip(batch, expected, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_held_out_goals_are_balanced_and_belong_to_their_mode():
    tasks = GoalTasks("reacher", 4)
    held_out = tasks.held_out(25, seed=7)
    np.testing.assert_array_equal(held_out.mode, np.repeat(np.arange(4), 25))
    assert len(held_out.mode) == 100 and held_out.modes == tasks.modes
    alone = GoalTasks("reacher", "deg225").held_out(25, seed=7)
    np.testing.assert_array_equal(alone.goals.goal, held_out.goals.goal[50:75])


def test_held_out_batches_are_the_goals_in_order():
    held_out = GoalTasks("point_mass", 2).held_out(5, seed=0)
    batches = list(held_out.batches(4))
    assert [len(batch.mode) for batch in batches] == [4, 4, 2]
    for name in ("goal", "mode"):
        joined = np.concatenate([getattr(batch, name) for batch in batches])
        np.testing.assert_array_equal(joined, getattr(held_out.goals, name))


def test_digests_name_what_was_drawn():
    tasks = GoalTasks("point_mass", 2)
    again = GoalTasks(**tasks.config())
    assert again.digest() == tasks.digest()
    assert again.held_out(5, seed=0).digest() == tasks.held_out(5, seed=0).digest()
    digests = [GoalTasks("point_mass", n).digest() for n in (1, 2, 4, 6)]
    digests += [GoalTasks("reacher", n).digest() for n in (1, 2, 4, 6)]
    digests += [tasks.held_out(5, seed=seed).digest() for seed in (0, 1)]
    assert len(set(digests)) == len(digests)


def test_numpy_and_tensorflow_place_goals_alike():
    modes = GoalModes("reacher", 4)
    normal = np.random.default_rng(0).standard_normal((4, 2))
    tensors = tf.constant(modes.centres, tf.float32), tf.constant(normal, tf.float32)
    with_tensors = modes.place(*tensors, tf.experimental.numpy)
    np.testing.assert_allclose(with_tensors, modes.place(modes.centres, normal, np), rtol=1e-5)


def test_drawing_with_a_generator_takes_all_modes():
    goals = GoalModes("point_mass", 6).draw(np.random.default_rng(0), 12_000)
    nearest = np.linalg.norm(goals[:, None] - CENTRES["point_mass", 6], axis=2).argmin(axis=1)
    np.testing.assert_allclose(np.bincount(nearest) / 12_000, 1 / 6, atol=0.015)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("walker", 2), "'walker' is unknown.*point_mass"),
        (("ant", 6), r"modes=6 of 'ant'.*\(1, 2, 4\)"),
        (("point_mass", 3), "modes=3 of 'point_mass'"),
        (("point_mass", None), "modes=None of 'point_mass'"),
        (("point_mass", "deg10"), "deg10.*deg45"),
        (("ant", ("deg0", "deg45")), "deg45.*deg180"),
        (("reacher", ("deg45", "deg45")), "different names"),
        (("reacher", ()), "different names"),
        (("reacher", [["deg45"]]), "different names"),
        (("reacher", True), "modes=True of 'reacher'"),
    ],
)
def test_unknown_environments_and_modes(arguments, message):
    with pytest.raises(ValueError, match=message):
        GoalTasks(*arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.sample(0, seed=0), "tasks=0"),
        (lambda t: t.sample(True, seed=0), "tasks=True"),
        (lambda t: t.sample(2, seed=0.5), "seed=0.5"),
        (lambda t: t.sample(2, seed=0, step=-1), "step=-1"),
        (lambda t: t.dataset(-1, seed=0), "tasks=-1"),
        (lambda t: t.dataset(1, seed=0, start=-1), "start=-1"),
        (lambda t: t.held_out(0, seed=0), "tasks_per_mode=0"),
        (lambda t: t.held_out(2.5, seed=0), "tasks_per_mode=2.5"),
        (lambda t: next(t.held_out(1, seed=0).batches(0)), "batch_size=0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(GoalTasks("ant", 2))


def test_integers_of_numpy_are_numbers():
    tasks = GoalTasks("ant", np.int64(2))
    goals = tasks.sample(np.int64(3), np.int32(1), np.uint8(2)).goal
    np.testing.assert_array_equal(goals, tasks.sample(3, 1, 2).goal)
    assert tasks.held_out(np.int64(2), np.int64(7)).digest() == tasks.held_out(2, 7).digest()
    named = GoalTasks("ant", np.array(["deg180", "deg0"]))
    assert named.modes == tasks.modes
