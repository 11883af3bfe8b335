"""The part of a policy learner that acts and adapts.

A task's data are trajectories, and each inner step has trajectories of its own, sampled by the
policy adapted so far (section 5.4 of the MMAML paper; Rothfuss et al. 2019, algorithm 1).
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from numpy.typing import ArrayLike

from mmaml_tf.arguments import real_number, whole_number
from mmaml_tf.distribution import check_outside
from mmaml_tf.inner_loop import InnerLoop, check_steps
from mmaml_tf.learners.meta_learner import MetaLearner
from mmaml_tf.modulation import Modulation
from mmaml_tf.names import checked
from mmaml_tf.rl import advantages as advantages_lib
from mmaml_tf.rl import promp
from mmaml_tf.rl.encoders import TrajectoryEncoder
from mmaml_tf.rl.goal_modes import SETTINGS
from mmaml_tf.rl.goals import Goals, check_goal_shape, check_goals, check_origin
from mmaml_tf.rl.trajectories import Trajectories, as_trajectories, check_values


class Parameters(NamedTuple):
    """What the policies of T tasks act by.

    Attributes:
        weights: the network's weights, `[T, ...]`.
        modulation: for each hidden layer a `modulation.BlockModulation` or None; None before the
            first inner step and without modulation.
        steps: inner steps taken.
        state: what the update rule remembers of them, see `update_rules.UpdateRule`.
    """

    weights: list
    modulation: Any = None
    steps: int = 0
    state: Any = ()


class Stage(NamedTuple):
    """Rollouts after some inner steps.

    Attributes:
        parameters: what the policies acted by.
        trajectories: what they did.
        experience: the same for the objectives.
    """

    parameters: Parameters
    trajectories: Trajectories
    experience: promp.Experience


class AdaptivePolicy(MetaLearner):
    """A policy that acts, and adapts to what it experienced by policy gradients.

    The first inner step sees no modulation, as published; the encoder reads its rollouts.

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

    @staticmethod
    def _graph(function):
        return tf.function(function, autograph=False, reduce_retracing=True)

    def renew_graphs(self) -> None:
        """See `TaskModel.renew_graphs`."""
        super().renew_graphs()
        # XLA compiles neither: it solves small linear equations slowly, and runs an encoder's
        # recurrence on one core.
        self._prepare = self._graph(self.prepare_experience)
        self._modulate = self._graph(self.modulate)
        self._inner_step = self._compiled(self.take_inner_step)

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

    # -- adaptation -----------------------------------------------------------------------------

    def initial_parameters(self, tasks: int, mode: ArrayLike | None = None) -> Parameters:
        """Returns what the policies of T tasks act by before any inner step.

        Args:
            tasks: number of tasks T.
            mode: `[T]` modes; only a `Bank` uses them.

        Raises:
            ValueError: for modes that do not fit, or a learner without weights.
        """
        self._require_weights()
        tasks = whole_number("tasks", tasks)
        mode = self._as_modes(mode, tasks)
        weights = self.initial_weights(tasks, mode)
        state = self.inner_loop.initial_state(weights, self._adapted(), mode)
        return Parameters(weights, state=state)

    def _require_weights(self):
        check_outside()
        if not self.built:
            raise ValueError("the learner has no weights yet; train it, or load it from a file.")
        self.refresh()

    def adapt(self, trajectories: Trajectories, parameters: Parameters | None = None) -> Parameters:
        """Takes one inner step; to be called eagerly.

        Args:
            trajectories: rollouts of T tasks, sampled by these parameters.
            parameters: what the policies acted by; by default the initial parameters, which a
                `Bank` cannot know without the modes.

        Returns:
            The parameters to act by from now on. The first step also sets their modulation.

        Raises:
            ValueError: for trajectories that do not fit the learner, hold values that are not
                finite or are not of the same tasks as the parameters, or a learner without weights.
        """
        self._require_weights()
        trajectories = self._read_trajectories(trajectories)
        tasks = len(trajectories.rewards)
        if parameters is None:
            parameters = self.initial_parameters(tasks)
        self._check_parameters(parameters, tasks)
        return self._adapt(trajectories, self.experience(trajectories, parameters), parameters)

    def _read_trajectories(self, trajectories):
        trajectories = as_trajectories(trajectories, self.observation_size, self.action_size)
        check_values(trajectories)
        return Trajectories(*(tf.cast(part, self.compute_dtype) for part in trajectories))

    def _check_parameters(self, parameters, tasks):
        if not isinstance(parameters, Parameters):
            raise ValueError(
                f"parameters is a {type(parameters).__name__}; expected what initial_parameters "
                "or adapt returned."
            )
        # One task's weights would silently be stretched to all.
        tensors = [*self._of_tasks(parameters.weights), *tf.nest.flatten(parameters.state)]
        if {len(tensor) for tensor in tensors} - {tasks}:
            raise ValueError(
                f"the trajectories are of {tasks} tasks, the parameters of another number; give "
                "each task's parameters with its own trajectories."
            )

    def _of_tasks(self, weights):
        """Returns those of the weights that have a task axis, `[T, ...]`."""
        own = self.network.trainable_variables
        return [w for w, v in zip(weights, own, strict=True) if w.shape.rank > len(v.shape)]

    def _adapt(self, trajectories, experience, parameters):
        weights, modulation, steps, state = parameters
        # As a tensor, so that all steps share a graph.
        number = tf.constant(steps)
        weights, state = self._inner_step(experience, weights, modulation, number, state)
        if steps == 0 and self.modulation is not None:
            modulation = self._modulate(trajectories)
        return Parameters(weights, modulation, steps + 1, state)

    def experience(self, trajectories: Trajectories, parameters: Parameters) -> promp.Experience:
        """Returns what the objectives need of rollouts that were sampled by these parameters."""
        self.refresh()
        return self._prepare(trajectories, parameters.weights, parameters.modulation)

    def prepare_experience(
        self, trajectories: Trajectories, weights: Sequence, modulation: Sequence | None
    ) -> promp.Experience:
        """See `experience`; the parameters' parts are given apart, as graphs take them."""
        # Where rewards are costs, breaking early would look like success: it counts nowhere.
        whole = tf.cast(trajectories.stable, trajectories.mask.dtype)[..., None]
        trajectories = trajectories._replace(mask=trajectories.mask * whole)
        observations, actions, rewards, mask = trajectories
        rewards = rewards * mask
        returns = advantages_lib.discounted_sums(rewards, self.discount)
        values = advantages_lib.linear_baseline(trajectories, returns)
        advantages = advantages_lib.generalised_advantages(
            rewards, values, mask, self.discount, self.gae_lambda
        )
        advantages = advantages_lib.normalised(advantages, mask)
        tasks = tf.shape(rewards)[0]
        observations, actions = (
            tf.reshape(part, [tasks, -1, part.shape[-1]]) for part in (observations, actions)
        )
        advantages, mask = (tf.reshape(part, [tasks, -1]) for part in (advantages, mask))
        means = self.network.functional_call(weights, observations, modulation)
        stds = self.network.standard_deviations(weights)
        # Those that are not adapted lack the task axis.
        stds = tf.broadcast_to(stds, [tasks, stds.shape[-1]])
        return promp.Experience(observations, actions, advantages, mask, means, stds)

    def take_inner_step(
        self,
        experience: promp.Experience,
        weights: Sequence,
        modulation: Sequence | None,
        step: int | tf.Tensor,
        state: Any,
    ) -> tuple[list, Any]:
        """Returns weights `[T, ...]` and state after one policy gradient on what they experienced.

        Args:
            experience: see `experience`.
            weights: see `Parameters`.
            modulation: see `Parameters`.
            step: the steps of `Parameters`, an integer tensor.
            state: see `Parameters`.
        """

        def loss(weights, step):
            del step
            policy = self.network.distribution(weights, experience.observations, modulation)
            return promp.adaptation_loss(policy, experience)

        return self.inner_loop.take_step(loss, weights, step, state, self._adapted())

    def stages(
        self, goals: Goals, steps: int | None = None, rollouts: Any = None
    ) -> Iterator[Stage]:
        """Samples and adapts, stage by stage.

        Args:
            goals: T tasks; what is sampled is a function of their origin. Where that says that they
                are part of a larger batch, it is what would be sampled among all of that.
            steps: number of inner steps; by default the inner loop's own.
            rollouts: a `rollouts.Rollouts`; by default the one given to `compile`.

        Yields:
            The `Stage` before and after each inner step, `steps + 1` in all.

        Raises:
            ValueError: see `read_goals` and `rollouts.Rollouts.collect`.
        """
        rollouts = self.require_rollouts(rollouts)
        self.build_for(goals)
        goal, mode, origin = self.read_goals(goals)
        origin = list(origin or (0, 0))
        # Of a part of a batch.
        share = {"share": tuple(origin[2:])} if len(origin) == 4 else {}
        origin = origin[:2] if share else origin
        steps = self.inner_loop.steps if steps is None else check_steps(steps)
        parameters = self.initial_parameters(len(goal), mode)
        for step in range(steps + 1):
            trajectories = rollouts.collect(
                self.network,
                parameters.weights,
                parameters.modulation,
                goal,
                (*origin, step),
                **share,
            )
            trajectories = Trajectories(*(tf.cast(t, self.compute_dtype) for t in trajectories))
            experience = self.experience(trajectories, parameters)
            yield Stage(parameters, trajectories, experience)
            if step < steps:
                parameters = self._adapt(trajectories, experience, parameters)

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
