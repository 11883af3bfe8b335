import os
import subprocess
import sys

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from rl_environments import SIZES, STATE_SIZES, each, random_actions, single, vector


@each
@pytest.mark.filterwarnings("ignore:.*Box observation space.*infinity")
def test_gymnasium_accepts_the_environment(name):
    check_env(single(name).unwrapped, skip_render_check=True)


@each
def test_spaces_and_horizon(name):
    observations, actions, goal, bound, horizon = SIZES[name]
    envs = vector(name, 3)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    for env in (single(name), envs):
        space = getattr(env, "single_observation_space", env.observation_space)
        assert space.shape == (observations,)
        space = getattr(env, "single_action_space", env.action_space)
        assert space.shape == (actions,)
        np.testing.assert_array_equal(
            (space.low, space.high), [[-bound] * actions, [bound] * actions]
        )
        assert env.spec.max_episode_steps == horizon
    _, infos = envs.reset(seed=0)
    assert infos["task"].shape == (3, goal)


@each
def test_episodes_end_by_truncation_alone(name):
    env, envs = single(name, max_episode_steps=3), vector(name, 2, max_episode_steps=3)
    env.reset(seed=0), envs.reset(seed=0)
    for step in (1, 2, 3):
        _, _, terminated, truncated, _ = env.step(env.action_space.high)
        assert (terminated, truncated) == (False, step == 3)
        _, _, terminated, truncated, _ = envs.step(envs.action_space.high)
        assert not terminated.any()
        np.testing.assert_array_equal(truncated, [step == 3] * 2)
    with pytest.raises(ResetNeeded, match="after 3 steps"):
        envs.step(envs.action_space.high)


@each
def test_batch_equals_single_over_an_episode(name):
    horizon = SIZES[name][-1]
    envs, env = vector(name, 6, modes=2), single(name, modes=2)
    first, infos = envs.reset(seed=4)
    states = envs.unwrapped.states
    actions = random_actions(name, (horizon, 6))
    steps = [envs.step(action) for action in actions]
    for index in (0, 5):
        options = {"task": infos["task"][index], "state": states[index]}
        observation, info = env.reset(options=options)
        np.testing.assert_array_equal(observation, first[index])
        np.testing.assert_array_equal(info["task"], infos["task"][index])
        for action, (observations, rewards, *_) in zip(actions, steps, strict=True):
            observation, reward, *_ = env.step(action[index])
            np.testing.assert_allclose(observation, observations[index], rtol=0, atol=1e-9)
            assert reward == pytest.approx(rewards[index], abs=1e-9)


@pytest.mark.parametrize("name", ["Reacher", "Ant"])
def test_number_of_threads_changes_nothing(name):
    results = []
    for threads in (1, 3):
        envs = vector(name, 10, threads=threads)
        envs.reset(seed=0)
        for action in random_actions(name, (10, 10)):
            observations, *_ = envs.step(action)
        envs.close()
        results.append(observations)
    np.testing.assert_array_equal(*results)


