"""Experiment tracking with MLflow."""

from mmaml_tf.tracking.tracker import Tracker

__all__ = ["Tracker"]
