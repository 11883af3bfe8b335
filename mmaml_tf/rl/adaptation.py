"""The part of a policy learner that acts and adapts.

A task's data are trajectories, and each inner step has trajectories of its own, sampled by the
policy adapted so far (section 5.4 of the MMAML paper; Rothfuss et al. 2019, algorithm 1).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from numpy.typing import ArrayLike

from mmaml_tf.arguments import whole_number
from mmaml_tf.distribution import check_outside
from mmaml_tf.inner_loop import check_steps
from mmaml_tf.rl import advantages as advantages_lib
from mmaml_tf.rl import promp
from mmaml_tf.rl.goals import Goals
from mmaml_tf.rl.policy_parts import PolicyParts
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


class AdaptivePolicy(PolicyParts):
    """A policy that acts, and adapts to what it experienced by policy gradients.

    The first inner step sees no modulation, as published; the encoder reads its rollouts.
    """

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
