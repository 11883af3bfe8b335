"""Learners from support and query sets, and the recipes that compose them."""

from mmaml_tf.learners.learner import Learner
from mmaml_tf.learners.predictor import Predictor
from mmaml_tf.learners.recipes import MAML, MMAML, LSTMLearner, MultiMAML

__all__ = ["MAML", "MMAML", "LSTMLearner", "Learner", "MultiMAML", "Predictor"]
