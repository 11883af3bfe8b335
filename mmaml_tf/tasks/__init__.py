"""Task distributions. They know nothing of learning."""

from mmaml_tf.tasks.functions import FAMILIES, FunctionTasks, register_family

__all__ = ["FAMILIES", "FunctionTasks", "register_family"]
