"""Training states: exact comparison, and learners that are given out in their first one again."""

import functools

import numpy as np

from mmaml_tf.checkpoint import learner_state, set_learner_state


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


def reused(make):
    """Makes a learner once for equal arguments, and gives it out in its first state each time.

    Its graphs, whose tracing takes most of a short training, are traced once. What a test compares
    with a learner of the same arguments it has to read first. Tests of what is kept in a file or
    a checkpoint need a learner of their own, which has nothing but that.
    """
    made = {}

    @functools.wraps(make)
    def again(*args, **kwargs):
        key = args, tuple(sorted(kwargs.items()))
        if key in made:
            set_learner_state(*made[key])
        else:
            learner = make(*args, **kwargs)
            learner.optimizer.build(learner.trainable_variables)
            made[key] = learner, learner_state(learner)
        return made[key][0]

    return again
