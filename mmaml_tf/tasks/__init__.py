"""Task distributions. They know nothing of learning."""

from mmaml_tf.tasks.functions import FAMILIES, FunctionTasks, register_family
from mmaml_tf.tasks.images import ImageMode, ImageTasks

__all__ = ["FAMILIES", "FunctionTasks", "ImageMode", "ImageTasks", "register_family"]
