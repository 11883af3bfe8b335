"""Task distributions. They know nothing of learning."""

from mmaml_tf.tasks.arrays import ArrayTasks
from mmaml_tf.tasks.augmentation import Augmentation
from mmaml_tf.tasks.class_splits import ClassSplit, class_split
from mmaml_tf.tasks.families import FAMILIES, register_family
from mmaml_tf.tasks.functions import FunctionTasks
from mmaml_tf.tasks.image_modes import ImageMode
from mmaml_tf.tasks.images import ImageTasks

__all__ = [
    "FAMILIES",
    "ArrayTasks",
    "Augmentation",
    "ClassSplit",
    "FunctionTasks",
    "ImageMode",
    "ImageTasks",
    "class_split",
    "register_family",
]
