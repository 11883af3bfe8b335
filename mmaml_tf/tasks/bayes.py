"""The Bayes-optimal predictor of function tasks: the lowest error that anyone can reach."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmaml_tf.tasks.families import FAMILIES, Draw
from mmaml_tf.tasks.functions import FunctionTasks
from mmaml_tf.tasks.held_out import HeldOut

# Values of one chunk of tasks × particles × points that are in memory at once.
_CHUNK_VALUES = 2**25


class Posterior(NamedTuple):
    """What the particles of each family say of each task, before families are mixed.

    Attributes:
        log_evidence: `[F, N]` logarithm of the mean likelihood of the support set.
        mean: `[F, N, Q]` posterior mean of the function at the query points.
        effective: `[F, N]` effective sample size, (Σw)² / Σw².
        families: names of the F families.
    """

    log_evidence: np.ndarray
    mean: np.ndarray
    effective: np.ndarray
    families: tuple[str, ...]

    def predict(self, modes) -> tuple[np.ndarray, np.ndarray]:
        """Mixes some families with equal prior probability.

        Args:
            modes: names of the families in the mixture.

        Returns:
            Posterior means `[N, Q]` and effective sample sizes `[N]` of the mixture.
        """
        rows = [self.families.index(mode) for mode in modes]
        log_evidence = self.log_evidence[rows]
        weights = np.exp(log_evidence - log_evidence.max(axis=0))
        weights /= weights.sum(axis=0)
        effective = 1.0 / np.sum(weights**2 / self.effective[rows], axis=0)
        return np.einsum("fn,fnq->nq", weights, self.mean[rows]), effective


def posterior(tasks: FunctionTasks, held_out: HeldOut, particles: int, seed: int) -> Posterior:
    """Computes posteriors by importance sampling with the prior as proposal.

    The prior is the task distribution itself and the likelihood its Gaussian noise, so that the
    posterior mean is the best prediction under squared error. Too few particles make the
    estimate worse than optimal, never better than it in expectation; the effective sample size
    tells how far to trust it.

    Args:
        tasks: the known distribution; its modes are the families.
        held_out: N tasks with scalar x and y.
        particles: functions drawn from each family.
        seed: seed of these draws.

    Raises:
        ValueError: without noise, where the likelihood is degenerate.
    """
    if tasks.noise <= 0:
        raise ValueError("the likelihood is degenerate without noise; use tasks with noise > 0.")
    episodes = held_out.episodes
    count = len(episodes.support_x)
    points = tasks.support + episodes.query_x.shape[1]
    chunk = max(1, min(count, _CHUNK_VALUES // (particles * points)))
    results = []
    for index, family in enumerate(tasks.modes):
        key = tf.constant([seed, index], tf.int64)
        chunk_posterior = _chunk_posterior(FAMILIES[family], key, particles, tasks.noise)
        parts = []
        for start in range(0, count, chunk):
            # The last chunk is shifted back to full size: one shape, one compilation.
            rows = slice(min(start, count - chunk), min(start, count - chunk) + chunk)
            part = chunk_posterior(
                episodes.support_x[rows, :, 0],
                episodes.support_y[rows, :, 0],
                episodes.query_x[rows, :, 0],
            )
            new = rows.start + chunk - start
            parts.append([a.numpy()[chunk - new :] for a in part])
        results.append([np.concatenate(arrays) for arrays in zip(*parts, strict=True)])
    return Posterior(*(np.stack(a) for a in zip(*results, strict=True)), tasks.modes)


def _chunk_posterior(family, key, particles, noise):
    @tf.function(jit_compile=True, autograph=False)
    def compute(support_x, support_y, query_x):
        function = family(Draw(key, particles))

        def values(x):  # [B, P] -> [particles, B, P]
            flat = function(tf.reshape(x, [1, -1, 1]))
            return tf.reshape(flat, [particles, *x.shape])

        errors = (values(support_x) - support_y) / noise
        log_likelihood = -0.5 * tf.reduce_sum(errors**2, axis=2)
        weights = tf.nn.softmax(log_likelihood, axis=0)
        mean = tf.einsum("pb,pbq->bq", weights, values(query_x))
        log_evidence = tf.reduce_logsumexp(log_likelihood, axis=0) - np.log(particles)
        return log_evidence, mean, 1.0 / tf.reduce_sum(weights**2, axis=0)

    return compute
