"""The surface of `keras.Model` for batches of tasks: every method works, or names another."""

from os import PathLike
from typing import Any

import keras
import numpy as np

from mmaml_tf.arguments import whole_number
from mmaml_tf.checks import as_value_errors
from mmaml_tf.distribution import Replicas, check_outside
from mmaml_tf.episodes import is_shared
from mmaml_tf.keras_internals import optimized_variables, run_on_one_device
from mmaml_tf.learners.batches import Batches
from mmaml_tf.nonfinite import StopOnNonFinite

# Keras's default of an argument that is refused.
_NO_SPLIT = "validation_split", 0.0


class TaskModel(Batches, keras.Model):
    """A Keras model whose data are batches of tasks.

    `fit`, `evaluate` and `predict` take a batch, or a `tf.data.Dataset` of batches; see `Batches`.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        #: the devices that share the tasks of a batch in training
        self.replicas = Replicas()
        run_on_one_device(self)

    def build_for(self, batch: Any) -> None:
        """Creates all weights for data like these (tensors, arrays or specs)."""
        raise NotImplementedError

    def traced_settings(self) -> tuple:
        """Returns what graphs are traced for: what trains, and settings that may be set anew."""
        return tuple(id(v) for v in self.trainable_variables)

    def refresh(self) -> None:
        """Traces graphs anew where layers were frozen or settings changed since."""
        settings = self.traced_settings()
        if settings != self.__dict__.get("_traced_for"):
            if "_traced_for" in self.__dict__:
                self.renew_graphs()
            self._traced_for = settings

    def renew_graphs(self) -> None:
        """Forgets the graphs that were traced."""
        self.train_function = self.test_function = self.predict_function = None

    def require_targets(self, batch: Any) -> None:
        """Raises ValueError for a batch, or specs, that cannot be trained or measured on."""

    # -- before any work -----------------------------------------------------------------------

    def _ready(self, batch):
        """Builds the learner and its optimizer for a batch or its specs."""
        check_outside()
        if not self.compiled:
            raise ValueError("the learner is not compiled; call compile(optimizer, loss) first.")
        self.build_for(batch)
        if not self.trainable_variables:
            raise ValueError(
                f"{self.name} has no trainable weights: it, or all of its parts, are frozen. Set "
                "trainable = True on what is to be trained."
            )
        self.refresh()

    def build_optimizer(self) -> None:
        """Creates the optimizer's variables, once."""
        if not self.optimizer.built:
            with self.replicas.scope():
                self.optimizer.build(self.trainable_variables)

    def _check_divides(self, batch):
        """Raises ValueError for a batch that replicas cannot share, or a learner that they cannot.

        What an encoder changes in training depends on all tasks of a batch.
        """
        self.replicas.check_divides(batch[0].shape[0], is_shared(batch.origin))
        if self.replicas.count > 1 and (changing := [v.path for v in self.encoder_state]):
            raise ValueError(
                f"the encoder changes {changing} in training, by all tasks of a batch, which "
                f"{self.replicas.count} replicas do not see; leave random layers and moving "
                "averages out of it, or train on one device."
            )

    def _ready_to_train(self, batch):
        self._ready(batch)
        self._check_divides(self.as_batch(batch))
        self.build_optimizer()
        known = {id(v) for v in optimized_variables(self.optimizer)}
        if not known.issuperset(map(id, self.trainable_variables)):
            raise ValueError(
                "the optimizer was built for other weights, before some were released or for "
                "another learner; call compile again, with an optimizer of this learner's own."
            )
        self.guard.resume()

    # -- Keras's methods ------------------------------------------------------------------------

    def save(self, filepath: str | PathLike, *args, **kwargs) -> None:
        """Writes the learner to a `.keras` file; see `keras.Model.save`.

        Raises:
            ValueError: for a file of HDF5, which cannot hold the parts of a learner.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                f"{filepath}: HDF5 cannot hold a learner; give a path that ends in .keras, or save "
                "weights alone with save_weights."
            )
        super().save(filepath, *args, **kwargs)

    def fit(
        self,
        x: Any = None,
        y: None = None,
        batch_size: None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | None = None,
        class_weight: None = None,
        sample_weight: None = None,
        **kwargs,
    ) -> keras.callbacks.History:
        """Trains on batches of tasks; see `keras.Model.fit`.

        Args:
            x: a `tf.data.Dataset` of batches, or one batch.
            y: refused, because targets are part of a batch; so are `batch_size`,
                `validation_split`, `shuffle`, `class_weight` and `sample_weight`.
            batch_size: see y.
            epochs: see `keras.Model.fit`.
            verbose: see `keras.Model.fit`.
            callbacks: Keras callbacks.
            validation_split: see y.
            validation_data: like x; an endless one needs `validation_steps`.
            shuffle: see y.
            class_weight: see y.
            sample_weight: see y.
            **kwargs: see `keras.Model.fit`; an endless dataset needs `steps_per_epoch`.

        Returns:
            A Keras `History`.

        Raises:
            ValueError: for data that are no batches of tasks, labels out of range or values that
                are not finite, an argument that has no meaning here, or a learner that is not
                compiled.
            NonFiniteError: when a loss or meta-gradient is not finite (see `on_nonfinite`).
        """
        given = kwargs.pop("validation_batch_size", None)
        _refuse("fit", y=y, batch_size=batch_size, validation_batch_size=given)
        _refuse("fit", validation_split=validation_split)
        epochs = whole_number("epochs", epochs, least=0)
        _check_counts(kwargs, "steps_per_epoch", "validation_steps")
        if "initial_epoch" in kwargs:
            kwargs["initial_epoch"] = whole_number("initial_epoch", kwargs["initial_epoch"], 0)
        if not isinstance(kwargs.get("validation_freq", 1), (list, tuple, set)):
            _check_counts(kwargs, "validation_freq")
        _refuse("fit", shuffle=shuffle, class_weight=class_weight, sample_weight=sample_weight)
        data = self._as_dataset(x, "x", kwargs.get("steps_per_epoch"), "steps_per_epoch")
        if validation_data is not None:
            steps = kwargs.get("validation_steps")
            kwargs["validation_data"] = self._as_dataset(
                validation_data, "validation_data", steps, "validation_steps"
            )
        self.require_targets(data.element_spec)
        self._ready_to_train(data.element_spec)
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
        if wrong := [c for c in callbacks if not isinstance(c, keras.callbacks.Callback)]:
            raise ValueError(f"callbacks has {wrong[0]!r}; expected keras.callbacks.Callback.")
        callbacks = [StopOnNonFinite(), *callbacks]
        with as_value_errors():
            history = super().fit(
                data, epochs=epochs, verbose=verbose, callbacks=callbacks, shuffle=False, **kwargs
            )
        if not history.history and epochs > kwargs.get("initial_epoch", 0):
            raise ValueError("x gave no batch to train on.")
        return history

    def evaluate(
        self,
        x: Any = None,
        y: None = None,
        batch_size: None = None,
        sample_weight: None = None,
        **kwargs,
    ) -> float | list | dict:
        """Returns loss and metrics after adaptation; see `keras.Model.evaluate`.

        Args:
            x: a `tf.data.Dataset` of batches, or one batch.
            y: refused, like `batch_size` and `sample_weight`.
            batch_size: see y.
            sample_weight: see y.
            **kwargs: see `keras.Model.evaluate`; an endless dataset needs `steps`.

        Raises:
            ValueError: see `fit`.
        """
        _refuse("evaluate", y=y, batch_size=batch_size, sample_weight=sample_weight)
        _check_counts(kwargs, "steps")
        data = self._as_dataset(x, "x", kwargs.get("steps"), "steps")
        self.require_targets(data.element_spec)
        self._ready(data.element_spec)
        with as_value_errors():
            return super().evaluate(data, **kwargs)

    def predict(self, x: Any, batch_size: None = None, **kwargs) -> np.ndarray:
        """Returns predictions for the queries of batches of tasks; see `keras.Model.predict`.

        Args:
            x: a `tf.data.Dataset` of batches, or one batch.
            batch_size: refused.
            **kwargs: see `keras.Model.predict`; an endless dataset needs `steps`.

        Returns:
            `[T, Q, ...]`, the tasks of all batches.

        Raises:
            ValueError: see `fit`.
        """
        _refuse("predict", batch_size=batch_size)
        _check_counts(kwargs, "steps")
        data = self._as_dataset(x, "x", kwargs.get("steps"), "steps")
        self._ready(data.element_spec)
        with as_value_errors():
            return super().predict(data, **kwargs)

    def train_on_batch(
        self,
        x: Any,
        y: None = None,
        sample_weight: None = None,
        class_weight: None = None,
        return_dict: bool = False,
    ) -> float | list | dict:
        """Takes one outer step on a batch of tasks; see `keras.Model.train_on_batch`."""
        _refuse("train_on_batch", y=y, sample_weight=sample_weight, class_weight=class_weight)
        batch = self.as_batch(x)
        self.require_targets(batch)
        self._ready_to_train(batch)
        with as_value_errors():
            logs = super().train_on_batch(batch, return_dict=return_dict)
        self.guard.check(self.modes)
        return logs

    def test_on_batch(
        self, x: Any, y: None = None, sample_weight: None = None, return_dict: bool = False
    ) -> float | list | dict:
        """Returns loss and metrics on a batch of tasks; see `keras.Model.test_on_batch`."""
        _refuse("test_on_batch", y=y, sample_weight=sample_weight)
        batch = self.as_batch(x)
        self.require_targets(batch)
        self._ready(batch)
        with as_value_errors():
            return super().test_on_batch(batch, return_dict=return_dict)

    def predict_on_batch(self, x: Any) -> np.ndarray:
        """Returns predictions for the queries of a batch of tasks, `[T, Q, ...]`."""
        batch = self.as_batch(x)
        self._ready(batch)
        with as_value_errors():
            return super().predict_on_batch(batch)


def _check_counts(given, *names):
    """Makes whole numbers of counts that were given."""
    for name in names:
        if given.get(name) is not None:
            given[name] = whole_number(name, given[name])


def _refuse(method, **given):
    for name, value in given.items():
        given_by_default = value is None or value is False or (name, value) == _NO_SPLIT
        if not given_by_default:
            raise ValueError(
                f"{method} got {name}, which has no meaning for batches of tasks: inputs, targets "
                "and modes are the fields of a batch, whose size and order are the dataset's."
            )
