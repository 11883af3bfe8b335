"""The physics that an environment is made of."""

from abc import ABC, abstractmethod

import numpy as np

# No motion that the actuators can cause comes near to this, in any environment's units.
_LARGEST = 1e4


class World(ABC):
    """The physics of an environment.

    Attributes:
        environment: name of its goal distribution.
        state_size: number of values S of a state.
        observation_size: number of values O of an observation.
        action_size: number of values A of an action.
        action_limit: bound of every action value, positive and negative.
    """

    environment: str
    state_size: int
    observation_size: int
    action_size: int
    action_limit: float

    @abstractmethod
    def start(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draws `[N, S]` states to start from."""

    @abstractmethod
    def advance(self, states, actions) -> tuple[np.ndarray, np.ndarray]:
        """Steps `[N, S]` states with `[N, A]` actions; returns new states and `stable` `[N]`."""

    @abstractmethod
    def observe(self, states) -> np.ndarray:
        """Returns the observations `[N, O]` of `[N, S]` states, as a new array."""

    @abstractmethod
    def reward(self, states, actions, goals) -> np.ndarray:
        """Returns the rewards `[N]` of having come to `[N, S]` states with `[N, A]` actions."""

    @abstractmethod
    def render(self, state, goal) -> np.ndarray:
        """Draws one state `[S]` and its goal `[G]` as `[height, width, 3]` uint8."""

    def close(self) -> None:  # noqa: B027
        """Frees what the world holds."""


def stable_states(states: np.ndarray) -> np.ndarray:
    """Returns `[N]`: whether all values of a state `[N, S]` are finite and of sensible size."""
    flat = states.reshape(-1)
    # If the sum of all squares is small enough, so is every value; NaN compares as false.
    with np.errstate(over="ignore"):
        if np.dot(flat, flat) < _LARGEST**2:
            return np.ones(len(states), bool)
    return (np.abs(states) < _LARGEST).all(axis=1)
