"""Export of policies: a SavedModel that adapts to trajectories and acts, inside the graph.

It needs neither this package nor TF-Agents, and works for any number of tasks and rollouts.
"""

import tensorflow as tf

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
      takes one inner step on whole rollouts of these parameters and returns the next ones.

    Args:
        learner: a built `PolicyLearner`, compiled with the environment it acts in.
        path: directory to write to; a SavedModel that is there is replaced.

    Raises:
        ValueError: if the learner is not built and compiled with an environment, or `path` is
            something else than a SavedModel.
    """
    path = check_exportable(learner, path)
    rollouts = learner.require_rollouts()
    low, high = (tf.constant(bound, tf.float32) for bound in rollouts.action_bounds)
    middle, gain = (high + low) / 2, (high - low) / (2 * rollouts.action_range)
    size, actions, horizon = learner.observation_size, learner.action_size, rollouts.horizon
    identity = _identity(learner)
    module = tf.Module()
    # The graph reads these; the Keras objects that own them stay out of the file.
    module.learned = [v.value for v in learner.variables]

    def initial(tasks_or_mode):
        mode = tasks_or_mode if learner.needs_mode else None
        tasks = tf.size(tasks_or_mode) if learner.needs_mode else tasks_or_mode
        modulation = {name: tf.tile(t, [tasks, 1]) for name, t in identity.items()}
        weights = _by_name(learner.initial_weights(tasks, mode))
        return weights | modulation | {"steps": tf.constant(0)}

    def act(observations, noise, parameters):
        weights, modulation = _weights(parameters), _modulation(learner, parameters)
        means = learner.network.functional_call(weights, observations, modulation)
        action = means + learner.network.standard_deviations(weights)[:, None] * noise
        return {
            "action": action,
            "control": tf.clip_by_value(action * gain + middle, low, high),
        }

    def adapt(observations, actions, rewards, parameters):
        trajectories = Trajectories(observations, actions, rewards, tf.ones_like(rewards))
        weights, modulation = _weights(parameters), _modulation(learner, parameters)
        experience = learner.prepare_experience(trajectories, weights, modulation)
        following = _by_name(learner.take_inner_step(experience, weights, modulation))
        if identity:
            # The first step sets the modulation, the later ones keep it.
            read = _named_modulation(learner.modulate(trajectories))
            later = parameters["steps"] > 0
            following |= {name: tf.where(later, parameters[name], read[name]) for name in identity}
        return following | {"steps": parameters["steps"] + 1}

    def spec(*axes):
        return tf.TensorSpec(axes, tf.float32)

    of_weights = [(None, *v.shape) for v in learner.network.trainable_variables]
    parameters = _by_name([spec(*shape) for shape in of_weights])
    parameters |= {name: spec(None, t.shape[1]) for name, t in identity.items()}
    parameters["steps"] = tf.TensorSpec([], tf.int32)
    trajectories = spec(None, None, horizon, size), spec(None, None, horizon, actions)
    signatures = {
        initial: [tf.TensorSpec([None] if learner.needs_mode else [], tf.int32)],
        act: [spec(None, None, size), spec(None, None, actions), parameters],
        adapt: [*trajectories, spec(None, None, horizon), parameters],
    }
    for function, given in signatures.items():
        compiled = tf.function(function, input_signature=given, autograph=False)
        setattr(module, function.__name__, compiled)
    save_module(module, path)


def _by_name(weights):
    return {f"weight_{i:02d}": weight for i, weight in enumerate(weights)}


def _weights(parameters):
    return [parameters[name] for name in sorted(parameters) if name.startswith("weight_")]


def _named_modulation(affine):
    """Returns the tensors of a modulation by name; those that there are."""
    return {
        f"{kind}_{block}": tensor
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
    affine = learner.modulation(tf.zeros([1, learner.encoder.embedding_size]))
    return {
        name: tf.ones_like(tensor) if name.startswith("scale") else tf.zeros_like(tensor)
        for name, tensor in _named_modulation(affine).items()
    }
