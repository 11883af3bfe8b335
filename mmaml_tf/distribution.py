"""The devices that share the tasks of each batch, on one host or on several.

This is the only file that knows `tf.distribute`. A learner made in the scope of a strategy works
outside of it: there, TensorFlow reads a mirrored variable from this host's first device and assigns
it on all of them, so that optimizers, metrics and Keras's own loops see one device. Only `run`
enters the replicas.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from mmaml_tf.keras_internals import set_tensorflow_variable, strategy_of

_SUPPORTED = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)


class Replicas:
    """The replicas of the strategy in whose scope this is made, or the one device without one.

    Of T tasks, replica p of N works on the tasks p, p + N, p + 2N, ..., so that each has its share
    of every mode. The tasks of a host follow the same rule.

    Attributes:
        count: number of replicas N, on all hosts.
        here: number of replicas on this host.
        hosts: number of hosts.
        host: number of this host, from 0; host 0 writes what all hosts know.

    Raises:
        ValueError: under a strategy that is not supported.
    """

    def __init__(self):
        _check_keras()
        self.strategy = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
        self.count = self.here = self.hosts = 1
        self.host = 0
        if self.strategy is None:
            return
        if not isinstance(self.strategy, _SUPPORTED):
            raise ValueError(
                f"a learner cannot be made under {type(self.strategy).__name__}; use "
                "tf.distribute.MirroredStrategy for the GPUs of one host, or "
                "MultiWorkerMirroredStrategy for several hosts."
            )
        self.count = self.strategy.num_replicas_in_sync
        self.here = len(self.strategy.extended.worker_devices)
        self.hosts = self.count // self.here
        if self.hosts > 1:
            resolver = self.strategy.cluster_resolver
            chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
            self.host = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)

    def keep_local(self, metrics) -> None:
        """Makes metrics ones of this host's first device, on which they are updated.

        Those made in a scope would be summed over all replicas whenever they are read.
        """
        for metric in metrics:
            for variable in metric.variables:
                if isinstance(variable.value, tf.distribute.DistributedValues):
                    self.check_variables([variable])
                    first, *_ = self.strategy.experimental_local_results(variable.value)
                    set_tensorflow_variable(variable, first)

    def scope(self):
        """Returns the strategy's scope, in which variables are made."""
        return (self.strategy or tf.distribute.get_strategy()).scope()

    # -- checks -------------------------------------------------------------------------------

    def check_own(self) -> None:
        """Raises ValueError inside the scope of another strategy than the learner's own."""
        _check_keras()
        if tf.distribute.has_strategy() and tf.distribute.get_strategy() is not self.strategy:
            raise ValueError(
                "this learner was made "
                + ("under another strategy" if self.strategy else "outside of strategy.scope()")
                + "; make, compile and load it under one and the same strategy."
            )

    def check_optimizer(self, optimizer) -> None:
        """Raises ValueError for an optimizer that was made under another strategy."""
        strategy = self.strategy or tf.distribute.get_strategy()
        for part in (optimizer, getattr(optimizer, "inner_optimizer", None)):
            if part is not None and strategy_of(part) is not strategy:
                raise ValueError(
                    "the optimizer was not made under the learner's strategy; make both in the "
                    "same strategy.scope(), or both outside of any."
                )

    def check_variables(self, variables) -> None:
        """Raises ValueError for variables that were not made under this strategy."""
        strategy = self.strategy or tf.distribute.get_strategy()
        created_here = strategy.extended.variable_created_in_scope
        if other := [v.path for v in variables if not created_here(v.value)]:
            raise ValueError(
                f"{other[0]} was not made under the learner's strategy; make network, encoder and "
                "learner in the same strategy.scope(), or all outside of any."
            )

    def assert_share(self, share):
        """Returns an assertion for a graph that a share `[2]`, (i, n), is this host's."""
        message = (
            f"a batch is part i of n, and this is host {self.host} of {self.hosts}; give each host "
            "its own: tasks.dataset(..., shard=(host, hosts))."
        )
        return tf.debugging.assert_equal(
            share, tf.cast([self.host, self.hosts], share.dtype), message
        )

    def check_divides(self, tasks: int | None, shared: bool = False) -> None:
        """Raises ValueError for a number of tasks that replicas cannot share evenly.

        Args:
            tasks: number of tasks of a batch; None where it is not known.
            shared: whether the batch is this host's part of a larger one.
        """
        parts = self.here if shared else self.count
        if tasks is not None and tasks % parts:
            raise ValueError(
                f"a batch of {tasks} tasks cannot be divided evenly among {parts} replicas; give "
                f"a multiple of {parts} tasks."
            )

    # -- work ---------------------------------------------------------------------------------

    def share(self, array):
        """Returns this host's part of an array `[T, ...]`; None of None."""
        return array if array is None or self.hosts == 1 else array[self.host :: self.hosts]

    def run(self, function: Callable, arrays: Sequence, shared: bool = False):
        """Runs a function of tasks on all replicas, each on its share.

        Args:
            function: maps a list of arrays `[t, ...]` or None to (a tuple of tensors `[t, ...]`, a
                list of tensors that are sums over these tasks).
            arrays: tensors `[T, ...]` or None.
            shared: whether they are this host's part of a larger batch, see `share`.

        Returns:
            What the function returns for all tasks. All of it is summed over replicas at once,
            in one transfer for each type.
        """
        if self.count == 1:
            return function(list(arrays))
        parts = self.here if shared else self.count
        for array in arrays:
            if array is not None:
                self.check_divides(array.shape[0], shared)

        def of_replica():
            device = tf.distribute.get_replica_context().replica_id_in_sync_group % self.here
            position = self.host + self.hosts * device
            # Where the data are, so that a device receives no more than its own.
            with tf.device("CPU:0"):
                own = [_stride(a, device if shared else position, parts) for a in arrays]
            by_task, sums = function(own)
            results = tuple(self._placed(values, position) for values in by_task), list(sums)
            return tf.nest.pack_sequence_as(results, _all_reduce(tf.nest.flatten(results)))

        of_first = lambda reduced: self.strategy.experimental_local_results(reduced)[0]  # noqa: E731
        placed, sums = tf.nest.map_structure(of_first, self.strategy.run(of_replica))
        return tuple(map(_in_order, placed)), sums

    def of_all_hosts(self, arrays: Sequence) -> list:
        """Returns arrays of all tasks, given this host's part of each; None of None."""
        present = [a for a in arrays if a is not None]
        if self.hosts == 1 or not present:
            return list(arrays)
        whole, _ = self.run(lambda own: (tuple(own), []), present, shared=True)
        whole = iter(whole)
        return [None if a is None else next(whole) for a in arrays]

    def from_first_host(self, data: bytes) -> bytes:
        """Returns on every host the bytes that the first host gives."""
        if self.hosts == 1:
            return data
        size = np.zeros(1, np.int32)
        if self.host == 0:
            size[0] = len(data)
        size = int(self._sum(size)[0])
        words = np.zeros(-(-size // 4), np.int32)
        if self.host == 0:
            words.view(np.uint8)[:size] = np.frombuffer(data, np.uint8)
        return self._sum(words).view(np.uint8)[:size].tobytes()

    def any_host(self, flag: bool) -> bool:
        """Returns on every host whether any host gives a true one."""
        return bool(self._sum(np.array([flag], np.int32)).any()) if self.hosts > 1 else flag

    def _sum(self, array):
        """Returns the sum of an array of whole numbers over all hosts."""

        def of_replica():
            first = tf.distribute.get_replica_context().replica_id_in_sync_group % self.here == 0
            return _all_reduce([tf.where(first, array, tf.zeros_like(array))])[0]

        return self.strategy.experimental_local_results(self.strategy.run(of_replica))[0].numpy()

    def _placed(self, values, position):
        """Returns values `[t, ...]` of a replica as `[N, t, ...]`, zero for all others."""
        shape = tf.concat([[self.count], tf.shape(values)], axis=0)
        placed = tf.scatter_nd(tf.reshape(position, [1, 1]), values[None], shape)
        return tf.ensure_shape(placed, [self.count, *values.shape])


def check_outside() -> None:
    """Raises ValueError inside the scope of a strategy."""
    _check_keras()
    if tf.distribute.has_strategy():
        raise ValueError(
            "this cannot be called inside strategy.scope(); make and compile a learner there, and "
            "train and use it outside."
        )


def _stride(array, start, parts):
    """Returns the tasks start, start + parts, ... of an array `[T, ...]`; None of None."""
    if array is None:
        return None
    if array.shape[0] is None:
        message = f"a batch has a number of tasks that cannot be divided evenly among {parts}."
        check = tf.debugging.assert_equal(tf.shape(array)[0] % parts, 0, message)
        with tf.control_dependencies([check]):
            array = tf.identity(array)
    tasks = tf.shape(array)[0] if array.shape[0] is None else array.shape[0]
    rows = tf.reshape(array, tf.concat([[tasks // parts, parts], tf.shape(array)[1:]], axis=0))
    own = tf.gather(rows, start, axis=1)
    return tf.ensure_shape(own, [array.shape[0] and array.shape[0] // parts, *array.shape[1:]])


def _in_order(placed):
    """Returns values `[N, t, ...]` of replicas in the order of the tasks, `[T, ...]`."""
    axes = tf.concat([[1, 0], tf.range(2, tf.rank(placed))], axis=0)
    shape = tf.concat([[-1], tf.shape(placed)[2:]], axis=0)
    ordered = tf.reshape(tf.transpose(placed, axes), shape)
    replicas, tasks, *rest = placed.shape
    return tf.ensure_shape(ordered, [None if tasks is None else replicas * tasks, *rest])


def _all_reduce(tensors):
    """Returns tensors summed over all replicas; those of one type are sent together."""
    # Collectives know no other integers.
    known = tf.int32, tf.int64
    sent = [t if t.dtype.is_floating or t.dtype in known else tf.cast(t, tf.int64) for t in tensors]
    reduced = list(sent)
    for dtype in sorted({t.dtype for t in sent}, key=str):
        chosen = [i for i, t in enumerate(sent) if t.dtype == dtype]
        flat = tf.concat([tf.reshape(sent[i], [-1]) for i in chosen], axis=0)
        flat = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, flat)
        sizes = tf.stack([tf.size(sent[i]) for i in chosen])
        for i, part in zip(chosen, tf.split(flat, sizes, num=len(chosen)), strict=True):
            part = tf.reshape(part, tf.shape(sent[i]))
            reduced[i] = tf.ensure_shape(tf.cast(part, tensors[i].dtype), tensors[i].shape)
    return reduced


def _check_keras():
    if keras.distribution.distribution() is not None:
        raise ValueError(
            "a learner cannot use keras.distribution, which TensorFlow's backend does not run; "
            "call keras.distribution.set_distribution(None) and use tf.distribute.MirroredStrategy."
        )
