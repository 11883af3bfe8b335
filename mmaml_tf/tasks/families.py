"""Families of one-dimensional functions, the modes of few-shot regression.

A family is one function of `draw`. It draws its parameters with `draw(low, high)`, each uniform
and independent, and returns the function of x that they define. To add a family:

    @register_family("cosine")
    def cosine(draw):
        amplitude = draw(0.1, 5.0)
        return lambda x: amplitude * tf.cos(x)
"""

import math
from collections.abc import Callable

import tensorflow as tf

from mmaml_tf.tasks.callables import text_of

#: every known family by name, in the order of registration
FAMILIES: dict[str, Callable] = {}

# The published mode sets.
MODE_SETS = {
    2: ("sinusoid", "linear"),
    3: ("sinusoid", "linear", "quadratic"),
    5: ("sinusoid", "linear", "quadratic", "tanh", "absolute"),
}


def register_family(name: str, overwrite: bool = False) -> Callable[[Callable], Callable]:
    """Registers a function family under `name`, for use as a mode of `FunctionTasks`.

    Args:
        name: the family's name.
        overwrite: lets it take the place of another family of this name.

    Raises:
        ValueError: for no name, a family that is not callable, or a name that another has.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(
            f"name={name!r}: expected a family's name; write @register_family('name')."
        )

    def register(family):
        if not callable(family):
            raise ValueError(
                f"the family {name!r} is a {type(family).__name__}; expected a function of draw."
            )
        known = FAMILIES.get(name, family)
        # A cell of a notebook that runs again registers the same family anew.
        if not overwrite and not _same(known, family):
            raise ValueError(
                f"there is another family {name!r} already: give this one another name, or "
                "overwrite=True to mean it."
            )
        FAMILIES[name] = family
        return family

    return register


def family_text(name: str, family) -> str:
    """Returns what a family does as text; raises ValueError where it has none."""
    try:
        return text_of(family)
    except ValueError as error:
        raise ValueError(f"the family {name!r} has no digest: {error}.") from None


def _same(family, other):
    try:
        return family is other or text_of(family) == text_of(other)
    except ValueError:
        return False


@register_family("sinusoid")
def sinusoid(draw):
    """A·sin(x − p) with A in [0.1, 5] and p in [0, π]."""
    amplitude, phase = draw(0.1, 5.0), draw(0.0, math.pi)
    return lambda x: amplitude * tf.sin(x - phase)


@register_family("linear")
def linear(draw):
    """s·x + b with s and b in [−3, 3]."""
    slope, bias = draw(-3.0, 3.0), draw(-3.0, 3.0)
    return lambda x: slope * x + bias


@register_family("quadratic")
def quadratic(draw):
    """a·(x − c)² + b with |a| in [0.02, 0.15] of random sign, c and b in [−3, 3]."""
    curvature = draw(0.02, 0.15) * tf.sign(draw(-1.0, 1.0))
    centre, bias = draw(-3.0, 3.0), draw(-3.0, 3.0)
    return lambda x: curvature * tf.square(x - centre) + bias


@register_family("tanh")
def tanh(draw):
    """s·tanh(x − c) + b with s, c and b in [−3, 3]."""
    slope, centre, bias = draw(-3.0, 3.0), draw(-3.0, 3.0), draw(-3.0, 3.0)
    return lambda x: slope * tf.tanh(x - centre) + bias


@register_family("absolute")
def absolute(draw):
    """s·|x − c| + b with s, c and b in [−3, 3]."""
    slope, centre, bias = draw(-3.0, 3.0), draw(-3.0, 3.0), draw(-3.0, 3.0)
    return lambda x: slope * tf.abs(x - centre) + bias


# All draws use one generator on every device, so that a seed means the same tasks everywhere.
ALGORITHM = "philox"


class Draw:
    """Draws independent values for n tasks, each draw from a stream of its own.

    Args:
        key: `[2]` stateless seed.
        tasks: number of tasks n.
    """

    def __init__(self, key, tasks: int):
        self._key = key
        self._tasks = tasks
        self._draws = 0

    def __call__(self, low: float, high: float, points: int = 1):
        """Returns uniform values in [low, high), `[n, points, 1]`."""
        shape = [self._tasks, points, 1]
        return tf.random.stateless_uniform(shape, self._next(), low, high, alg=ALGORITHM)

    def normal(self, points: int):
        """Returns standard normal values, `[n, points, 1]`."""
        shape = [self._tasks, points, 1]
        return tf.random.stateless_normal(shape, self._next(), alg=ALGORITHM)

    def _next(self):
        self._draws += 1
        return tf.random.fold_in(self._key, self._draws, alg=ALGORITHM)
