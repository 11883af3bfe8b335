"""Learners of policies by ProMP's objective."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf import division
from mmaml_tf.arguments import positive_number, real_number, whole_number
from mmaml_tf.inner_loop import InnerLoop
from mmaml_tf.learners.meta_learner import Mean
from mmaml_tf.modulation import Modulation
from mmaml_tf.names import checked
from mmaml_tf.nonfinite import NonFiniteError
from mmaml_tf.rl import promp
from mmaml_tf.rl.adaptation import AdaptivePolicy
from mmaml_tf.rl.export import write_policy
from mmaml_tf.rl.fixed_horizon import NonFiniteActionsError
from mmaml_tf.rl.goals import Goals
from mmaml_tf.rl.policy_parts import check_rollouts
from mmaml_tf.rl.trajectories import Trajectories

# Steps of rollouts that one CPU core works on at once: their activations, and not the weights, are
# what is to fit its caches. With one or two tasks of 2,000 steps at once an epoch on the point mass
# takes less than half the time that it takes with all 20 of a core.
_STEPS_AT_ONCE = 4000


class PolicyLearner(AdaptivePolicy):
    """Learns a policy from which few policy gradients suffice, by ProMP's objective.

    An outer step samples each task's rollouts before and after every inner step and then takes
    `epochs` optimizer steps on them: the clipped objective of the rollouts after the last inner
    step, differentiated through the inner steps, and a penalty on the divergence of the policies
    before it from those that acted.

    Args:
        network: see `PolicyParts`.
        encoder: see `PolicyParts`.
        modulation: see `PolicyParts`.
        inner_loop: see `PolicyParts`.
        clip: how far from 1 a likelihood ratio counts in the outer objective.
        kl_penalty: weight of the divergence.
        epochs: optimizer steps on the rollouts of an outer step.
        **kwargs: see `PolicyParts`.

    Raises:
        ValueError: for numbers out of range, or parts that do not fit together.
    """

    measured_by_mode = "return"
    settings = (*AdaptivePolicy.settings, "clip", "kl_penalty")

    @checked()
    def __init__(
        self,
        network: keras.Model,
        *,
        encoder: keras.layers.Layer | None = None,
        modulation: Modulation | str | None = None,
        inner_loop: InnerLoop | None = None,
        clip: float = 0.1,
        kl_penalty: float = 5e-4,
        epochs: int = 5,
        **kwargs,
    ):
        super().__init__(
            network, encoder=encoder, modulation=modulation, inner_loop=inner_loop, **kwargs
        )
        self.epochs = whole_number("epochs", epochs)
        self.clip = positive_number("clip", clip)
        self.kl_penalty = real_number("kl_penalty", kl_penalty)
        steps = range(self.inner_loop.steps + 1)
        self.returns = [Mean(name=f"return_after_{step}") for step in steps]
        self.kl = Mean(name="kl")
        self.unstable = keras.metrics.Sum(name="unstable")
        #: batches of goals without an origin that were trained on
        self.batches = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name="batches"
        )

    def renew_graphs(self) -> None:
        """See `TaskModel.renew_graphs`."""
        super().renew_graphs()
        self._optimise = self.outer_step
        if not self.run_eagerly:
            self._optimise = tf.function(self.outer_step, autograph=False)

    # -- training and evaluation by Keras ---------------------------------------------------------

    def compile(
        self, optimizer: keras.optimizers.Optimizer | str = "adam", rollouts: Any = None, **kwargs
    ) -> None:
        """Configures training; see `MetaLearner.compile`.

        Args:
            optimizer: a Keras optimizer or its name.
            rollouts: a `rollouts.Rollouts`, the environment to act in.
            **kwargs: see `MetaLearner.compile`.

        Raises:
            ValueError: for something else than rollouts, a loss or metrics, which a policy has
                already, or several steps per execution; see also `MetaLearner.compile`.
        """
        if kwargs.get("steps_per_execution", 1) not in (1, None):
            raise ValueError(
                f"steps_per_execution={kwargs['steps_per_execution']}: acting in environments "
                "lies between outer steps, so that they cannot be joined in a graph; leave it out."
            )
        for name in ("loss", "metrics"):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f"compile got {name}, but a policy is trained by ProMP's objective and "
                    "measured by its returns; leave it out."
                )
        if rollouts is not None:
            check_rollouts(rollouts)
        super().compile(optimizer, **kwargs)
        self.rollouts = rollouts

    def get_compile_config(self) -> dict | None:
        """Returns None: the environment is not stored, so a loaded learner is to be compiled."""

    def make_train_function(self, force: bool = False) -> None:
        """Makes what `fit` calls; acting is Python, the rest of a step is compiled by itself."""
        if self.train_function is None or force:
            self.train_function = lambda iterator: self.train_step(next(iterator))

    def make_test_function(self, force: bool = False) -> None:
        """Makes what `evaluate` calls; see `make_train_function`."""
        if self.test_function is None or force:
            self.test_function = lambda iterator: self.test_step(next(iterator))

    def train_step(self, goals: Goals) -> dict:
        """Samples, adapts and takes the outer steps of a batch of tasks; called by `fit`."""
        goals = self.read_goals(goals)
        if goals.origin is None:
            # Goals of one's own: every step has other rollouts, after a skipped one too.
            goals = goals._replace(origin=[0, int(self.batches.numpy())])
            self.batches.assign_add(1)
        if self.replicas.hosts > 1 and len(goals.origin) == 2:
            # Every host acts for its own share.
            mine = map(self.replicas.share, (goals.goal, goals.mode))
            goals = Goals(*mine, [*goals.origin, self.replicas.host, self.replicas.hosts])
        shared = len(goals.origin) == 4
        if shared:
            self.replicas.assert_share(tf.constant(goals.origin[2:]))
        stages, error = None, None
        finite = np.ones(len(goals.goal), np.int32)
        try:
            stages = list(self.stages(goals))
        except NonFiniteActionsError as found:
            finite, error = found.finite.reshape([len(finite), -1]).all(axis=1), found
        if self._refuses_update(goals, tf.cast(finite, tf.int32), error):
            return self.get_metrics_result()
        self._update_returns(stages, goals.mode, shared)
        # The encoder reads the rollouts before any inner step.
        read = stages[0].trajectories if self.encoder is not None else [None] * 4
        experiences = [part for stage in stages for part in stage.experience]
        origin = tf.constant(goals.origin if shared else goals.origin[:2], tf.int64)
        for _ in range(self.epochs):
            metrics = self._optimise([*read, *experiences, goals.mode], goals.mode, origin)
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

    def _refuses_update(self, goals, finite, error):
        """Tells the guard of policies that diverged before there was a loss, on any host.

        Here it may stop training with the error of the environments as the cause.

        Args:
            goals: those that were acted for.
            finite: `[T]` whole numbers, whether the actions of each task are finite.
            error: that of the environments, or None.
        """
        finite, mode = self.replicas.of_all_hosts([finite, goals.mode])
        if tf.reduce_all(finite > 0):
            return False
        whole = [(True, True)] * len(self.guarded)
        self.guard.allow(False, whole, True, finite > 0, mode, goals.origin[:2])
        try:
            self.guard.check(self.modes)
        except NonFiniteError as stopped:
            # Keras's `fit` passes errors on with their context, but without their cause.
            stopped.__context__ = error
            raise
        return True

    def test_step(self, goals: Goals) -> dict:
        """Samples and adapts; called by `evaluate`. Returns what does not need an outer step."""
        goals = self.read_goals(goals)
        if goals.origin is None:
            # The batches of an evaluation differ from each other, and from those of training.
            goals = goals._replace(origin=[0, -1 - int(self.returns[0].count.numpy())])
        self._update_returns(list(self.stages(goals)), goals.mode)
        return {
            name: value
            for name, value in self.get_metrics_result().items()
            if name not in ("loss", "kl")
        }

    def _update_returns(self, stages, mode, shared=False):
        """Updates the means over tasks; a task all of whose rollouts broke is no sample.

        Args:
            stages: those of some tasks.
            mode: `[T]` mode of each task, or None.
            shared: whether they are this host's share.
        """
        if len(stages) != len(self.returns):
            raise ValueError(
                f"the inner loop takes {len(stages) - 1} steps, and the learner reports returns "
                f"after {len(self.returns) - 1}; make a new learner for another number of steps."
            )
        found = []
        for stage in stages:
            stable = stage.trajectories.stable
            keep = tf.reduce_any(stable, axis=1)
            mean = tf.where(keep, stage.trajectories.task_returns(), 0)
            found += [mean, tf.cast(keep, mean.dtype), tf.cast(~stable, mean.dtype)]
        if shared:
            mode, *found = self.replicas.of_all_hosts([mode, *found])
        for metric, mean, keep, broken in zip(
            self.returns, found[::3], found[1::3], found[2::3], strict=True
        ):
            metric.update_state(mean, sample_weight=keep)
            self.unstable.update_state(broken)
        self._update_by_mode(mean, mode, keep > 0)

    def modulate_batch(self, batch: Sequence) -> Any:
        """See `MetaLearner.modulate_batch`."""
        return self.modulate(Trajectories(*batch[:4]))

    def outer_losses(self, batch: Sequence, affine: Sequence | None, phase: Any = None) -> tuple:
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
        first_order = phase and phase.first_order
        path = self.inner_loop(inner_loss, initial, steps, self._adapted(), mode, first_order)
        losses = promp.clipped_loss(policy(path[-1], steps), experiences[-1], self.clip)
        divergence = tf.add_n(divergences) / steps if steps else tf.zeros_like(losses)
        return losses + self.kl_penalty * divergence, divergence, []

    def update_metrics(
        self, outputs: tf.Tensor, losses: tf.Tensor, mode: tf.Tensor | None, targets: Any
    ) -> dict:
        """See `MetaLearner.update_metrics`; outputs are divergences."""
        del mode, targets
        finite = self._update_loss(losses)
        self.kl.update_state(tf.where(finite, outputs, 0.0))
        return self.get_metrics_result()

    def __call__(self, *args, **kwargs) -> NoReturn:
        """Raises ValueError: see `predict`."""
        self.predict()

    def predict(self, x: Any = None, *args, **kwargs) -> NoReturn:
        """Raises ValueError: a policy acts, step by step."""
        raise ValueError(
            "a policy predicts nothing by itself; adapt it with learner.stages(goals), measure it "
            "with mmaml_tf.evaluate, or export it and call act."
        )

    def predict_on_batch(self, x: Any = None) -> NoReturn:
        """Raises ValueError: see `predict`."""
        self.predict(x)

    def write_export(self, path: str | PathLike) -> None:
        """See `MetaLearner.export` and `rl.export.write_policy`."""
        write_policy(self, path)

    # -- serialisation ----------------------------------------------------------------------------

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return super().get_config() | {
            "clip": self.clip,
            "kl_penalty": self.kl_penalty,
            "epochs": self.epochs,
        }
