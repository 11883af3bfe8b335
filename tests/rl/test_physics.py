import mujoco
import numpy as np
import pytest
from rl_environments import random_actions, single, vector


def test_the_point_moves_with_momentum():
    # Written out for one coordinate after the other, from the published equations.
    actions = random_actions("PointMass", (100,)) * 2  # half of them beyond the bounds
    env = single("PointMass")
    goal, state = (3.0, -4.0), [0.1, -0.2, 0.05, -0.1]
    env.reset(options={"task": goal, "state": state})
    x, y, vx, vy = state
    for action in actions:
        vx += min(max(action[0], -0.1), 0.1)
        vy += min(max(action[1], -0.1), 0.1)
        x, y = x + vx, y + vy
        observation, reward, *_ = env.step(action)
        np.testing.assert_allclose(observation, (x, y, vx, vy), rtol=1e-12, atol=1e-12)
        assert reward == pytest.approx(-(((x - goal[0]) ** 2 + (y - goal[1]) ** 2) ** 0.5))


def test_standing_still_costs_the_way_to_the_goal():
    corners = np.array([(5, 5), (-5, 5), (-5, -5), (5, -5)], float)
    noise = np.random.default_rng(0).standard_normal((2000, 2))
    envs = vector("PointMass", 2004, modes=4)
    task = np.concatenate([corners, np.tile(corners, (500, 1)) + noise])
    envs.reset(options={"task": task, "state": np.zeros((2004, 4))})
    returns = sum(envs.step(np.zeros((2004, 2)))[1] for _ in range(100))
    np.testing.assert_allclose(returns[:4], -707.107, rtol=1e-6)
    # The noise across the way lengthens it by about 1/(2·7.07).
    assert returns[4:].mean() == pytest.approx(-714, abs=8)


def test_start_states():
    for name, low, high in (
        ("PointMass", [-0.2, -0.2, -0.1, -0.1], [0.2, 0.2, 0.1, 0.1]),
        ("Reacher", [-0.1] * 3 + [-0.005] * 3, [0.1] * 3 + [0.005] * 3),
    ):
        envs = vector(name, 5000)
        envs.reset(seed=0)
        states, low, high = envs.unwrapped.states, np.array(low), np.array(high)
        assert np.all(states >= low) and np.all(states <= high)
        np.testing.assert_allclose(states.min(axis=0), low, rtol=0.01)
        np.testing.assert_allclose(states.max(axis=0), high, rtol=0.01)
        np.testing.assert_allclose(states.std(axis=0), high / np.sqrt(3), rtol=0.05)


def test_start_states_of_the_ant():
    envs = vector("Ant", 5000, threads=1)
    observations, _ = envs.reset(seed=0)
    rest = np.zeros(15)
    rest[2], rest[3] = 0.75, 1.0
    offsets = observations[:, :15] - rest
    assert abs(offsets).max() <= 0.1
    np.testing.assert_allclose(offsets.std(axis=0), 0.1 / np.sqrt(3), rtol=0.05)
    np.testing.assert_allclose(observations[:, 15:].std(axis=0), 0.1, rtol=0.05)
    np.testing.assert_allclose(observations[:, 15:].mean(axis=0), 0, atol=0.006)


def capsule(radius, length):
    return np.pi * radius**2 * length + 4 / 3 * np.pi * radius**3


def test_the_reacher_is_the_published_arm():
    model = single("Reacher").unwrapped.world.model
    assert (model.nq, model.nv, model.nu) == (3, 3, 3)
    assert model.opt.timestep == 0.01
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    np.testing.assert_array_equal(model.actuator_gear[:, 0], 200)
    np.testing.assert_array_equal(model.actuator_ctrlrange, [[-1, 1]] * 3)
    np.testing.assert_array_equal(model.dof_damping, 1)
    np.testing.assert_array_equal(model.dof_armature, 1)
    np.testing.assert_array_equal(model.jnt_limited, [0, 0, 1])
    np.testing.assert_array_equal(model.jnt_range[2], [-5, 3])
    # Water's density: three links of 0.1 m and a ball at the tip, all 1 cm in radius.
    mass = 1000 * (3 * capsule(0.01, 0.1) + 4 / 3 * np.pi * 0.01**3)
    assert model.body_mass.sum() == pytest.approx(mass)


