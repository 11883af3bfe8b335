"""Frames of the environments that MuJoCo simulates, drawn from the observations of a rollout."""

import numpy as np

# How near the camera is, where that of the environment makes the robot too small for a small frame.
_NEAR = {"ant": 8.0}


class CannotDrawError(RuntimeError):
    """Why there are no frames."""


def states(environment: str, observations: np.ndarray) -> np.ndarray:
    """Returns the environment's states `[..., S]` of observations `[..., O]`.

    The reacher's observations lack the velocity of the third joint, which no picture shows; it is
    zero here.

    Raises:
        ValueError: for an environment whose observations are not known.
    """
    observations = np.asarray(observations, np.float64)
    if environment == "ant":
        return observations
    if environment != "reacher":
        raise ValueError(f"environment={environment!r}: expected 'reacher' or 'ant'.")
    cosines, sines, rest = np.split(observations, (2, 4), axis=-1)
    velocity = np.zeros_like(rest[..., :1])
    return np.concatenate([np.arctan2(sines, cosines), rest, velocity], axis=-1)


def draw(environment: str, observations: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Draws observations of several modes with their goals.

    Args:
        environment: "reacher" or "ant".
        observations: `[M, C, F, O]`.
        goals: `[M, 3]`.

    Returns:
        `[M, C, F, H, W, 3]` uint8.

    Raises:
        CannotDrawError: where MuJoCo is not installed, or has no OpenGL to draw with.
    """
    shape = observations.shape[:3]
    rows = states(environment, observations).reshape(np.prod(shape), -1)
    of_row = np.repeat(goals, shape[1] * shape[2], axis=0)
    try:
        images = np.stack(list(_frames(environment, rows, of_row)))
    except (ImportError, RuntimeError) as error:
        raise CannotDrawError(str(error)) from error
    return images.reshape(*shape, *images.shape[1:])


def _frames(environment, states, goals):
    import gymnasium

    from mmaml_tf.rl.goal_modes import SETTINGS

    env = gymnasium.make(
        SETTINGS[environment].env_id, render_mode="rgb_array", disable_env_checker=True
    )
    world = env.unwrapped.world
    world.view = world.view | {"distance": _NEAR.get(environment, world.view["distance"])}
    try:
        for state, goal in zip(states, goals, strict=True):
            env.reset(options={"task": goal, "state": state})
            yield env.render()
    finally:
        env.close()
