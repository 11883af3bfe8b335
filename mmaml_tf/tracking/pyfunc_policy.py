"""MLflow "models from code" script: an exported policy as a pyfunc.

MLflow copies this file into the logged model and runs the copy when the model is loaded, so it
imports nothing of this package.
"""

import mlflow
import numpy as np
import tensorflow as tf

_ROLLOUTS = ("observations", "actions", "rewards")
_INPUTS = (*_ROLLOUTS, "acting_on")


# MLflow warns of a subclass's own `predict` without a type hint that it knows, and it knows none
# for a mapping of arrays; an inherited `predict` it leaves alone.
class _Policy:
    """The methods of `SavedPolicy`."""

    def load_context(self, context) -> None:
        """Loads the SavedModel."""
        self.loaded = tf.saved_model.load(context.artifacts["saved_model"])

    def predict(self, context, model_input, params=None) -> np.ndarray:
        """Takes an inner step on each set of recorded rollouts, then acts by the mean.

        Args:
            context: unused; `load_context` has read it.
            model_input: a mapping with the rollouts of S inner steps, `observations`
                [T, S, R, L, O], `actions` [T, S, R, L, A] and `rewards` [T, S, R, L], of which
                those of step s were drawn with what step s - 1 gave; S is 0 for a policy before
                its first inner step. `acting_on` [T, N, O] are the observations to act on. A
                bank of policies takes `mode` [T] too.
            params: unused.

        Returns:
            Actions [T, N, A] within the bounds of the environment.

        Raises:
            ValueError: naming the inputs that are missing.
        """
        del context, params
        missing = [name for name in _INPUTS if name not in model_input]
        if missing:
            raise ValueError(f"inputs {missing} are missing; got {sorted(model_input)}.")
        *rollouts, acting_on = (np.asarray(model_input[name], np.float32) for name in _INPUTS)
        tasks = np.int32(model_input.get("mode", len(acting_on)))
        parameters = self.loaded.initial(tf.constant(tasks))
        for step in range(rollouts[0].shape[1]):
            of_step = (tf.constant(part[:, step]) for part in rollouts)
            parameters = self.loaded.adapt(*of_step, parameters)
        no_noise = tf.zeros([*acting_on.shape[:2], rollouts[1].shape[-1]])
        return self.loaded.act(tf.constant(acting_on), no_noise, parameters)["control"].numpy()


class SavedPolicy(_Policy, mlflow.pyfunc.PythonModel):
    """Serves `initial`, `adapt` and `act` of the SavedModel that is the artifact `saved_model`."""


mlflow.models.set_model(SavedPolicy())
