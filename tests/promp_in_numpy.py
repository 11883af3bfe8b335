"""The policy, encoder and objective of policy learners, task by task, in NumPy.

Gradients of the inner loop are back-propagated by hand.
"""

from typing import NamedTuple

import numpy as np


class Policy(NamedTuple):
    """The weights of one task's policy: layers of (kernel, bias), and log_std `[A]`."""

    layers: list
    log_std: np.ndarray

    @classmethod
    def of(cls, network, weights=None, task=None):
        """Takes a `GaussianPolicy`'s own weights, or a task's of weights `[T, ...]`."""
        variables = network.trainable_variables
        arrays = [np.asarray(w) for w in (variables if weights is None else weights)]
        if task is not None:
            arrays = [array[task] for array in arrays]
        index = [v is network.log_std for v in variables].index(True)
        log_std = arrays.pop(index)
        return cls(list(zip(arrays[::2], arrays[1::2], strict=True)), log_std)

    def hidden(self, x, scales=None):
        """Returns x and the outputs of the hidden layers; scales are those of one task."""
        outputs = [x]
        for block, (kernel, bias) in enumerate(self.layers[:-1]):
            z = outputs[-1] @ kernel + bias
            outputs.append(np.tanh(z if scales is None else z * scales[block]))
        return outputs

    def means(self, x, scales=None):
        """Returns the means of `[N, O]` observations."""
        kernel, bias = self.layers[-1]
        return self.hidden(x, scales)[-1] @ kernel + bias


class Steps(NamedTuple):
    """One task's steps: the fields of `promp.Experience` without the axis of tasks."""

    observations: np.ndarray
    actions: np.ndarray
    advantages: np.ndarray
    mask: np.ndarray
    means: np.ndarray
    stds: np.ndarray


def log_prob(actions, means, stds):
    """Returns the logarithm of the densities `[N]`."""
    z = (actions - means) / stds
    return -0.5 * np.sum(z**2 + np.log(2 * np.pi) + 2 * np.log(stds), axis=-1)


def ratio(policy, steps, scales=None):
    """Returns the likelihood ratios `[N]`."""
    now = log_prob(steps.actions, policy.means(steps.observations, scales), np.exp(policy.log_std))
    return np.exp(now - log_prob(steps.actions, steps.means, steps.stds))


def mean(values, mask):
    """Returns the mean of the values that count."""
    return sum(v for v, counts in zip(values, mask, strict=True) if counts) / mask.sum()


def adaptation_loss(policy, steps, scales=None):
    """Returns the loss of the inner loop."""
    return -mean(ratio(policy, steps, scales) * steps.advantages, steps.mask)


def clipped_loss(policy, steps, clip, scales=None):
    """Returns the loss of the outer loop: pessimistic for each sign of the advantage."""
    r = ratio(policy, steps, scales)
    gain = np.where(
        steps.advantages > 0, np.minimum(r, 1 + clip), np.maximum(r, 1 - clip)
    )  # fmt: skip
    return -mean(gain * steps.advantages, steps.mask)


def divergence(policy, steps, scales=None):
    """Returns KL(acted, now) of normal distributions in closed form."""
    means, stds = policy.means(steps.observations, scales), np.exp(policy.log_std)
    of_elements = (
        np.log(stds / steps.stds)
        + (steps.stds**2 + (steps.means - means) ** 2) / (2 * stds**2)
        - 0.5
    )
    return mean(of_elements.sum(axis=-1), steps.mask)


def policy_gradient(policy, steps, scales=None):
    """Returns the gradient of `adaptation_loss`, as a `Policy`."""
    hidden = policy.hidden(steps.observations, scales)
    std = np.exp(policy.log_std)
    z = (steps.actions - policy.means(steps.observations, scales)) / std
    weights = -steps.mask * ratio(policy, steps, scales) * steps.advantages / steps.mask.sum()
    delta = weights[:, None] * z / std
    layers = []
    for block in reversed(range(len(policy.layers))):
        kernel, _ = policy.layers[block]
        layers.insert(0, (hidden[block].T @ delta, delta.sum(axis=0)))
        if block:
            delta = (delta @ kernel.T) * (1 - hidden[block] ** 2)
            if scales is not None:
                delta = delta * scales[block - 1]
    return Policy(layers, (weights[:, None] * (z**2 - 1)).sum(axis=0))


def step(policy, gradient, rate):
    """Returns the policy after one step of gradient descent."""
    layers = [
        (kernel - rate * dk, bias - rate * db)
        for (kernel, bias), (dk, db) in zip(policy.layers, gradient.layers, strict=True)
    ]
    return Policy(layers, policy.log_std - rate * gradient.log_std)


def objective(policy, stages, rate, clip, kl_penalty, scales=None):
    """Returns one task's loss of the outer loop.

    Args:
        policy: the initial policy.
        stages: the `Steps` before and after each inner step.
        rate: the inner learning rate.
        clip: see `clipped_loss`.
        kl_penalty: weight of the mean divergence of the policies before the last inner step.
        scales: the modulation, which the first inner step does not see.
    """
    divergences = []
    for number, steps in enumerate(stages[:-1]):
        own = scales if number else None
        divergences.append(divergence(policy, steps, own))
        policy = step(policy, policy_gradient(policy, steps, own), rate)
    return clipped_loss(policy, stages[-1], clip, scales) + kl_penalty * np.mean(divergences)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(kernel, recurrent, bias, sequence):
    """Returns the last state for a sequence `[L, D]`; gates are in the order update, reset, new."""
    units = len(recurrent)
    state = np.zeros(units)
    for x in sequence:
        of_input = x @ kernel + bias
        update, reset = (
            sigmoid(of_input[part] + state @ recurrent[:, part])
            for part in (slice(units), slice(units, 2 * units))
        )
        last = slice(2 * units, None)
        new = np.tanh(of_input[last] + (reset * state) @ recurrent[:, last])
        state = update * state + (1 - update) * new
    return state


def embedding(encoder, observations, actions, rewards):
    """Returns the embedding of one task's rollouts `[R, L, ...]`."""
    of_gru = [np.asarray(v) for v in encoder.gru.trainable_variables]
    dense = [[np.asarray(v) for v in layer.trainable_variables] for layer in encoder.dense]

    def linear(x, layer):
        kernel, bias = dense[layer]
        return x @ kernel + bias

    rollouts = []
    for rollout in zip(observations, actions, rewards, strict=True):
        sequence = [np.concatenate([o, a, [r]]) for o, a, r in zip(*rollout, strict=True)]
        rollouts.append(linear(np.maximum(linear(gru(*of_gru, sequence), 0), 0), 1))
    return linear(np.maximum(linear(np.mean(rollouts, axis=0), 2), 0), 3)


def film_scales(modulation, embedding):
    """Returns the scale of each block of FiLM without shift."""
    heads = [modulation.heads[str(block)] for block in range(len(modulation.kernels))]
    return [1 + embedding @ np.asarray(h.kernel) + np.asarray(h.bias) for h in heads]
