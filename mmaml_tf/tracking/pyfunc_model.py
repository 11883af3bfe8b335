"""MLflow "models from code" script: an exported SavedModel as a pyfunc.

MLflow copies this file into the logged model and runs the copy when the model is loaded, so it
imports nothing of this package.
"""

import mlflow
import numpy as np
import tensorflow as tf

_INPUTS = ("support_x", "support_y", "query_x")


# MLflow warns of a subclass's own `predict` without a type hint that it knows, and it knows none
# for a mapping of arrays; an inherited `predict` it leaves alone.
class _Predictor:
    """The methods of `SavedModelPredictor`."""

    def load_context(self, context) -> None:
        """Loads the SavedModel."""
        self.loaded = tf.saved_model.load(context.artifacts["saved_model"])

    def predict(self, context, model_input, params=None) -> np.ndarray:
        """Adapts to each task's support set and predicts its query points.

        Args:
            context: unused; `load_context` has read it.
            model_input: a mapping with `support_x` [T, K, ...], `support_y` [T, K, ...],
                `query_x` [T, Q, ...] and, if the model takes the modes, `mode` [T].
            params: unused.

        Returns:
            Predictions [T, Q, ...].

        Raises:
            ValueError: naming the inputs that are missing.
        """
        del context, params
        missing = [name for name in _INPUTS if name not in model_input]
        if missing:
            raise ValueError(f"inputs {missing} are missing; got {sorted(model_input)}.")
        arguments = [_tensor(model_input[name]) for name in _INPUTS]
        if "mode" in model_input:
            arguments.append(tf.cast(_tensor(model_input["mode"]), tf.int32))
        return self.loaded.adapt_and_predict(*arguments).numpy()


def _tensor(value):
    value = np.asarray(value)
    if value.dtype.hasobject:  # A data frame's single row holds each array as one object.
        value = value.item()
    return tf.convert_to_tensor(value)


class SavedModelPredictor(_Predictor, mlflow.pyfunc.PythonModel):
    """Serves `adapt_and_predict` of the SavedModel that is the artifact `saved_model`."""


mlflow.models.set_model(SavedModelPredictor())
