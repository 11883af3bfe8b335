"""Export of policies: a SavedModel that adapts to trajectories and acts, inside the graph.

It needs neither this package nor TF-Agents, and works for any number of tasks and rollouts.
"""

import tensorflow as tf

from mmaml_tf.checks import assert_index
from mmaml_tf.export import check_exportable, save_module
from mmaml_tf.fitting import refuse_strategy
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
    refuse_strategy()
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
        self.identity = _identity(learner)
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
        modulation = {name: tf.tile(t, [tasks, 1]) for name, t in self.identity.items()}
        weights = learner.initial_weights(tasks, mode)
        state = learner.inner_loop.initial_state(weights, learner._adapted(), mode)
        parameters = _by_name(weights) | modulation | _by_name(tf.nest.flatten(state), "state")
        return parameters | {"steps": tf.constant(0)}

    def act(self, observations, noise, parameters):
        observations = _finite("observations", observations)
        noise = _finite("noise", noise)
        network, weights, modulation = self._network(parameters, observations)
        means = network.functional_call(weights, observations, modulation)
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
        _, weights, modulation = self._network(parameters, observations)
        experience = learner.prepare_experience(trajectories, weights, modulation)
        steps, state = parameters["steps"], _by_name(tf.nest.flatten(self.state), "state")
        state = tf.nest.pack_sequence_as(self.state, [parameters[name] for name in state])
        weights, state = learner.take_inner_step(experience, weights, modulation, steps, state)
        following = _by_name(weights) | _by_name(tf.nest.flatten(state), "state")
        if self.identity:
            # The first step sets the modulation, the later ones keep it.
            read = _named_modulation(learner.modulate(trajectories), self.dtype)
            later = steps > 0
            following |= {name: tf.where(later, parameters[name], t) for name, t in read.items()}
        return following | {"steps": steps + 1}

    def _network(self, parameters, observations):
        """Returns the policy network, and its weights and modulation."""
        weights = [parameters[name] for name in _by_name(self.per_task)]
        pairs = zip(weights, self.per_task, strict=True)
        of_tasks = [w for w, per_task in pairs if per_task]
        of_task = [*of_tasks, *(parameters[name] for name in self.identity)][0]
        # One task's weights would silently be stretched to all.
        same_tasks = tf.debugging.assert_equal(
            tf.shape(observations)[0],
            tf.shape(of_task)[0],
            "observations and parameters differ in the number of tasks T.",
        )
        with tf.control_dependencies([same_tasks]):
            weights = [tf.identity(weight) for weight in weights]
        return self.learner.network, weights, _modulation(self.learner, parameters)

    def specs(self):
        """Returns what each function takes."""
        learner = self.learner

        def spec(*axes, dtype=self.dtype):
            return tf.TensorSpec(axes, dtype)

        pairs = zip(self.per_task, learner.network.trainable_variables, strict=True)
        shapes = [(None, *v.shape) if per_task else v.shape for per_task, v in pairs]
        parameters = _by_name([spec(*shape) for shape in shapes])
        parameters |= {name: spec(None, t.shape[1]) for name, t in self.identity.items()}
        state = _by_name(tf.nest.flatten(self.state), "state")
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


def _named_modulation(affine, dtype):
    """Returns the tensors of a modulation by name; those that there are."""
    return {
        f"{kind}_{block}": tf.cast(tensor, dtype)
        for block, pair in enumerate(affine or ())
        for kind, tensor in zip(("scale", "shift"), pair or (), strict=False)
        if tensor is not None
    }


def _modulation(learner, parameters):
    """Returns the modulation among parameters, None for a learner without."""
    if learner.modulation is None:
        return None
    blocks = range(len(learner.network.modulated_widths))
    pairs = [[parameters.get(f"{kind}_{block}") for kind in ("scale", "shift")] for block in blocks]
    return [None if scale is None else (scale, shift) for scale, shift in pairs]


def _identity(learner):
    """Returns the modulation of one task that changes nothing, by name."""
    if learner.modulation is None:
        return {}
    head = next(iter(learner.modulation.heads.values()))
    affine = learner.modulation(tf.zeros([1, head.kernel.shape[0]], learner.compute_dtype))
    return {
        name: tf.ones_like(tensor) if name.startswith("scale") else tf.zeros_like(tensor)
        for name, tensor in _named_modulation(affine, learner.compute_dtype).items()
    }
