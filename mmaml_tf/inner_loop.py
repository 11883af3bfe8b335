"""The inner loop: differentiable update steps on the weights of T tasks at once."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from mmaml_tf import annealing, update_rules
from mmaml_tf.arguments import flag, positive_number, whole_number
from mmaml_tf.names import checked


@keras.saving.register_keras_serializable("mmaml_tf")
class InnerLoop(keras.layers.Layer):
    """Unrolls an update rule on per-task losses, differentiable to second order.

    The steps are unrolled in the graph and the tasks are an axis of every tensor, so that
    nothing loops over tasks (Algorithm 1 of the MMAML paper, lines 6-8; Finn et al. 2017, eq. 1).

    >>> import mmaml_tf as mm
    >>> loop = mm.InnerLoop(steps=5, update="layer_step_rates", learning_rate=0.01)
    >>> learner = mm.MAML(mm.networks.MLP(), inner_loop=loop)

    Two settings change in the course of training. They are functions of the optimizer's
    `iterations`, as Keras's learning-rate schedules are, so that training resumes where it was
    and begins anew with a new optimizer.

    Args:
        steps: number of steps, 0 or more.
        learning_rate: step size, greater than 0; of an update rule that learns its rates, what
            they start from. By default 0.001; an update rule that is given as an object has its
            own.
        update: an `update_rules.UpdateRule` or its name in `update_rules.UPDATE_RULES`; by default
            gradient descent.
        clip: bound of the element-wise clipping of each gradient, or None. The clipping is part
            of the differentiated graph.
        first_order: treat the gradients as constants in the outer gradient (FOMAML).
        head_only: adapt the weights of the output layer alone (ANIL, Raghu et al. 2020); the
            network says which those are.
        multi_step_until: an outer step. Until then, the outer loss is a weighted sum of the query
            losses after each inner step. The weights are equal at first and go linearly to those
            of the last step alone (Antoniou et al. 2019, eq. 4). None for the last step alone.
        first_order_until: an outer step. Until then, the gradients count as constants, as with
            `first_order` (Antoniou et al. 2019, section 4). None for never.
        on_step: a function of (step, weights, gradients, losses) that sees each step: its number,
            the adapted weights before it `[T, ...]`, their gradients as the update rule gets them,
            and the losses `[T]` of the weights before it. In a graph it runs while the graph is
            traced; `tf.print` and `tf.summary` in it need `compile(jit_compile=False)`.
        **kwargs: see `keras.layers.Layer`.

    Raises:
        ValueError: for numbers out of range, an unknown update rule, a learning rate beside an
            update rule that has its own, or settings that have no effect together.
    """

    @checked()
    def __init__(
        self,
        steps: int = 5,
        learning_rate: float | None = None,
        *,
        update: update_rules.UpdateRule | str | None = None,
        clip: float | None = None,
        first_order: bool = False,
        head_only: bool = False,
        multi_step_until: int | None = None,
        first_order_until: int | None = None,
        on_step: Callable | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.steps = check_steps(steps)
        #: the update rule; in a bank that of each mode, once built
        self.rules = [update_rules.get(update, learning_rate)]
        self.clip = None if clip is None else positive_number("inner clip", clip)
        self.first_order = flag("first_order", first_order)
        self.head_only = flag("head_only", head_only)
        self.multi_step_until = _outer_step("multi_step_until", multi_step_until)
        self.first_order_until = _outer_step("first_order_until", first_order_until)
        if on_step is not None and not callable(on_step):
            raise ValueError(f"on_step={on_step!r}: expected a function, or None.")
        self.on_step = on_step
        if multi_step_until is not None and steps < 2:
            raise ValueError(
                f"multi_step_until={multi_step_until} has no effect with steps={steps}; it needs 2 "
                "inner steps or more."
            )
        if first_order_until is not None and (first_order or steps == 0):
            other = "first_order=True" if first_order else "steps=0"
            raise ValueError(
                f"first_order_until={first_order_until} has no effect with {other}; leave one out."
            )
        self._adapted = ()

    @property
    def update(self) -> update_rules.UpdateRule:
        """The update rule; in a bank that of the first mode."""
        return self.rules[0]

    @property
    def learning_rate(self) -> float:
        """The step size of the update rule, or what its learned rates started from."""
        return self.update.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        for rule in self.rules:
            rule.learning_rate = value

    def build_for(self, variables: Sequence, modes: Sequence[str] = ()) -> None:
        """Creates the variables of the update rule.

        Args:
            variables: the Keras variables of the weights that are adapted.
            modes: names of the modes that have a rule of their own, or none for one rule.

        Raises:
            ValueError: for a rule that learns something and belongs to another learner already, or
                has no step to be trained in, or regularises its variables.
        """
        if self.update.variables:
            raise ValueError(
                f"the update rule {type(self.update).__name__} has learned rates of another "
                "learner already; give each learner an InnerLoop of its own."
            )
        self.update.build_for(variables, self.steps)
        if self.update.variables:
            self._adapted = tuple(map(id, variables))
            if self.steps == 0:
                raise ValueError(
                    f"the update rule {type(self.update).__name__} would learn nothing with "
                    "steps=0; take one inner step or more, or plain gradient descent."
                )
            for mode in modes[1:]:
                config = self.update.get_config()
                rule = type(self.update).from_config(config | {"name": f"{config['name']}_{mode}"})
                rule.build_for(variables, self.steps)
                self.rules.append(rule)
        if any(v.regularizer is not None for v in self.variables):
            raise ValueError(
                f"the update rule {type(self.update).__name__} regularises its variables, and "
                "nothing adds that to the outer loss; leave the regulariser out."
            )
        for layer in (*self.rules, self):
            layer.built = True

    def check_adapted(self, variables: Sequence) -> None:
        """Raises ValueError where an update rule learned its rates for other weights.

        Args:
            variables: the Keras variables of the weights that are adapted now.
        """
        if self._adapted and self._adapted != tuple(map(id, variables)):
            raise ValueError(
                f"the update rule {type(self.update).__name__} was built for "
                f"{len(self._adapted)} weights, and the inner loop adapts {len(variables)} or "
                "others now; freeze layers before the learner is built, and leave them so."
            )

    # -- adaptation -----------------------------------------------------------------------------

    def __call__(
        self,
        loss: Callable[[list, int], tf.Tensor],
        weights: Sequence[tf.Tensor],
        steps: int | None = None,
        adapted: Sequence[bool] | None = None,
        mode: tf.Tensor | None = None,
        first_order: bool | None = None,
    ) -> list[list[tf.Tensor]]:
        """Takes steps on `weights` and returns the weights before and after each.

        Args:
            loss: maps (weights, step) to the per-task losses `[T]`. The loss of a task may
                depend on that task's weights only.
            weights: tensors `[T, ...]`, the initial weights of each task.
            steps: number of steps; by default the number given to the constructor.
            adapted: for each of `weights` whether it is adapted; by default all are. Those that
                are not may lack the task axis.
            mode: `[T]` mode of each task, where each mode has a rule of its own.
            first_order: by default what was given to the constructor.

        Returns:
            `steps + 1` lists of tensors like `weights`; the first is `weights`, the last the
            adapted weights.

        Raises:
            ValueError: for a negative number of steps, or an update rule that is not built.
        """
        # Not by way of Keras, which would cast the weights and take them for a layer's inputs.
        path = [list(weights)]
        state = self.initial_state(weights, adapted, mode)
        for step in range(self.steps if steps is None else check_steps(steps)):
            following, state = self.take_step(loss, path[-1], step, state, adapted, first_order)
            path.append(following)
        return path

    def initial_state(
        self,
        weights: Sequence,
        adapted: Sequence[bool] | None = None,
        mode: tf.Tensor | None = None,
    ) -> Any:
        """Returns what the first step gets as its state, see `__call__` and `take_step`."""
        overridden = type(self.update).build_for is not update_rules.UpdateRule.build_for
        if overridden and not self.update.built:
            raise ValueError(
                f"the update rule {type(self.update).__name__} has no variables yet; a learner "
                "makes them when it is built, or inner_loop.build_for(variables)."
            )
        changing = _select(weights, adapted)
        if len(self.rules) == 1:
            return self.update.initial_state(changing)
        return mode, _of_mode(mode, [rule.initial_state(changing) for rule in self.rules])

    def take_step(
        self,
        loss: Callable[[list, int], tf.Tensor],
        weights: Sequence,
        step: int | tf.Tensor,
        state: Any,
        adapted: Sequence[bool] | None = None,
        first_order: bool | None = None,
    ) -> tuple[list[tf.Tensor], Any]:
        """Takes one step.

        Args:
            loss: see `__call__`.
            weights: see `__call__`.
            step: number of the step, from 0, an integer or a scalar tensor.
            state: what `initial_state` or the step before returned.
            adapted: see `__call__`.
            first_order: see `__call__`.

        Returns:
            Tensors like `weights`, and the state for the next step.
        """
        changing = _select(weights, adapted)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(changing)
            losses = loss(weights, step)
            # The gradient of the sum over tasks holds each task's own gradient, because a
            # task's loss depends on its own weights alone.
            total = tf.reduce_sum(losses)
        gradients = tape.gradient(total, changing, unconnected_gradients="zero")
        # A vectorised Keras model may give sparse gradients (IndexedSlices).
        gradients = [tf.convert_to_tensor(g) for g in gradients]
        if self.first_order if first_order is None else first_order:
            gradients = [tf.stop_gradient(g) for g in gradients]
        if self.clip is not None:
            gradients = [tf.clip_by_value(g, -self.clip, self.clip) for g in gradients]
        if self.on_step is not None:
            self.on_step(step, changing, gradients, losses)
        following, state = self._update(step, changing, gradients, state)
        if adapted is None:
            return following, state
        following = iter(following)
        pairs = zip(weights, adapted, strict=True)
        return [next(following) if changes else w for w, changes in pairs], state

    def _update(self, step, weights, gradients, state):
        if len(self.rules) == 1:
            return self.update.update(step, weights, gradients, state)
        mode, state = state
        updates = [rule.update(step, weights, gradients, state) for rule in self.rules]
        following, state = _of_mode(mode, updates)
        return following, (mode, state)

    # -- the course of training -------------------------------------------------------------------

    def phases(self) -> list[tuple[int, annealing.Phase]]:
        """Returns the outer steps at which another outer gradient begins, with its phase."""
        return annealing.phases(self.first_order, self.first_order_until, self.multi_step_until)

    def step_weights(self, outer_step: tf.Tensor, dtype: Any) -> tf.Tensor:
        """Returns the weight of the query loss after each inner step, `[steps]`; their sum is 1.

        Args:
            outer_step: scalar, number of outer steps taken.
            dtype: type of the result.
        """
        return annealing.step_weights(self.steps, self.multi_step_until, outer_step, dtype)

    # -- serialisation ----------------------------------------------------------------------------

    def settings(self) -> dict:
        """Returns all that decides how the loop adapts, besides the variables of its rule."""
        rule = self.update.get_config()
        del rule["name"]
        return {
            "steps": self.steps,
            "update": (type(self.update), rule),
            "clip": self.clip,
            "first_order": self.first_order,
            "head_only": self.head_only,
            "multi_step_until": self.multi_step_until,
            "first_order_until": self.first_order_until,
            "on_step": self.on_step,
        }

    def get_config(self) -> dict:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            **self.settings(),
            "update": keras.saving.serialize_keras_object(self.update),
            "on_step": self.on_step and keras.saving.serialize_keras_object(self.on_step),
        }

    @classmethod
    def from_config(cls, config: dict) -> "InnerLoop":
        """Makes an inner loop from what `get_config` returned."""
        parts = ("update", "on_step")
        deserialize = keras.saving.deserialize_keras_object
        return cls(**{k: deserialize(v) if k in parts and v else v for k, v in config.items()})


def check_steps(steps: int) -> int:
    """Returns `steps`; raises ValueError unless it is a whole number of at least 0."""
    return whole_number("inner steps", steps, least=0)


def _outer_step(name, value):
    return None if value is None else whole_number(name, value)


def _select(weights, adapted):
    """Returns those of the weights that are adapted."""
    if adapted is None:
        return list(weights)
    return [w for w, changes in zip(weights, adapted, strict=True) if changes]


def _of_mode(mode, results):
    """Returns for each task what its mode has among results, nests of tensors `[T, ...]`."""

    def choose(first, *others):
        for index, other in enumerate(others, start=1):
            chosen = tf.reshape(mode == index, [-1] + [1] * (other.shape.rank - 1))
            first = tf.where(chosen, other, first)
        return first

    return tf.nest.map_structure(choose, *results)
