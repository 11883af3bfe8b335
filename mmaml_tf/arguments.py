"""Checks of arguments that many parts of the package take."""

import math
import numbers


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


def real_number(name: str, value, high: float = math.inf, positive: bool = False) -> float:
    """Returns a finite number from 0 to a bound as a Python float.

    Args:
        name: the argument's name, for the message.
        value: what the user gave; a number of Python or NumPy, and no `True`.
        high: the largest number that makes sense.
        positive: whether 0 makes none.

    Raises:
        ValueError: for anything else.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and math.isfinite(value) and 0 <= value <= high) or (positive and not value):
        bound = "a positive finite number" if positive else "a finite number of at least 0"
        bound = bound if high == math.inf else f"a number from 0 to {high}"
        raise ValueError(f"{name}={value!r}: expected {bound}.")
    return float(value)


_LIMIT = 2**63
