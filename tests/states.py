"""Exact comparison of training states."""

import numpy as np

from mmaml_tf.checkpoint import learner_state


def position(name):
    """The part of an array's name that does not depend on what else the process has made."""
    return name.partition("/")[0]


def arrays_of(state):
    """The arrays of a learner, or of a checkpoint's `state.npz`, by position."""
    named = dict(np.load(state)) if hasattr(state, "suffix") else state
    named = named if isinstance(named, dict) else learner_state(named)
    return {position(name): np.asarray(array) for name, array in named.items()}


def assert_same(a, b):
    """Checks two states, each a learner, a file or a dictionary of arrays, bit for bit."""
    a, b = arrays_of(a), arrays_of(b)
    assert a and list(a) == list(b)
    differing = [
        name
        for name in a
        if (a[name].dtype, a[name].shape) != (b[name].dtype, b[name].shape)
        or a[name].tobytes() != b[name].tobytes()
    ]
    assert not differing
