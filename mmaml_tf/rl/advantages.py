"""Returns, a linear baseline of them, and generalised advantages (Schulman et al. 2016)."""

import tensorflow as tf

from mmaml_tf.rl.trajectories import Trajectories

# The published baseline: observations are clipped, time is counted in hundreds of steps.
_LARGEST_OBSERVATION = 10.0
_TIME_UNIT = 100.0


def discounted_sums(values, discount: float):
    """Returns at each step the discounted sum of this and all later values.

    Args:
        values: `[..., L]`.
        discount: factor per step, in [0, 1].

    Returns:
        `[..., L]`.
    """
    steps = tf.range(tf.shape(values)[-1])
    later = tf.cast(steps[:, None] - steps[None], tf.float64)
    # Column t holds the weights of step t's sum.
    powers = tf.pow(tf.constant(discount, tf.float64), tf.maximum(later, 0.0))
    weights = tf.where(later >= 0, powers, 0.0)
    return tf.tensordot(values, tf.cast(weights, values.dtype), axes=1)


def linear_baseline(trajectories: Trajectories, returns, ridge: float = 1e-5):
    """Fits each task's returns by linear features of observation and time.

    The features are the clipped observation, its square, time to the powers 1 to 3, and 1 (Duan
    et al. 2016, appendix); the fit is least squares with a ridge penalty, in double precision,
    over the steps that are not masked.

    Args:
        trajectories: of T tasks.
        returns: `[T, R, L]` discounted returns.
        ridge: the penalty.

    Returns:
        The fitted values at each step, `[T, R, L]`.
    """
    observations, _, _, mask = (tf.cast(part, tf.float64) for part in trajectories)
    clipped = tf.clip_by_value(observations, -_LARGEST_OBSERVATION, _LARGEST_OBSERVATION)
    time = tf.cast(tf.range(tf.shape(observations)[2]), tf.float64) / _TIME_UNIT
    powers = tf.stack([time, time**2, time**3, tf.ones_like(time)], axis=-1)
    powers = tf.broadcast_to(powers, [*tf.unstack(tf.shape(observations)[:3]), 4])
    features = tf.concat([clipped, clipped**2, powers], axis=-1)
    size = features.shape[-1]
    features = tf.reshape(features, [tf.shape(features)[0], -1, size])
    shape = tf.shape(returns)
    targets = tf.reshape(tf.cast(returns, tf.float64), [shape[0], -1, 1])
    weighted = features * tf.reshape(mask, [shape[0], -1, 1])
    gram = tf.matmul(weighted, features, transpose_a=True)
    gram += ridge * tf.eye(size, dtype=tf.float64)
    coefficients = tf.linalg.solve(gram, tf.matmul(weighted, targets, transpose_a=True))
    return tf.cast(tf.reshape(tf.matmul(features, coefficients), shape), returns.dtype)


def generalised_advantages(rewards, values, mask, discount: float, gae_lambda: float):
    """Returns the generalised advantage estimates (Schulman et al. 2016, eq. 16).

    The value after the last step is 0: an episode's fixed end counts as its end, as published.

    Args:
        rewards: `[..., L]`.
        values: `[..., L]` the baseline.
        mask: `[..., L]`, 0 for steps that do not count.
        discount: the discount γ.
        gae_lambda: the λ of the estimate; with 1 it is the discounted return less the value.

    Returns:
        `[..., L]`.
    """
    values = values * mask
    following = tf.concat([values[..., 1:], tf.zeros_like(values[..., :1])], axis=-1)
    residuals = (rewards + discount * following - values) * mask
    return discounted_sums(residuals, discount * gae_lambda) * mask


def normalised(advantages, mask):
    """Shifts and scales each task's advantages `[T, R, L]` to mean 0 and deviation 1."""
    mean = masked_mean(advantages, mask)[:, None, None]
    centred = (advantages - mean) * mask
    deviation = tf.sqrt(masked_mean(centred**2, mask))[:, None, None]
    return centred / (deviation + 1e-8)


def masked_mean(values, mask):
    """Returns each task's mean `[T]` of `[T, ...]` values over the steps that count."""
    axes = list(range(1, values.shape.rank))
    count = tf.maximum(tf.reduce_sum(mask, axis=axes), 1.0)
    return tf.reduce_sum(values * mask, axis=axes) / count
