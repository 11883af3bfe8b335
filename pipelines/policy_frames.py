"""Frames of the environments that MuJoCo simulates, drawn from the observations of a rollout."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.report_texts import when

_MODES = 2
_FRAMES = 6


class CannotDrawError(RuntimeError):
    """Why there are no frames."""


class Strip(NamedTuple):
    """Rows of frames.

    Attributes:
        rows: by title, frames `[F, H, W, 3]` uint8.
        times: `[F]` the time step of each frame.
    """

    rows: Mapping[str, np.ndarray]
    times: Sequence[int]


def draw_rollouts(environment: str, examples, modes: Sequence[str]) -> Strip:
    """Draws a rollout of a task of two modes, before adaptation and after the last inner step.

    Args:
        environment: "reacher" or "ant".
        examples: `mmaml_tf.rl.evaluation.Examples`.
        modes: names of the modes.

    Raises:
        CannotDrawError: see `draw`.
    """
    stages, _, length = examples.observations.shape[:3]
    times = np.linspace(0, length - 1, _FRAMES).round().astype(int)
    titles, observations, goals = [], [], []
    for index, mode in list(enumerate(modes))[:_MODES]:
        task = _first_whole(examples, index, mode)
        for step in (0, stages - 1):
            titles.append(f"{mode}\n{when(step)}")
            observations.append(examples.observations[step, task, times])
            goals.append(np.repeat(examples.goals[task][None], len(times), axis=0))
    frames = draw(environment, np.concatenate(observations), np.concatenate(goals))
    rows = np.split(frames, len(titles))
    return Strip(dict(zip(titles, rows, strict=True)), times.tolist())


def _first_whole(examples, index, mode):
    """Returns the first task of a mode that has a rollout of every step."""
    whole = np.isfinite(examples.observations).all(axis=(0, 2, 3))
    tasks = np.flatnonzero(whole & (examples.mode == index))
    if not len(tasks):
        raise CannotDrawError(f"every rollout of mode {mode} that was kept became unstable")
    return int(tasks[0])


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
    """Draws observations with their goals.

    Args:
        environment: "reacher" or "ant".
        observations: `[F, O]`.
        goals: `[F, 3]`.

    Returns:
        `[F, H, W, 3]` uint8.

    Raises:
        CannotDrawError: where MuJoCo is not installed, or has no OpenGL to draw with.
    """
    try:
        return np.stack(list(_frames(environment, states(environment, observations), goals)))
    except (ImportError, RuntimeError) as error:
        raise CannotDrawError(str(error)) from error


def _frames(environment, states, goals):
    import gymnasium

    from mmaml_tf.rl.goal_modes import SETTINGS

    env = gymnasium.make(
        SETTINGS[environment].env_id, render_mode="rgb_array", disable_env_checker=True
    )
    try:
        for state, goal in zip(states, goals, strict=True):
            env.reset(options={"task": goal, "state": state})
            yield env.render()
    finally:
        env.close()
