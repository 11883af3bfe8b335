"""The objectives of ProMP: proximal meta-policy search (Rothfuss et al. 2019).

Every loss is one number per task, a mean over the steps of its rollouts that count.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from mmaml_tf.rl.advantages import masked_mean
from mmaml_tf.rl.policies import normal


class Experience(NamedTuple):
    """What the objectives need of T tasks' rollouts before or after one inner step.

    N is the number of steps of all rollouts of a task, R·L.

    Attributes:
        observations: `[T, N, O]`.
        actions: `[T, N, A]`.
        advantages: `[T, N]`, normalised.
        mask: `[T, N]`, 0 for steps that do not count.
        means: `[T, N, A]` means of the policy that acted.
        stds: `[T, A]` standard deviations of the policy that acted.
    """

    observations: Any
    actions: Any
    advantages: Any
    mask: Any
    means: Any
    stds: Any


def likelihood_ratio(policy, experience: Experience):
    """Returns how much likelier than when they were taken the actions are now, `[T, N]`.

    Args:
        policy: the present distribution of actions, see `GaussianPolicy.distribution`.
        experience: of the policy that acted.
    """
    acted = normal(experience.means, experience.stds).log_prob(experience.actions)
    return tf.exp(policy.log_prob(experience.actions) - acted)


def adaptation_loss(policy, experience: Experience):
    """Returns the inner loop's loss `[T]`, the negative likelihood-ratio objective.

    Its gradient at the policy that acted is the policy gradient; through that gradient the outer
    one accounts for the change of what is sampled (Rothfuss et al. 2019, section 5, J^LR).
    """
    ratio = likelihood_ratio(policy, experience)
    return -masked_mean(ratio * experience.advantages, experience.mask)


def clipped_loss(policy, experience: Experience, clip: float):
    """Returns the outer loop's loss `[T]`, PPO's clipped objective negated.

    Args:
        policy: the present distribution of actions.
        experience: of the adapted policy that acted.
        clip: how far from 1 the likelihood ratio counts (Rothfuss et al. 2019, eq. 10).
    """
    ratio = likelihood_ratio(policy, experience)
    bounded = tf.clip_by_value(ratio, 1.0 - clip, 1.0 + clip)
    objective = tf.minimum(ratio * experience.advantages, bounded * experience.advantages)
    return -masked_mean(objective, experience.mask)


def divergence(policy, experience: Experience):
    """Returns the KL divergence `[T]` of the present policy from the one that acted."""
    acted = normal(experience.means, experience.stds)
    return masked_mean(acted.kl_divergence(policy), experience.mask)
