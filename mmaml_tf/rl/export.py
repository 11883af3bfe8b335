"""Export of policies: a SavedModel that adapts to trajectories and acts, inside the graph.

It needs neither this package nor TF-Agents, and works for any number of tasks and rollouts.
"""

import tensorflow as tf

from mmaml_tf.checks import assert_index
from mmaml_tf.distribution import check_outside
from mmaml_tf.export import check_exportable, save_module
from mmaml_tf.rl.trajectories import Trajectories


def write_policy(learner, path) -> None:
    """Writes a policy learner as a SavedModel that appears under its name only when complete.

    Load it with `tf.saved_model.load(path)`. What a policy acts by, its parameters, is a
    dictionary of tensors that the loaded object's functions hand on:

    - `initial(tasks)` returns the parameters of T tasks before any inner step; of a
      `MultiProMP` its argument is the modes `[T]`. Both are int32.
    - `act(observations [T, N, O], noise [T, N, A], parameters)` returns a dictionary: "action",
      the policy's own `[T, N, A]`, which `adapt` wants back, and "control", the same within the
      bounds of the environment. Noise is standard normal to explore, zero to act by the mean.
    - `adapt(observations [T, R, L, O], actions [T, R, L, A], rewards [T, R, L], parameters)`
      takes one inner step on whole rollouts of these parameters and returns the next ones. A
      rollout that broke before its end is no sample: leave it out.

    Args:
        learner: a built `PolicyLearner`, compiled with the environment it acts in.
        path: directory to write to; a SavedModel that is there is replaced.

    Raises:
        ValueError: if the learner is not built and compiled with the environment it was trained
            in, or `path` is something else than a SavedModel.
    """
    check_outside()
    path = check_exportable(learner, path)
    endpoints = _Endpoints(learner)
    module = tf.Module()
    # The graph reads these; the Keras objects that own them stay out of the file.
    module.learned = [v.value for v in learner.variables]
    for name, specs in endpoints.specs().items():
        function = getattr(endpoints, name)
        setattr(module, name, tf.function(function, input_signature=specs, autograph=False))
    save_module(module, path)


