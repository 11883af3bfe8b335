"""Learners of policies: ProMP, its multimodal form, and a bank of one per mode.

A task's data are trajectories, and each inner step has trajectories of its own, sampled by the
policy adapted so far (section 5.4 of the MMAML paper; Rothfuss et al. 2019, algorithm 1).
"""

import numbers
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf import division
from mmaml_tf.bank import Bank
from mmaml_tf.export import export_path
from mmaml_tf.inner_loop import InnerLoop, check_steps
from mmaml_tf.meta_learner import Mean, MetaLearner
from mmaml_tf.rl import advantages as advantages_lib
from mmaml_tf.rl import promp
from mmaml_tf.rl.encoders import TrajectoryEncoder
from mmaml_tf.rl.export import write_policy
from mmaml_tf.rl.fixed_horizon import NonFiniteActionsError
from mmaml_tf.rl.goals import SETTINGS, Goals
from mmaml_tf.rl.trajectories import Trajectories, check_trajectories, check_values

# Steps of rollouts that one CPU core works on at once: their activations, and not the weights, are
# what is to fit its caches. With one or two tasks of 2,000 steps at once an epoch on the point mass
# takes less than half the time that it takes with all 20 of a core.
_STEPS_AT_ONCE = 4000


class Parameters(NamedTuple):
    """What the policies of T tasks act by.

    Attributes:
        weights: the network's weights, `[T, ...]`.
        modulation: for each hidden layer `(scale [T, width], None)`, or None before the first
            inner step and without modulation.
        steps: inner steps taken.
    """

    weights: list
    modulation: Any = None
    steps: int = 0


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


