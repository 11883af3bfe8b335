"""Task distributions. They know nothing of learning."""

from mmaml_tf.tasks.class_splits import ClassSplit, class_split
from mmaml_tf.tasks.functions import FAMILIES, FunctionTasks, register_family
from mmaml_tf.tasks.images import ImageMode, ImageTasks

__all__ = [
    "FAMILIES",
    "ClassSplit",
    "FunctionTasks",
    "ImageMode",
    "ImageTasks",
    "class_split",
    "register_family",
]