class _Endpoints:
    """The functions of an exported learner; see `write_policy`."""

    def __init__(self, learner):
        self.learner = learner
        rollouts = learner.require_rollouts()
        sizes = rollouts.observation_size, rollouts.action_size
        if sizes != (learner.observation_size, learner.action_size):
            raise ValueError(
                f"the learner's observations and actions are of sizes {learner.observation_size} "
                f"and {learner.action_size}, those of {rollouts.env_id} of {sizes}; compile "
                "it with the environment it was trained in."
            )
        self.dtype = learner.compute_dtype
        self.horizon = rollouts.horizon
        self.low, self.high = (tf.constant(bound, self.dtype) for bound in rollouts.action_bounds)
        self.middle = (self.high + self.low) / 2
        self.gain = (self.high - self.low) / (2 * rollouts.action_range)
        #: a modulation of one task, whose structure all have
        self.modulation = _modulation_of_zeros(learner)
        initial = learner.initial_parameters(1, [0] if learner.needs_mode else None)
        # Weights that the inner loop does not adapt lack the task axis.
        pairs = zip(initial.weights, learner.network.trainable_variables, strict=True)
        self.per_task = [w.shape.rank > len(v.shape) for w, v in pairs]
        self.state = initial.state

    def initial(self, tasks_or_mode):
        learner, tasks, mode = self.learner, tasks_or_mode, None
        if learner.needs_mode:
            # A one-hot choice of a mode that does not exist would be a network of zeros.
            message = f"mode must be the index of one of {learner.modes}."
            with tf.control_dependencies(assert_index(tasks_or_mode, len(learner.modes), message)):
                mode = tf.identity(tasks_or_mode)
            tasks = tf.size(mode)
        several = tf.debugging.assert_positive(tasks, "expected at least one task.")
        with tf.control_dependencies([several]):
            tasks = tf.identity(tasks)
        weights = learner.initial_weights(tasks, mode)
        # Nothing reads a modulation before the first step.
        unused = [tf.zeros([tasks, *t.shape[1:]], self.dtype) for t in _tensors(self.modulation)]
        state = learner.inner_loop.initial_state(weights, learner._adapted(), mode)
        parameters = _by_name(weights) | _by_name(unused, "modulation")
        return parameters | _by_name(_tensors(state), "state") | {"steps": tf.constant(0)}

    def act(self, observations, noise, parameters):
        observations = _finite("observations", observations)
        noise = _finite("noise", noise)
        network, weights = self.learner.network, self._weights(parameters, observations)
        means = self._modulated(
            parameters, lambda m: network.functional_call(weights, observations, m)
        )
        stds = network.standard_deviations(weights)
        action = means + (stds[:, None] if stds.shape.rank == 2 else stds) * noise
        control = tf.clip_by_value(action * self.gain + self.middle, self.low, self.high)
        return {"action": action, "control": control}

    def adapt(self, observations, actions, rewards, parameters):
        learner = self.learner
        parts = {"observations": observations, "actions": actions, "rewards": rewards}
        rollouts = tf.debugging.assert_positive(
            tf.shape(rewards)[1], "rewards are of no rollout; expected at least one of each task."
        )
        with tf.control_dependencies([rollouts]):
            parts = [_finite(name, part) for name, part in parts.items()]
        trajectories = Trajectories(*parts, tf.ones_like(rewards))
        weights = self._weights(parameters, observations)
        steps = parameters["steps"]
        state = [parameters[name] for name in _by_name(_tensors(self.state), "state")]
        state = _with_tensors(self.state, state)

        def step(modulation):
            experience = learner.prepare_experience(trajectories, weights, modulation)
            return learner.take_inner_step(experience, weights, modulation, steps, state)

        adapted, state = self._modulated(parameters, step)
        following = _by_name(adapted) | _by_name(_tensors(state), "state")
        if self.modulation is not None:
            # The first step sets the modulation, the later ones keep it.
            read = [tf.cast(t, self.dtype) for t in _tensors(learner.modulate(trajectories))]
            read, later = _by_name(read, "modulation"), steps > 0
            following |= {name: tf.where(later, parameters[name], t) for name, t in read.items()}
        return following | {"steps": steps + 1}

    def _modulated(self, parameters, function):
        """Returns what a function gives of the modulation among parameters, or of None."""
        if self.modulation is None:
            return function(None)
        tensors = [parameters[name] for name in _by_name(_tensors(self.modulation), "modulation")]
        modulation = _with_tensors(self.modulation, tensors)
        modulated = parameters["steps"] > 0
        return tf.cond(modulated, lambda: function(modulation), lambda: function(None))

    def _weights(self, parameters, observations):
        """Returns the weights among parameters, asserting that they are of as many tasks."""
        weights = [parameters[name] for name in _by_name(self.per_task)]
        pairs = zip(weights, self.per_task, strict=True)
        of_tasks = [w for w, per_task in pairs if per_task]
        of_tasks += [parameters[name] for name in _by_name(_tensors(self.modulation), "modulation")]
        # One task's weights would silently be stretched to all.
        same_tasks = tf.debugging.assert_equal(
            tf.shape(observations)[0],
            tf.shape(of_tasks[0])[0],
            "observations and parameters differ in the number of tasks T.",
        )
        with tf.control_dependencies([same_tasks]):
            return [tf.identity(weight) for weight in weights]

    def specs(self):
        """Returns what each function takes."""
        learner = self.learner

        def spec(*axes, dtype=self.dtype):
            return tf.TensorSpec(axes, dtype)

        pairs = zip(self.per_task, learner.network.trainable_variables, strict=True)
        shapes = [(None, *v.shape) if per_task else v.shape for per_task, v in pairs]
        parameters = _by_name([spec(*shape) for shape in shapes])
        generated = [spec(None, *t.shape[1:]) for t in _tensors(self.modulation)]
        parameters |= _by_name(generated, "modulation")
        state = _by_name(_tensors(self.state), "state")
        parameters |= {k: spec(None, *t.shape[1:], dtype=t.dtype) for k, t in state.items()}
        parameters["steps"] = tf.TensorSpec([], tf.int32)
        observation, action = learner.observation_size, learner.action_size
        rollouts = [
            spec(None, None, self.horizon, *sizes) for sizes in ((observation,), (action,), ())
        ]
        return {
            "initial": [tf.TensorSpec([None] if learner.needs_mode else [], tf.int32)],
            "act": [spec(None, None, observation), spec(None, None, action), parameters],
            "adapt": [*rollouts, parameters],
        }


def _finite(name, values):
    return tf.debugging.assert_all_finite(values, f"{name} hold values that are not finite.")


def _by_name(tensors, kind="weight"):
    return {f"{kind}_{i:02d}": tensor for i, tensor in enumerate(tensors)}


def _tensors(structure):
    """Returns the tensors of a modulation or a state, without the parts that there are not."""
    return [tensor for tensor in tf.nest.flatten(structure) if tensor is not None]


def _with_tensors(structure, tensors):
    """Returns a structure with other tensors, in the order of `_tensors`."""
    given = iter(tensors)
    return tf.nest.map_structure(lambda t: None if t is None else next(given), structure)


def _modulation_of_zeros(learner):
    """Returns what the modulation gives for one task, or None."""
    if learner.modulation is None:
        return None
    size = next(iter(learner.modulation.heads.values())).kernel.shape[0]
    return learner.modulation(tf.zeros([1, size], learner.compute_dtype))