class PolicyLearner(MetaLearner):
    """Learns a policy from which few policy gradients suffice, by ProMP's objective.

    An outer step samples each task's rollouts before and after every inner step and then takes
    `epochs` optimizer steps on them: the clipped objective of the rollouts after the last inner
    step, differentiated through the inner steps, and a penalty on the divergence of the policies
    before it from those that acted. The first inner step sees no modulation, as published;
    the encoder reads its rollouts.

    Args:
        network: a `GaussianPolicy`.
        inner_loop: see `MetaLearner`.
        encoder: a `TrajectoryEncoder`, or None.
        modulation: see `MetaLearner`.
        clip: how far from 1 a likelihood ratio counts in the outer objective.
        kl_penalty: weight of the divergence.
        epochs: optimizer steps on the rollouts of an outer step.
        discount: discount per step of the advantages.
        gae_lambda: λ of the generalised advantages.
        outer_clip: see `MetaLearner`; none by default, as published.
        **kwargs: see `MetaLearner`.

    Raises:
        ValueError: for numbers out of range, or parts that do not fit together.
    """

    batch_type = Goals
    measured_by_mode = "return"

    def __init__(
        self,
        network,
        inner_loop: InnerLoop,
        encoder=None,
        modulation=None,
        *,
        clip: float = 0.1,
        kl_penalty: float = 5e-4,
        epochs: int = 5,
        discount: float = 0.99,
        gae_lambda: float = 1.0,
        outer_clip: float | None = None,
        **kwargs,
    ):
        if not hasattr(network, "distribution"):
            raise ValueError(
                f"the network is a {type(network).__name__}, which gives no distribution of "
                "actions; expected a mmaml_tf.rl.GaussianPolicy."
            )
        super().__init__(network, inner_loop, encoder, modulation, outer_clip=outer_clip, **kwargs)
        whole = isinstance(epochs, numbers.Integral)
        if not (clip > 0 and kl_penalty >= 0 and whole and epochs >= 1):
            raise ValueError(
                f"clip={clip}, kl_penalty={kl_penalty}, epochs={epochs}: clip must be positive, "
                "the penalty not negative, and epochs a whole number of at least one."
            )
        for name, value in (("discount", discount), ("gae_lambda", gae_lambda)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must lie between 0 and 1.")
        self.clip = clip
        self.kl_penalty = kl_penalty
        self.epochs = int(epochs)
        self.discount = discount
        self.gae_lambda = gae_lambda
        self.rollouts = None
        self._inner_step = self._graph(self.take_inner_step)
        self._prepare = self._graph(self.prepare_experience)
        self._modulate = self._graph(self.modulate)
        self.returns = [Mean(name=f"return_after_{step}") for step in range(inner_loop.steps + 1)]
        self.kl = Mean(name="kl")
        self.unstable = keras.metrics.Sum(name="unstable")

    @staticmethod
    def _graph(function):
        return tf.function(function, autograph=False, reduce_retracing=True)

    def renew_graphs(self):
        """See `TaskModel.renew_graphs`."""
        super().renew_graphs()
        # XLA compiles neither: it solves small linear equations slowly, and runs an encoder's
        # recurrence on one core.
        self._prepare = self._graph(self.prepare_experience)
        self._modulate = self._graph(self.modulate)
        self._inner_step = self._compiled(self.take_inner_step)
        self._optimise = self.outer_step
        if not self.run_eagerly:
            self._optimise = tf.function(self.outer_step, autograph=False)

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
        if not self.encoder.built:
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
        if self.network.outputs_size != actions[-1]:
            raise ValueError(
                f"the policy gives actions of size {self.network.outputs_size}, the environment "
                f"takes {actions[-1]}; they must be equal."
            )
        self.observation_size, self.action_size = observations[-1], actions[-1]

    def build_for(self, batch: Goals) -> None:
        """Creates all weights for the environment of the rollouts; see `compile`."""
        batch = self.as_batch(batch)
        check_goals(batch)
        if not self.built:
            rollouts = self.require_rollouts()
            sizes = rollouts.observation_size, rollouts.action_size
            self.build([(None, None, None, size) for size in sizes])

    def require_rollouts(self):
        """Returns the environment given to `compile`; raises ValueError where there is none."""
        if self.rollouts is None:
            raise ValueError(
                "the learner has no environment to act in; call compile(optimizer, rollouts=...)."
            )
        return self.rollouts

    def check_tasks(self, tasks) -> None:
        """See `MetaLearner.check_tasks`; goals must be of the learner's own environment, too."""
        super().check_tasks(tasks)
        if hasattr(tasks, "env_id"):
            self.check_environment(tasks.env_id)

    def check_environment(self, env_id: str, rollouts=None) -> None:
        """Raises ValueError where goals are of another environment of this package's.

        Args:
            env_id: the environment of the goals.
            rollouts: a `rollouts.Rollouts`; by default the one given to `compile`.
        """
        environment = (rollouts or self.require_rollouts()).environment
        # Elsewhere these goals may well make sense; here shapes alone would not tell them apart.
        if environment in {s.env_id for s in SETTINGS.values()} - {env_id}:
            raise ValueError(
                f"the learner acts in {environment}, the goals are of {env_id}; give it those of "
                "its own environment."
            )

    # -- adaptation -----------------------------------------------------------------------------

    def initial_parameters(self, tasks: int, mode=None) -> Parameters:
        """Returns what the policies of T tasks act by before any inner step.

        Args:
            tasks: number of tasks T.
            mode: `[T]` modes; only a `Bank` uses them.

        Raises:
            ValueError: for modes that do not fit, or a learner without weights.
        """
        self._require_weights()
        return Parameters(self.initial_weights(tasks, self._as_modes(mode, tasks)))

    def _require_weights(self):
        if not self.built:
            raise ValueError("the learner has no weights yet; train it, or load it from a file.")

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
        trajectories = Trajectories(*(tf.cast(part, self.compute_dtype) for part in trajectories))
        check_trajectories(trajectories, self.observation_size, self.action_size)
        check_values(trajectories)
        tasks = len(trajectories.rewards)
        if parameters is None:
            parameters = self.initial_parameters(tasks)
        # One task's weights would silently be stretched to all.
        if {tasks} != {len(weight) for weight in self._of_tasks(parameters.weights)}:
            raise ValueError(
                f"the trajectories are of {tasks} tasks, the parameters of another number; give "
                "each task's parameters with its own trajectories."
            )
        return self._adapt(trajectories, self.experience(trajectories, parameters), parameters)

    def _of_tasks(self, weights):
        """Returns those of the weights that have a task axis, `[T, ...]`."""
        own = self.network.trainable_variables
        return [w for w, v in zip(weights, own, strict=True) if w.shape.rank > len(v.shape)]

    def _adapt(self, trajectories, experience, parameters):
        weights = self._inner_step(experience, parameters.weights, parameters.modulation)
        modulation = parameters.modulation
        if parameters.steps == 0 and self.modulation is not None:
            modulation = self._modulate(trajectories)
        return Parameters(weights, modulation, parameters.steps + 1)

    def experience(self, trajectories: Trajectories, parameters: Parameters) -> promp.Experience:
        """Returns what the objectives need of rollouts that were sampled by these parameters."""
        return self._prepare(trajectories, parameters.weights, parameters.modulation)

    def prepare_experience(self, trajectories, weights, modulation):
        """See `experience`; the parameters' parts are given apart, as graphs take them."""
        # Where rewards are costs, breaking early would look like success: it counts nowhere.
        whole = tf.reduce_min(trajectories.mask, axis=-1, keepdims=True)
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
        return promp.Experience(observations, actions, advantages, mask, means, stds)

    def take_inner_step(self, experience, weights, modulation):
        """Returns the weights `[T, ...]` after one policy gradient on what they experienced."""

        def loss(weights, step):
            del step
            policy = self.network.distribution(weights, experience.observations, modulation)
            return promp.adaptation_loss(policy, experience)

        return self.inner_loop(loss, weights, 1, self._adapted())[-1]

    def stages(self, goals: Goals, steps: int | None = None, rollouts=None) -> Iterator[Stage]:
        """Samples and adapts, stage by stage.

        Args:
            goals: T tasks; what is sampled is a function of their origin.
            steps: number of inner steps; by default the inner loop's own.
            rollouts: a `rollouts.Rollouts`; by default the one given to `compile`.

        Yields:
            The `Stage` before and after each inner step, `steps + 1` in all.
        """
        rollouts = self.require_rollouts() if rollouts is None else rollouts
        self.build_for(goals)
        goal = np.asarray(goals.goal)
        seed = [0, 0] if goals.origin is None else np.asarray(goals.origin).tolist()
        steps = self.inner_loop.steps if steps is None else check_steps(steps)
        parameters = self.initial_parameters(len(goal), goals.mode)
        for step in range(steps + 1):
            trajectories = rollouts.collect(
                self.network, parameters.weights, parameters.modulation, goal, (*seed, step)
            )
            experience = self.experience(trajectories, parameters)
            yield Stage(parameters, trajectories, experience)
            if step < steps:
                parameters = self._adapt(trajectories, experience, parameters)

    # -- training and evaluation by Keras ---------------------------------------------------------

    def compile(self, optimizer="adam", rollouts=None, **kwargs):
        """Configures training; see `MetaLearner.compile`.

        Args:
            optimizer: a Keras optimizer or its name.
            rollouts: a `rollouts.Rollouts`, the environment to act in.
            **kwargs: see `MetaLearner.compile`.

        Raises:
            ValueError: for several steps per execution; see also `MetaLearner.compile`.
        """
        if kwargs.get("steps_per_execution", 1) != 1:
            raise ValueError(
                f"steps_per_execution={kwargs['steps_per_execution']}: acting in environments "
                "lies between outer steps, so that they cannot be joined in a graph; leave it out."
            )
        super().compile(optimizer, **kwargs)
        self.rollouts = rollouts

    def get_compile_config(self):
        """Returns None: the environment is not stored, so a loaded learner is to be compiled."""

    def make_train_function(self, force=False):
        """Makes what `fit` calls; acting is Python, the rest of a step is compiled by itself."""
        if self.train_function is None or force:
            self.train_function = lambda iterator: self.train_step(next(iterator))

    def make_test_function(self, force=False):
        """Makes what `evaluate` calls; see `make_train_function`."""
        if self.test_function is None or force:
            self.test_function = lambda iterator: self.test_step(next(iterator))

    def train_step(self, goals: Goals):
        """Samples, adapts and takes the outer steps of a batch of tasks; called by `fit`."""
        goals = self.as_batch(goals)
        if goals.origin is None:
            # Goals of one's own: every step is to have other rollouts, after a skipped one too.
            number = int(self.optimizer.iterations) + int(self.guard.skipped)
            goals = goals._replace(origin=np.int64([0, number]))
        try:
            stages = list(self.stages(goals))
        except NonFiniteActionsError as error:
            self._refuse_update(goals, error.finite)
            return self.get_metrics_result()
        self._update_returns(stages, goals.mode)
        # The encoder reads the rollouts before any inner step.
        read = stages[0].trajectories if self.encoder is not None else [None] * 4
        experiences = [part for stage in stages for part in stage.experience]
        weights = self.task_weights(len(goals.goal), goals.mode)
        for _ in range(self.epochs):
            metrics = self._optimise(
                [*read, *experiences, goals.mode], weights, goals.mode, goals.origin
            )
        return metrics

    def _divide(self, tasks):
        """See `MetaLearner.outer_step`; by default as many tasks at once as have few steps."""
        by_weights = super()._divide(tasks)
        by_default = self._division["tasks_at_once"] == "auto"
        if not self.xla or not by_default or self.rollouts is None or division.on_gpu():
            return by_weights
        steps = self.rollouts.rollouts * self.rollouts.horizon
        chosen = self._division | {"tasks_at_once": max(1, _STEPS_AT_ONCE // steps)}
        by_steps = division.Division.of(tasks, 0, **chosen)
        return max(by_weights, by_steps, key=lambda parts: parts.groups)

    def _refuse_update(self, goals, finite):
        """Tells the guard of policies that diverged before there was a loss.

        Here it may stop training with the error of the environments as the cause.
        """
        of_tasks = tf.constant(np.reshape(finite, [len(goals.goal), -1]).all(axis=1))
        whole = [(True, True)] * len(self.guarded)
        self.guard.allow(False, whole, True, of_tasks, goals.mode, goals.origin)
        self.guard.check(self.modes)

    def test_step(self, goals: Goals):
        """Samples and adapts; called by `evaluate`. Returns what does not need an outer step."""
        goals = self.as_batch(goals)
        self._update_returns(list(self.stages(goals)), goals.mode)
        return {
            name: value
            for name, value in self.get_metrics_result().items()
            if name not in ("loss", "kl")
        }

    def _update_returns(self, stages, mode):
        for stage, metric in zip(stages, self.returns, strict=True):
            mean = tf.reduce_mean(stage.trajectories.returns(), axis=1)
            metric.update_state(mean)
            stable = tf.reduce_min(stage.trajectories.mask, axis=-1)
            self.unstable.update_state(tf.reduce_sum(1.0 - stable))
        self._update_by_mode(mean, mode)

    def modulate_batch(self, batch):
        """See `MetaLearner.modulate_batch`."""
        return self.modulate(Trajectories(*batch[:4]))

    def outer_losses(self, batch, affine):
        """Returns ProMP's objective `[t]` (Rothfuss et al. 2019, eq. 10), divergence, no state."""
        size = len(promp.Experience._fields)
        parts, mode = batch[4:-1], batch[-1]
        experiences = [promp.Experience(*parts[i : i + size]) for i in range(0, len(parts), size)]
        divergences = []

        def policy(weights, step):
            modulation = affine if step else None
            return self.network.distribution(weights, experiences[step].observations, modulation)

        def inner_loss(weights, step):
            acting = policy(weights, step)
            divergences.append(promp.divergence(acting, experiences[step]))
            return promp.adaptation_loss(acting, experiences[step])

        tasks = experiences[0].mask.shape[0] or tf.shape(experiences[0].mask)[0]
        steps = len(experiences) - 1
        initial = self.initial_weights(tasks, mode)
        path = self.inner_loop(inner_loss, initial, steps, self._adapted())
        losses = promp.clipped_loss(policy(path[-1], steps), experiences[-1], self.clip)
        divergence = tf.add_n(divergences) / steps if steps else tf.zeros_like(losses)
        return losses + self.kl_penalty * divergence, divergence, []

    def update_metrics(self, outputs, losses, mode, targets):
        """See `MetaLearner.update_metrics`; outputs are divergences."""
        del mode, targets
        finite = self._update_loss(losses)
        self.kl.update_state(tf.where(finite, outputs, 0.0))
        return self.get_metrics_result()

    def predict(self, x, **kwargs):
        """Raises ValueError: a policy acts, step by step."""
        raise ValueError(
            "a policy predicts nothing by itself; adapt it with learner.stages(goals), measure it "
            "with mmaml_tf.rl.evaluate, or export it and call act."
        )

    def predict_on_batch(self, x):
        """Raises ValueError: see `predict`."""
        self.predict(x)

    def export(self, filepath=None, format="tf_saved_model", verbose=None, path=None, **kwargs):
        """Writes a SavedModel that adapts and acts; see `rl.export.write_policy`.

        Args:
            filepath: directory to write to.
            format: "tf_saved_model".
            verbose: whether to say where the model was written; by default not.
            path: another name of `filepath`.
            **kwargs: refused; the signature is the learner's own.
        """
        write_policy(self, export_path(filepath, format, path, kwargs))
        if verbose:
            print(f"Saved a SavedModel at {filepath or path}.")

    # -- serialisation ----------------------------------------------------------------------------

    def get_config(self):
        """Returns the constructor arguments."""
        return super().get_config() | {
            "clip": self.clip,
            "kl_penalty": self.kl_penalty,
            "epochs": self.epochs,
            "discount": self.discount,
            "gae_lambda": self.gae_lambda,
        }


def check_goals(goals) -> None:
    """Raises ValueError unless these are `Goals` with goals `[T, G]`."""
    shape = getattr(getattr(goals, "goal", None), "shape", None)
    if shape is None or len(shape) != 2 or shape[0] == 0:
        raise ValueError(
            f"expected mmaml_tf.rl.Goals with goals [T, G], got {type(goals).__name__} of shape "
            f"{shape}. A dataset for fit() yields Goals(goal, mode, origin)."
        )


@keras.saving.register_keras_serializable("mmaml_tf")
class ProMP(PolicyLearner):
    """Proximal meta-policy search (Rothfuss et al. 2019): one initialisation for all tasks.

    Args:
        network: see `PolicyLearner`.
        inner_loop: see `PolicyLearner`.
        **kwargs: see `PolicyLearner`.
    """

    def __init__(self, network, inner_loop, **kwargs):
        for part in ("encoder", "modulation"):
            if kwargs.pop(part, None) is not None:
                raise ValueError(f"ProMP has no {part}; use MultimodalProMP.")
        super().__init__(network, inner_loop, **kwargs)


@keras.saving.register_keras_serializable("mmaml_tf")
class MultimodalProMP(PolicyLearner):
    """MMAML for policies: ProMP whose initialisation is modulated by what the first rollouts show.

    Args:
        network: see `PolicyLearner`.
        encoder: see `PolicyLearner`.
        modulation: see `PolicyLearner`; published is `FiLM(shift=False, xavier=True)`.
        inner_loop: see `PolicyLearner`.
        **kwargs: see `PolicyLearner`.
    """

    def __init__(self, network, encoder, modulation, inner_loop, **kwargs):
        if encoder is None or modulation is None:
            raise ValueError("MultimodalProMP needs an encoder and a modulation; or use ProMP.")
        super().__init__(network, inner_loop, encoder, modulation, **kwargs)


@keras.saving.register_keras_serializable("mmaml_tf")
class MultiProMP(Bank, PolicyLearner):
    """One independent ProMP per mode, chosen by each task's true mode; see `Bank`."""
