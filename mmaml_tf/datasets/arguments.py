"""Checks of what users give to several functions."""

import operator
import os
from collections.abc import Container, Iterable
from pathlib import Path


def user_path(path, name: str = "path") -> Path:
    """Returns a path as given, with `~` replaced by the home directory.

    Raises:
        ValueError: when it is neither a str nor a Path.
    """
    if not isinstance(path, str | Path) or path == "":
        raise ValueError(f"{name}={path!r}: a str or a Path is expected.")
    return Path(os.path.expanduser(path))


def whole_number(value, name: str, allowed: Container[int], expected: str) -> int:
    """Returns a whole number, NumPy's included, as an int.

    Raises:
        ValueError: when it is none, or not allowed.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number not in allowed:
        raise ValueError(f"{name}={value!r}: {expected} is expected.")
    return number


def some(names: Iterable[str], most: int = 5) -> str:
    """Lists the first names and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
