"""Paths that users give, and lists of names for messages."""

import os
from collections.abc import Iterable
from pathlib import Path


def user_path(path, name: str = "path") -> Path:
    """Returns a path as given, with `~` replaced by the home directory.

    Raises:
        ValueError: when it is neither a str nor a Path.
    """
    if not isinstance(path, str | Path) or path == "":
        raise ValueError(f"{name}={path!r}: a str or a Path is expected.")
    return Path(os.path.expanduser(path))


def some(names: Iterable[str], most: int = 5) -> str:
    """Lists the first names and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
