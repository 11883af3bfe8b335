"""The parts of a policy learner: built for an environment, whose goals and rollouts they check."""

import re
from typing import Any

import keras
import tensorflow as tf

from mmaml_tf.arguments import real_number
from mmaml_tf.inner_loop import InnerLoop
from mmaml_tf.learners.meta_learner import MetaLearner
from mmaml_tf.modulation import Modulation
from mmaml_tf.names import checked
from mmaml_tf.rl.encoders import TrajectoryEncoder
from mmaml_tf.rl.goal_modes import SETTINGS
from mmaml_tf.rl.goals import Goals, check_goal_shape, check_goals, check_origin
from mmaml_tf.rl.trajectories import Trajectories


class PolicyParts(MetaLearner):
    """The parts of a policy learner, which fit an environment.

    Args:
        network: a `GaussianPolicy`.
        encoder: a `TrajectoryEncoder`, or another layer from `Trajectories` to embeddings
            `[T, E]`, or None.
        modulation: see `MetaLearner`.
        inner_loop: see `MetaLearner`.
        discount: discount per step of the advantages.
        gae_lambda: λ of the generalised advantages.
        outer_clip: see `MetaLearner`; none by default, as published.
        **kwargs: see `MetaLearner`.

    Raises:
        ValueError: for numbers out of range, or parts that do not fit together.
    """

    batch_type = Goals
    settings = (*MetaLearner.settings, "discount", "gae_lambda")

    @checked()
    def __init__(
        self,
        network: keras.Model,
        *,
        encoder: keras.layers.Layer | None = None,
        modulation: Modulation | str | None = None,
        inner_loop: InnerLoop | None = None,
        discount: float = 0.99,
        gae_lambda: float = 1.0,
        outer_clip: float | None = None,
        **kwargs,
    ):
        if not (hasattr(network, "distribution") and hasattr(network, "standard_deviations")):
            raise ValueError(
                f"the network is a {type(network).__name__}, which gives no distribution of "
                "actions; expected a mmaml_tf.rl.GaussianPolicy."
            )
        super().__init__(
            network,
            encoder=encoder,
            modulation=modulation,
            inner_loop=inner_loop,
            outer_clip=outer_clip,
            **kwargs,
        )
        until = self.inner_loop.multi_step_until
        if until is not None:
            raise ValueError(
                f"multi_step_until={until}: the objective of policies is of the rollouts after the "
                "last inner step; leave it out."
            )
        if encoder is not None and self.inner_loop.steps == 0:
            raise ValueError(
                "inner steps is 0, and a policy is modulated from its first inner step on: the "
                "encoder would be of no use. Take one step or more, or no encoder."
            )
        self.discount = real_number("discount", discount, 1)
        self.gae_lambda = real_number("gae_lambda", gae_lambda, 1)
        self.rollouts = None
        self.renew_graphs()

    # -- building -----------------------------------------------------------------------------

    def _network_shape(self, shape):
        return (None, None, shape[-1])

    def _example_data(self, observations, actions):
        # The published encoder reads rollouts of any length, and the shortest cost least.
        length = getattr(self.encoder, "window", None) or 1
        if not isinstance(self.encoder, TrajectoryEncoder) and self.rollouts is not None:
            length = self.rollouts.horizon
        sizes = (observations[-1],), (actions[-1],), (), ()
        return [Trajectories(*(tf.ones((1, 1, length, *size)) for size in sizes))]

    def _build_encoder(self, *shapes):
        if isinstance(self.encoder, TrajectoryEncoder) and not self.encoder.built:
            self.encoder.build(*shapes)
        size = super()._build_encoder(*shapes)
        if changing := [v.path for v in self.encoder_state]:
            raise ValueError(
                f"the encoder of a policy changes {changing} in training: it would act in another "
                "way than when the rollouts were sampled. Leave random layers and moving averages "
                "out."
            )
        return size

    def _check_outputs(self, observations, actions):
        network, expected = self.network, actions[-1]
        x = tf.ones((1, 2, observations[-1]), self.compute_dtype)
        found = network.distribution(self._shared_weights(), x)
        if len(getattr(found, "event_shape", ())) != 1 or found.batch_shape != x.shape[:2]:
            raise ValueError(
                f"{type(network).__name__}.distribution gives {found} for observations of shape "
                f"{tuple(x.shape)}; expected a distribution of TensorFlow Probability with the "
                "batch shape [T, N] and the event shape [A]."
            )
        size = found.event_shape[-1]
        if size != expected:
            raise ValueError(
                f"the policy gives actions of size {size}, the environment takes {expected}; they "
                "must be equal."
            )
        if found.dtype != self.compute_dtype:
            raise ValueError(
                f"the policy computes in {found.dtype.name} and the learner in "
                f"{self.compute_dtype}; give both the same dtype."
            )
        if any(n.losses or n.state or n.uses_support for n in self._networks()):
            raise ValueError(
                "a policy has no regularisers, losses of its own, random layers, moving averages "
                "or normalisation by the support set: its objective is that of the actions it "
                "took. Leave them out."
            )
        self.observation_size, self.action_size = observations[-1], expected

    def build_for(self, batch: Goals) -> None:
        """Creates all weights for the environment of the rollouts; see `compile`."""
        check_goal_shape(self.as_batch(batch).goal.shape)
        if not self.built:
            rollouts = self.require_rollouts()
            sizes = rollouts.observation_size, rollouts.action_size
            self.build([(None, None, None, size) for size in sizes])

    def read_goals(self, goals: Any) -> Goals:
        """Returns goals as an array, their modes as a tensor and their origin as numbers, checked.

        Args:
            goals: `Goals`, or a tuple or dictionary of their fields.

        Raises:
            ValueError: for goals that are not finite or not `[T, G]`, modes that the learner does
                not know, or an origin that is no (seed, step).
        """
        goals = self.as_batch(goals)
        goal = check_goals(goals.goal)
        origin = None if goals.origin is None else check_origin(goals.origin)
        return Goals(goal, self._as_modes(goals.mode, len(goal)), origin)

    def _as_modes(self, mode, tasks):
        mode = super()._as_modes(mode, tasks)
        if mode is not None and self.modes:
            self._check_known(mode)
        return mode

    def require_rollouts(self, rollouts: Any = None) -> Any:
        """Returns the environment to act in, by default that of `compile`.

        Raises:
            ValueError: where there is none, or something else.
        """
        rollouts = self.rollouts if rollouts is None else rollouts
        if rollouts is None:
            raise ValueError(
                "the learner has no environment to act in; call compile(optimizer, rollouts=...)."
            )
        return check_rollouts(rollouts)

    def check_tasks(self, tasks: Any) -> None:
        """See `MetaLearner.check_tasks`; goals must be of the learner's own environment, too."""
        super().check_tasks(tasks)
        if hasattr(tasks, "env_id"):
            self.check_environment(tasks.env_id)

    def check_environment(self, env_id: str, rollouts: Any = None) -> None:
        """Raises ValueError where goals are of another environment of this package's.

        Args:
            env_id: the environment of the goals.
            rollouts: a `rollouts.Rollouts`; by default the one given to `compile`.
        """
        environment = self.require_rollouts(rollouts).env_id
        # Elsewhere these goals may well make sense; here shapes alone would not tell them apart.
        if environment in {s.env_id for s in SETTINGS.values()} - {env_id}:
            raise ValueError(
                f"the learner acts in {environment}, the goals are of {env_id}; give it those of "
                "its own environment."
            )

    def embed(self, *data, training: bool = False) -> tf.Tensor:
        """See `MetaLearner.embed`; data are trajectories."""
        if self.encoder is None:
            return super().embed(*data, training=training)
        try:
            return super().embed(*data, training=training)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            # Keras sets what the layer said in bold, between a headline and the arguments.
            said = re.search(r"\x1b\[1m(.*?)\x1b\[0m", str(error), re.DOTALL)
            raise ValueError(
                f"the encoder {self.encoder.name!r} cannot read these rollouts; it takes "
                f"mmaml_tf.rl.Trajectories: {(said[1] if said else str(error)).splitlines()[0]}"
            ) from error

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {"discount": self.discount, "gae_lambda": self.gae_lambda}


def check_rollouts(rollouts: Any):
    """Returns what a learner acts in; raises ValueError where it collects no rollouts."""
    needed = "collect", "env_id", "horizon", "observation_size", "action_size"
    # Asked of the class: some properties make environments.
    own = getattr(rollouts, "__dict__", {})
    if not all(hasattr(type(rollouts), name) or name in own for name in needed):
        raise ValueError(
            f"rollouts is a {type(rollouts).__name__}; expected a mmaml_tf.rl.rollouts.Rollouts, "
            'such as Rollouts("mmaml_tf/PointMass-v0").'
        )
    return rollouts
