"""Checks of arguments that many parts of the package take."""

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


_LIMIT = 2**63
