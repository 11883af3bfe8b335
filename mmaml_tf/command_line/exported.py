"""What commands read of an exported model: the specs in its signature say all they need."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mmaml_tf.command_line.errors import InputError


class Exported(NamedTuple):
    """A SavedModel that `learner.export()` wrote.

    Attributes:
        path: where it lies.
        loaded: what TensorFlow loaded.
        inputs: the `TensorSpec` of each argument of `adapt_and_predict`, by name.
        outputs: number of values or classes that it predicts for a point.
    """

    path: str
    loaded: object
    inputs: dict[str, tf.TensorSpec]
    outputs: int

    @property
    def predicts_classes(self) -> bool:
        """Whether it is a classifier: its targets are class labels, hence integers."""
        return self.inputs["support_y"].dtype.is_integer

    def predict(self, *tensors) -> np.ndarray:
        """Returns what `adapt_and_predict` does for one task, given without the axis of tasks.

        Raises:
            InputError: if the model refuses them.
        """
        try:
            (predictions,) = self.loaded.adapt_and_predict(*(np.stack([t]) for t in tensors))
        except tf.errors.InvalidArgumentError as error:
            raise InputError(f"{self.path} refuses these inputs: {error.message}") from None
        return predictions.numpy()


def load(path: str) -> Exported:
    """Loads an exported model.

    Raises:
        InputError: if there is none at `path`.
    """
    if not (Path(path) / "saved_model.pb").exists():
        raise InputError(f"{path} is no SavedModel; learner.export(path) writes one.")
    try:
        loaded = tf.saved_model.load(path)
        if hasattr(loaded, "act"):
            raise InputError(
                f"{path} is a policy, which acts in an environment; examples/drive_policy.py "
                "shows how."
            )
        signature = loaded.signatures["adapt_and_predict"]
        inputs = signature.structured_input_signature[1]
        (output,) = signature.structured_outputs.values()
        return Exported(path, loaded, inputs, output.shape[-1])
    except (OSError, KeyError, tf.errors.OpError) as error:
        raise InputError(
            f"{path} is no model that learner.export(path) wrote, or is damaged: {error}"
        ) from None
