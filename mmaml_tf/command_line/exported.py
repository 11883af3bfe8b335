"""What commands read of an exported model: the specs in its signature say all they need."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmaml_tf.command_line.errors import InputError

_FILE = "saved_model.pb"


class Exported(NamedTuple):
    """A SavedModel that `learner.export()` wrote.

    Attributes:
        path: where it lies.
        loaded: what TensorFlow loaded.
        inputs: the `TensorSpec` of each argument of `adapt_and_predict`, by name.
        outputs: number of values or classes that it predicts for a point.
    """

    path: Path
    loaded: Any
    inputs: dict[str, Any]
    outputs: int

    @property
    def predicts_classes(self) -> bool:
        """Whether it is a classifier: its targets are class labels, hence integers."""
        return self.inputs["support_y"].dtype.is_integer

    def dtype(self, name: str) -> np.dtype:
        """Returns the dtype of one of the inputs."""
        return np.dtype(self.inputs[name].dtype.as_numpy_dtype)

    def predict(self, **inputs) -> np.ndarray:
        """Returns what `adapt_and_predict` does for one task.

        Args:
            inputs: the model's inputs by name, without the axis of tasks.

        Raises:
            InputError: if the model refuses them.
        """
        import tensorflow as tf

        tensors = {name: np.asarray(inputs[name], self.dtype(name))[None] for name in self.inputs}
        try:
            (predictions,) = self.loaded.adapt_and_predict(*tensors.values())
        except tf.errors.OpError as error:
            raise InputError(f"{self.path} refuses these inputs: {_reason(error)}") from None
        return predictions.numpy()


def load(path: str) -> Exported:
    """Loads an exported model.

    Args:
        path: the SavedModel, the folder that holds it alone, or its file saved_model.pb.

    Raises:
        InputError: if there is none at `path`.
    """
    path = _find(Path(path).expanduser())
    # What is no model is refused before TensorFlow is imported, which takes seconds.
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
        if hasattr(loaded, "act"):
            raise InputError(
                f"{path} is a policy, which acts in an environment; examples/drive_policy.py "
                "shows how."
            )
        signature = loaded.signatures["adapt_and_predict"]
        inputs = signature.structured_input_signature[1]
        (output,) = signature.structured_outputs.values()
        order = ("support_x", "support_y", "query_x", "mode")
        inputs = {name: inputs[name] for name in order if name in inputs}
        return Exported(path, loaded, inputs, output.shape[-1])
    except (OSError, KeyError, tf.errors.OpError) as error:
        raise InputError(
            f"{path} is no model that learner.export(path) wrote, or is damaged: {error}"
        ) from None


def _reason(error):
    """Returns what an assertion in the graph says, without where in the graph it is."""
    if said := re.search(r"assertion failed: \[(.*?)\] \[", error.message):
        return said[1].replace("\\'", "'")
    return " ".join(error.message.split())


def _find(path):
    """Returns the SavedModel that a path means."""
    if path.name == _FILE and path.is_file():
        return path.parent
    if (path / _FILE).is_file():
        return path
    if not path.exists():
        why = "there is nothing of that name"
    elif path.is_file():
        why = "a file of Keras" if path.suffix in (".keras", ".h5") else "a file"
    else:
        found = sorted(file.parent for file in path.glob(f"*/{_FILE}"))
        if len(found) == 1:
            return found[0]
        why = f"it holds {', '.join(model.name for model in found) or 'none'}"
    raise InputError(f"{path} is no SavedModel: {why}; learner.export(path) writes one.")
