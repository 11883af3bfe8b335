"""Multimodal meta-reinforcement learning. Importing it registers the environments."""

from mmaml_tf.rl import environments
from mmaml_tf.rl.goals import GoalModes, Goals, GoalTasks, HeldOutGoals

__all__ = ["GoalModes", "GoalTasks", "Goals", "HeldOutGoals", "environments"]