@each
def test_seeds_determine_everything(name):
    def start(seed, **options):
        envs = vector(name, 4, modes=2)
        observations, infos = envs.reset(seed=seed, options=options)
        return observations, infos["task"]

    for a, b in zip(start(3), start(3), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.any(start(3)[1][:, :2] == start(4)[1][:, :2])
    # Start states are the same whether or not a task is given.
    given = start(3, task=np.ones((4, SIZES[name][2])))
    np.testing.assert_array_equal(given[0], start(3)[0])
    env, again = single(name), single(name)
    np.testing.assert_array_equal(env.reset(seed=3)[0], again.reset(seed=3)[0])
    np.testing.assert_array_equal(env.reset()[0], again.reset()[0])


@each
def test_goals_are_drawn_from_the_given_modes(name):
    _, infos = vector(name, 300, modes=2).reset(seed=0)
    left = infos["task"][:, 0] < 0
    assert 0.4 < left.mean() < 0.6


# A velocity that no actuator can cause, and one at which MuJoCo gives up.
@pytest.mark.parametrize("speed", [1e6, 1e12, 1e200])
@each
def test_an_unstable_environment_is_frozen_and_the_others_go_on(name, speed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its warnings
    envs, intact = vector(name, 5), vector(name, 5)
    intact.reset(seed=0)
    states = intact.unwrapped.states
    states[[1, 3], -1] = speed
    first, _ = envs.reset(seed=0, options={"state": states})
    for step, action in enumerate(random_actions(name, (6, 5))):
        if step == 3:  # one more breaks down on the way
            envs.unwrapped._states[4, 0] = np.nan
        observations, rewards, *_, infos = envs.step(action)
        expected, expected_rewards, *_, intact_infos = intact.step(action)
        bad = [1, 3] if step < 3 else [1, 3, 4]
        good = [0, 2, 4] if step < 3 else [0, 2]
        np.testing.assert_array_equal(np.flatnonzero(infos["unstable"]), bad)
        assert not intact_infos["unstable"].any()
        np.testing.assert_array_equal(observations[[1, 3]], first[[1, 3]])
        np.testing.assert_array_equal(rewards[bad], 0)
        np.testing.assert_array_equal(observations[good], expected[good])
        np.testing.assert_array_equal(rewards[good], expected_rewards[good])
    envs.reset(seed=0)
    assert not envs.step(np.zeros_like(action))[-1]["unstable"].any()
    envs.reset(options={"state": np.full_like(states, speed)})
    for _ in range(2):
        *_, infos = envs.step(action)
        assert infos["unstable"].all()


@each
def test_a_single_unstable_environment_is_frozen(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = single(name)
    env.reset(seed=0)
    state = env.unwrapped.state
    state[-1] = 1e12
    first, _ = env.reset(options={"state": state})
    for _ in range(2):
        observation, reward, _, _, info = env.step(env.action_space.high)
        assert info == {"unstable": True} and reward == 0
        np.testing.assert_array_equal(observation, first)


@each
def test_bad_actions(name):
    _, size, _, _, _ = SIZES[name]
    env, envs = single(name, disable_env_checker=True), vector(name, 3)
    env.reset(seed=0), envs.reset(seed=0)
    before = env.unwrapped.state, envs.unwrapped.states
    for bad in (np.zeros(size + 1), np.zeros((1, size)), 0.0):
        with pytest.raises(ValueError, match=rf"expected \({size},\)"):
            env.step(bad)
    for bad in (np.zeros((3, size + 1)), np.zeros((2, size)), np.zeros(size)):
        with pytest.raises(ValueError, match=rf"expected \(3, {size}\)"):
            envs.step(bad)
    for value in (np.nan, np.inf):
        actions = np.zeros((3, size))
        actions[1, 0] = value
        with pytest.raises(ValueError, match=r"1 environments are not finite \(first: \[1\]\)"):
            envs.step(actions)
        with pytest.raises(ValueError, match="not finite"):
            env.step(actions[1])
    # Nothing was stepped.
    np.testing.assert_array_equal(env.unwrapped.state, before[0])
    np.testing.assert_array_equal(envs.unwrapped.states, before[1])


@each
def test_bad_options_of_reset(name):
    goal = SIZES[name][2]
    env, envs = single(name), vector(name, 3)
    with pytest.raises(ValueError, match=rf"'task'.*expected finite values of shape \({goal},\)"):
        env.reset(options={"task": np.zeros(goal + 1)})
    with pytest.raises(ValueError, match=rf"'task'.*shape \(3, {goal}\)"):
        envs.reset(options={"task": np.zeros(goal)})
    with pytest.raises(ValueError, match=rf"'state'.*shape \(3, {STATE_SIZES[name]}\)"):
        envs.reset(options={"state": np.full((3, STATE_SIZES[name]), np.nan)})
    with pytest.raises(ValueError, match=r"options \['goal'\] are unknown"):
        env.reset(options={"goal": np.zeros(goal)})


@each
def test_bad_arguments(name):
    for make in (single, lambda name, **kwargs: vector(name, 2, **kwargs)):
        with pytest.raises(ValueError, match="modes=5"):
            make(name, modes=5)
        with pytest.raises(ValueError, match="'deg11'"):
            make(name, modes=("deg11",))
    with pytest.raises(ValueError, match="num_envs=0"):
        vector(name, 0)
    with pytest.raises(ValueError, match="max_episode_steps=0"):
        vector(name, 2, max_episode_steps=0)
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        vector(name, 2, render_mode="rgb_array")
    if name != "PointMass":
        with pytest.raises(ValueError, match="threads=0"):
            vector(name, 2, threads=0)


@each
def test_nothing_works_before_the_first_reset(name):
    env, envs = single(name, render_mode="rgb_array").unwrapped, vector(name, 2)
    for call in (
        lambda: env.step(env.action_space.high),
        lambda: envs.step(envs.action_space.high),
        env.render,
        lambda: env.task,
        lambda: envs.unwrapped.tasks,
    ):
        with pytest.raises(ResetNeeded, match=r"call reset\(\) first"):
            call()


def test_importing_registers_and_leaves_the_process_alone():
    # What the libraries do when they are imported is theirs, tf_keras among it.
    program = (
        "import os, sys, gymnasium, keras, mujoco, tensorflow, tensorflow_probability\n"
        "before = dict(os.environ); import mmaml_tf.rl\n"
        "assert 'mmaml_tf/Ant-v0' in gymnasium.registry\n"
        "assert not {'tf_agents', 'gym'} & set(sys.modules)\n"
        "assert dict(os.environ) == before, set(os.environ) ^ set(before)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=os.getcwd())