def test_the_ant_is_the_published_walker():
    model = single("Ant").unwrapped.world.model
    assert (model.nq, model.nv, model.nu) == (15, 14, 8)
    assert model.opt.timestep == 0.01
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
    np.testing.assert_array_equal(model.actuator_gear[:, 0], 150)
    np.testing.assert_array_equal(model.actuator_ctrlrange, [[-1, 1]] * 8)
    np.testing.assert_array_equal(model.dof_damping, [0] * 6 + [1] * 8)
    np.testing.assert_array_equal(model.dof_armature, [0] * 6 + [1] * 8)
    hips, ankles = model.jnt_range[1::2], model.jnt_range[2::2]
    np.testing.assert_allclose(hips, np.radians([[-30, 30]] * 4))
    np.testing.assert_allclose(np.sort(abs(ankles)), np.radians([[30, 70]] * 4))
    short, long = capsule(0.08, 0.2 * 2**0.5), capsule(0.08, 0.4 * 2**0.5)
    mass = 5 * (4 / 3 * np.pi * 0.25**3 + 4 * (2 * short + long))
    assert model.body_mass.sum() == pytest.approx(mass)


@pytest.mark.parametrize("name", ["Reacher", "Ant"])
def test_a_step_is_two_steps_of_mujoco(name):
    env = single(name)
    env.reset(seed=1)
    world = env.unwrapped.world
    data = mujoco.MjData(world.model)
    data.qpos[:], data.qvel[:] = np.split(env.unwrapped.state, [world.model.nq])
    for action in random_actions(name, (5,)):
        data.ctrl[:] = action
        mujoco.mj_step(world.model, data, 2)
        env.step(action)
    np.testing.assert_allclose(env.unwrapped.state, np.concatenate([data.qpos, data.qvel]))
    assert env.metadata["render_fps"] == round(5 / data.time)


def test_reacher_observation_and_reward_by_hand():
    env = single("Reacher")
    _, info = env.reset(seed=2)
    action = np.array([1.5, -0.5, 0.25])  # the first is clipped to 1
    observation, reward, *_ = env.step(action)
    q0, q1, q2, qd0, qd1, _ = env.unwrapped.state
    expected = [np.cos(q0), np.cos(q1), np.sin(q0), np.sin(q1), q2, qd0, qd1]
    np.testing.assert_allclose(observation, expected, rtol=1e-12)
    x = 0.1 * np.cos(q0) + 0.1 * np.cos(q0 + q1) + 0.11 * np.cos(q0 + q1 + q2)
    y = 0.1 * np.sin(q0) + 0.1 * np.sin(q0 + q1) + 0.11 * np.sin(q0 + q1 + q2)
    goal = info["task"]
    distance = abs(x - goal[0]) + abs(y - goal[1]) + abs(0.01 - goal[2])
    assert reward == pytest.approx(-distance - 0.1 * (1 + 0.25 + 0.0625), abs=1e-12)


def test_ant_observation_and_reward_by_hand():
    env = single("Ant")
    _, info = env.reset(seed=2)
    observation, reward, *_ = env.step(np.array([1, -1, 0.5, 0, 0, 0, 0, -3.0]))
    np.testing.assert_array_equal(observation, env.unwrapped.state)
    distance = np.abs(observation[:3] - info["task"]).sum()
    assert reward == pytest.approx(-distance - 0.1 * (1 + 1 + 0.25 + 1), abs=1e-12)


@pytest.mark.parametrize(("name", "body"), [("Reacher", "fingertip"), ("Ant", "torso")])
def test_the_reaching_part_is_where_mujoco_puts_it(name, body):
    world = single(name).unwrapped.world
    states = np.random.default_rng(0).uniform(-1, 1, (20, world.state_size))
    data = mujoco.MjData(world.model)
    for state, place in zip(states, world.reaching_part(states), strict=True):
        data.qpos[:] = state[: world.model.nq]
        mujoco.mj_kinematics(world.model, data)
        np.testing.assert_allclose(place, data.body(body).xpos, atol=1e-12)
