"""Checks of arguments that many parts of the package take."""

import math
import numbers
from collections.abc import Iterable

import numpy as np


def whole_number(name: str, value, least: int | None = 1) -> int:
    """Returns a count, a seed or a step as a Python integer.

    Integers of NumPy are whole numbers like those of Python; `True` is none, nor is 2.0.

    Args:
        name: the argument's name, for the message.
        value: what the user gave.
        least: the smallest value that makes sense, or None where any does.

    Raises:
        ValueError: for anything else.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name}={value!r}: expected a whole number{bound}.")
    if not -_LIMIT <= value < _LIMIT:
        raise ValueError(f"{name}={value!r}: expected a whole number of at most 64 bits.")
    return int(value)


def real_number(name: str, value, high: float = math.inf) -> float:
    """Returns a finite number from 0 to a bound as a Python float; see `positive_number`.

    Args:
        name: the argument's name, for the message.
        value: what the user gave; a number of Python or NumPy, and no `True`.
        high: the largest number that makes sense.

    Raises:
        ValueError: for anything else.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and math.isfinite(value) and 0 <= value <= high):
        bound = (
            "a finite number of at least 0" if high == math.inf else f"a number from 0 to {high}"
        )
        raise ValueError(f"{name}={value!r}: expected {bound}.")
    return float(value)


_LIMIT = 2**63


def whole_numbers(name: str, values, least: int = 1) -> tuple[int, ...]:
    """Returns a sequence of at least one size as a tuple; see `whole_number`."""
    if not isinstance(values, Iterable) or isinstance(values, str | bytes) or not len(values):
        raise ValueError(f"{name}={values!r}: expected at least one whole number, in a tuple.")
    return tuple(whole_number(name, value, least) for value in values)


def positive_number(name: str, value) -> float:
    """Returns a rate, a bound or a width as a float.

    Raises:
        ValueError: for what is no finite number above 0.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    if not number or not 0 < value < math.inf:
        raise ValueError(f"{name}={value!r}: expected a finite positive number.")
    return float(value)


def flag(name: str, value) -> bool:
    """Returns a switch as a bool; raises ValueError for anything else, such as "False"."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={value!r}: expected True or False.")
    return bool(value)
