"""Vector environments whose episodes all last the same number of steps, checked at every step."""

import contextlib
import numbers

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv


class NonFiniteActionsError(ValueError):
    """Some actions are not finite.

    Attributes:
        finite: `[N]` boolean, which environments' actions are.
    """

    def __init__(self, message: str, finite: np.ndarray):
        super().__init__(message)
        self.finite = finite


class FixedHorizonEnvs:
    """N gymnasium environments that pursue given goals for exactly L steps.

    Actions of ± `action_range` are the bounds of the environments' own actions; what lies
    between is mapped linearly and what lies beyond is clipped.

    Args:
        envs: a vector environment with vectors as observations, and as actions within finite
            bounds, whose `reset` takes `options={"task": goals [N, G]}` and returns the same as
            `infos["task"]`; or gymnasium's own collections of single environments that do so with
            `goal [G]`. To be part of a larger batch, a vector environment also takes
            `options={"among": (rows [N], M)}`: it starts as the rows of M environments would, and
            returns `infos["among"]`, the rows.
        horizon: number L of steps of an episode.
        action_range: see above.

    An environment that breaks down may say so in `infos["unstable"]` `[N]`; it goes on to the
    horizon with finite observations and rewards.

    Raises:
        ValueError: for other spaces of observations or actions, or a horizon of no step.
    """

    def __init__(self, envs: VectorEnv, horizon: int, action_range: float):
        observations, actions = envs.single_observation_space, envs.single_action_space
        for name, space in (("observations", observations), ("actions", actions)):
            if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
                raise ValueError(f"{name} of {envs} are {space}; expected a Box of one axis.")
        if not np.issubdtype(actions.dtype, np.floating):
            raise ValueError(f"actions of {envs} are {actions}; expected a Box of floats.")
        if not actions.is_bounded():
            raise ValueError(f"actions of {envs} are {actions}; expected finite bounds.")
        self.horizon = check_horizon(horizon)
        self.size = envs.num_envs
        self.observation_size, self.action_size = observations.shape[0], actions.shape[0]
        #: which environments have become unstable since the reset `[N]`
        self.unstable = np.zeros(self.size, bool)
        self._envs = envs
        #: least and greatest action `[A]`
        self.action_bounds = self._low, self._high = actions.low, actions.high
        self._middle = (actions.high + actions.low) / 2
        self._gain = (actions.high - actions.low) / (2 * action_range)

    def reset(self, goals: np.ndarray, seed: int, among=None) -> np.ndarray:
        """Starts an episode with the goals `[N, G]`; returns observations `[N, O]`, float32.

        Args:
            goals: `[N, G]`.
            seed: a whole number.
            among: (rows `[N]`, M) where these are some of M environments, or None.

        Raises:
            ValueError: for environments that do not tell that they took the goals, or their rows,
                or give observations of another shape.
        """
        self._steps = 0
        self.unstable = np.zeros_like(self.unstable)
        if isinstance(self._envs.unwrapped, (SyncVectorEnv, AsyncVectorEnv)):
            seeds = seed if among is None else [seed + int(row) for row in among[0]]
            observations = self._reset_single_envs(goals, seeds)
        else:
            given = {} if among is None else {"among": among}
            observations, infos = self._reset(seed, {"task": goals, **given})
            self._check_taken(infos, goals, slice(None))
            if among is not None and not np.array_equal(infos.get("among"), among[0]):
                raise ValueError(
                    f"reset of {self._envs} does not tell that it took its rows of a larger batch; "
                    'expected it to use options["among"], (rows, M), and to return the rows as '
                    'infos["among"]. Use an environment that does so, or train on one host.'
                )
        return self._checked(observations, np.zeros(self.size))[0]

    def _reset(self, seed, options):
        self._coordinates = options["task"].shape[-1]
        with self._naming("reset"):
            observations, infos = self._envs.reset(seed=seed, options=options)
        return observations, infos

    @contextlib.contextmanager
    def _naming(self, what):
        """Says what failed in the environments' own code."""
        try:
            yield
        except Exception as error:
            raise ValueError(
                f"{what} of {self._envs} failed, with goals of {self._coordinates} coordinates: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _reset_single_envs(self, goals, seed):
        """Resets a collection of single environments, all of which are given the same options.

        So all start with the first goal, and those of each other goal are then reset to theirs.
        """
        distinct, index = np.unique(goals, axis=0, return_inverse=True)
        for number, goal in enumerate(distinct):
            mask = {"reset_mask": index.reshape(-1) == number} if number else {}
            observations, infos = self._reset(seed, {"task": goal, **mask})
            chosen = mask.get("reset_mask", slice(None))
            self._check_taken(infos, np.tile(goal, (self.size, 1)), chosen)
        return observations

    def _check_taken(self, infos, goals, chosen):
        """Raises ValueError unless the infos of a reset hold these goals.

        Gymnasium lets an environment ignore options, and the goal is not observed: training would
        go on towards goals that nobody pursues.
        """
        try:
            told = np.stack([*np.asarray(infos["task"])[chosen]]).astype(float)
        except (KeyError, IndexError, TypeError, ValueError):
            told = np.zeros(0)
        if told.shape != goals[chosen].shape or not np.allclose(told, goals[chosen]):
            raise ValueError(
                f"reset of {self._envs} does not tell that it took the goals; expected it to use "
                'options["task"] and to return the same goal as info["task"]. Use an environment '
                "that takes goals so, or wrap this one."
            )

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """Steps all environments.

        Args:
            actions: `[N, A]`.

        Returns:
            Observations `[N, O]` and rewards `[N]`, float32, and whether this was step L.

        Raises:
            NonFiniteActionsError: before anything is stepped.
            ValueError: for actions of another shape, before anything is stepped; for environments
                that do not all end at step L or give observations or rewards of another shape.
        """
        if actions.shape != (self.size, self.action_size):
            raise ValueError(
                f"actions have shape {actions.shape}; expected {(self.size, self.action_size)} "
                "(environments, action size)."
            )
        finite = np.isfinite(actions).all(axis=1)
        if not finite.all():
            raise NonFiniteActionsError(self._describe_nonfinite(actions, finite), finite)
        actions = np.clip(actions * self._gain + self._middle, self._low, self._high)
        with self._naming(f"step {self._steps + 1}"):
            observations, rewards, terminated, truncated, infos = self._envs.step(actions)
        terminated, truncated = np.asarray(terminated), np.asarray(truncated)
        self._steps += 1
        last = self._steps == self.horizon
        if terminated.any() or not (truncated.all() if last else not truncated.any()):
            raise ValueError(
                f"step {self._steps} of {self._envs} ended with {terminated.sum()} terminated and "
                f"{truncated.sum()} truncated of {self.size} environments; expected none to end "
                f"before the horizon, step {self.horizon}, and all to be truncated there. Use an "
                "environment that never terminates, and give its horizon as max_episode_steps."
            )
        self.unstable = self.unstable | self._told_unstable(infos)
        return *self._checked(observations, rewards), last

    def _told_unstable(self, infos):
        nowhere = np.zeros(self.size, bool)
        unstable = np.asarray(infos.get("unstable", nowhere) if infos else nowhere)
        if unstable.shape != (self.size,) or unstable.dtype.kind not in "biuf":
            raise ValueError(
                f'infos["unstable"] of {self._envs} has shape {unstable.shape} and type '
                f"{unstable.dtype}; expected one boolean for each of the {self.size} environments."
            )
        return unstable.astype(bool)

    def close(self) -> None:
        """Closes the environments."""
        self._envs.close()

    def _checked(self, observations, rewards):
        """Returns copies, float32, because environments may use their arrays again."""
        observations, rewards = np.asarray(observations), np.asarray(rewards)
        if not {observations.dtype.kind, rewards.dtype.kind} <= set("biuf"):
            raise ValueError(
                f"step {self._steps} of {self._envs} gave observations of type "
                f"{observations.dtype} and rewards of type {rewards.dtype}; expected numbers."
            )
        expected = (self.size, self.observation_size), (self.size,)
        if (observations.shape, rewards.shape) != expected:
            raise ValueError(
                f"step {self._steps} of {self._envs} gave observations of shape "
                f"{observations.shape} and rewards of shape {rewards.shape}; expected "
                f"{expected[0]} and {expected[1]}."
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            observations, rewards = (np.array(a, np.float32) for a in (observations, rewards))
        for name, values in (("observations", observations), ("rewards", rewards)):
            if not np.isfinite(values).all():
                first = np.argwhere(~np.isfinite(values))[0, 0]
                raise ValueError(
                    f"{name} are not finite at step {self._steps}, first those of environment "
                    f"{first} of {self.size}: {values[first]}; an environment that becomes "
                    'unstable must say so in infos["unstable"] and give finite values from then on.'
                )
        return observations, rewards

    def _describe_nonfinite(self, actions, finite):
        bad = np.flatnonzero(~finite)
        return (
            f"actions for step {self._steps} are not finite in {len(bad)} of {self.size} "
            f"environments, first in environment {bad[0]}: {actions[bad[0]]}. The policy's "
            "weights have diverged; use smaller learning rates, or InnerLoop(clip=...)."
        )


def check_horizon(horizon: int | None) -> int:
    """Returns the horizon; raises ValueError unless it is a number of steps, at least one."""
    if isinstance(horizon, bool) or not isinstance(horizon, numbers.Integral) or horizon < 1:
        raise ValueError(
            f"the horizon is {horizon!r}; expected a fixed one of at least one step: give "
            "max_episode_steps, here or where the environment is registered."
        )
    return int(horizon)


def registered_horizon(env_id: str, **env_kwargs) -> int:
    """Returns the horizon of a registered environment, unless `max_episode_steps` says another.

    Raises:
        ValueError: for an unknown environment, or one without a horizon.
    """
    if not isinstance(env_id, str):
        raise ValueError(
            f"env_id is a {type(env_id).__name__}; expected the id of one that is "
            'registered with Gymnasium, such as "mmaml_tf/PointMass-v0".'
        )
    try:
        spec = gymnasium.spec(env_id)
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(
            f"unknown environment {env_id!r}: {error} Importing mmaml_tf.rl registers "
            "this package's own; gymnasium.pprint_registry() prints all."
        ) from None
    return check_horizon(env_kwargs.get("max_episode_steps", spec.max_episode_steps))
