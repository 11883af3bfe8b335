import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import mmaml_tf.rl  # noqa: F401  (registers the environments)
from mmaml_tf.rl.environments import drawing_process


def pictures(name, *goals):
    """Draws the same state with one goal after the other."""
    env = gymnasium.make(f"mmaml_tf/{name}-v0", render_mode="rgb_array")
    try:
        for goal in goals:
            env.reset(seed=0, options={"task": goal})
            yield env.render().astype(int)
    finally:
        env.close()


def centre_of_red(image):
    """Returns row and column of the goal's centre, as shares of the picture."""
    red = (image[..., 0] > 120) & (image[..., 1] < 60) & (image[..., 2] < 60)
    assert red.any()
    return np.argwhere(red).mean(axis=0) / image.shape[0]


@pytest.fixture(scope="module")
def drawing():
    """Skips a test where nothing can draw off screen."""
    try:
        list(pictures("Reacher", [0.2, 0.2, 0.03]))
    except RuntimeError as error:
        pytest.skip(str(error))


def test_point_mass_shows_goal_and_point():
    env = gymnasium.make("mmaml_tf/PointMass-v0", render_mode="rgb_array")
    env.reset(options={"task": [5.0, -5.0], "state": [-2.5, 5.0, 0, 0]})
    image = env.render()
    assert image.shape == (400, 400, 3) and image.dtype == np.uint8
    # x = 5 is three quarters to the right, y = -5 three quarters down.
    np.testing.assert_allclose(centre_of_red(image), [0.75, 0.75], atol=0.005)
    blue = np.argwhere((image == (30, 60, 200)).all(axis=2)).mean(axis=0) / 400
    np.testing.assert_allclose(blue, [0.25, 0.375], atol=0.005)


@pytest.mark.filterwarnings("ignore:.*Box observation space.*infinity")
@pytest.mark.parametrize("name", ["PointMass", "Reacher", "Ant"])
def test_gymnasium_accepts_the_pictures(name, drawing):
    check_env(gymnasium.make(f"mmaml_tf/{name}-v0", render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize(("name", "scale"), [("Reacher", 0.2), ("Ant", 4.0)])
def test_goal_is_where_it_should_be(name, scale, drawing):
    goals = [scale, 0.0, 0.03], [-scale, 0.0, 0.03], [0.0, scale, 0.03]
    east, west, north = map(centre_of_red, pictures(name, *goals))
    assert west[1] < 0.4 and east[1] > 0.6
    assert west[1] + east[1] == pytest.approx(1, abs=0.02)
    assert north[0] < east[0] and north[1] == pytest.approx(0.5, abs=0.02)


def test_without_a_render_mode_nothing_is_drawn():
    env = gymnasium.make("mmaml_tf/Ant-v0").unwrapped
    env.reset(seed=0)
    assert env.render() is None
    with pytest.raises(ValueError, match="render_mode='human'"):
        type(env)(render_mode="human")


def test_a_drawing_process_that_fails_says_why(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(RuntimeError, match=r"cannot draw on this machine: .*nonsense.*MUJOCO_GL"):
        list(pictures("Reacher", [0.2, 0.2, 0.03]))


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(drawing_process.platform, "system", lambda: "Linux")
    monkeypatch.setattr(drawing_process, "_BACKENDS", {"mujoco.egl": "libnothing.so.1"})
    with pytest.raises(SystemExit, match=r"libnothing.so.1.*libegl1"):
        drawing_process._backend()
