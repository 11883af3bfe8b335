"""Reading batches of tasks in the forms that a user may give them in."""

from typing import Any

import tensorflow as tf

from mmaml_tf.checks import as_tensor
from mmaml_tf.episodes import is_absent

# Datasets that count steps have a number of elements that nobody waits for.
_ENDLESS = 10**12


class Batches:
    """What a model takes as a batch of tasks: a `batch_type`, or its fields.

    The fields come as a tuple or a dictionary; several batches as a `tf.data.Dataset`.
    """

    #: the named tuple that a batch of tasks is
    batch_type: type = None
    #: how many of its fields a batch needs
    batch_fields = 1

    def as_batch(self, data: Any, what: str = "the batch") -> Any:
        """Returns a batch of tasks as a `batch_type` of tensors or specs.

        Raises:
            ValueError: for anything else.
        """
        kind = self.batch_type
        # Keras's methods for one batch hand on (x, y, sample_weight).
        if type(data) is tuple and data and isinstance(data[0], kind):
            data = data[0]
        names = kind._fields
        if isinstance(data, dict) and set(names[: self.batch_fields]) <= set(data) <= set(names):
            data = kind(**data)
        if type(data) in (tuple, list) and self.batch_fields <= len(data) <= len(names):
            data = kind(*data)
        if not isinstance(data, kind):
            raise ValueError(
                f"{what} is a {type(data).__name__}; expected mmaml_tf {kind.__name__}"
                f"({', '.join(names)}), a tuple or dictionary of these, or a tf.data.Dataset of "
                "them. To adapt to a single task there is learner.adapt."
            )
        return kind(*(_as_part(name, part) for name, part in data._asdict().items()))

    def _as_dataset(self, data, what, steps, steps_name):
        """Returns a dataset of batches; refuses an endless one without a number of steps."""
        if not isinstance(data, tf.data.Dataset):
            return tf.data.Dataset.from_tensors(self.as_batch(data, what))
        cardinality = int(data.cardinality())
        if cardinality == 0:
            raise ValueError(f"{what} is a dataset without a single batch.")
        endless = cardinality == tf.data.INFINITE_CARDINALITY or cardinality > _ENDLESS
        if endless and steps is None:
            raise ValueError(f"{what} is an endless dataset; give {steps_name}, a number of steps.")
        if not isinstance(data.element_spec, self.batch_type):
            self.as_batch(data.element_spec, f"an element of {what}")
            data = data.map(lambda *parts: self._from_parts(parts))
        return data

    def _from_parts(self, parts):
        return (
            self.batch_type(**parts[0]) if isinstance(parts[0], dict) else self.batch_type(*parts)
        )


def _as_part(name, part):
    if isinstance(part, (tf.RaggedTensorSpec, tf.SparseTensorSpec)):
        raise ValueError(
            f"{name} is ragged or sparse; all tasks of a batch need as many points as each other. "
            "Draw batches with mmaml_tf.tasks.ArrayTasks, or batch tasks of one size."
        )
    if is_absent(part):
        return None
    if isinstance(part, tf.TypeSpec):
        return part
    whole = name in ("mode", "origin")
    return as_tensor(name, part, *([" Give whole numbers, such as indices."] if whole else []))
