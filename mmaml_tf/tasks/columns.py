"""What a user's arrays and columns of a frame must be, to become tasks."""

import itertools
from collections.abc import Hashable, Mapping, Sequence, Set

import numpy as np

from mmaml_tf.arguments import whole_number


def labels(name: str, values) -> list:
    """Returns the label of each point as plain values of Python.

    Raises:
        ValueError: for labels that are missing, not hashable, or not told apart when written.
    """
    # As an array, a list of 1 and "1" would hold "1" twice.
    values = values.numpy() if hasattr(values, "numpy") else values
    values = values.tolist() if isinstance(values, np.ndarray) else values
    if isinstance(values, str | bytes | Mapping | Set) or not hasattr(values, "__iter__"):
        raise ValueError(f"{name}={values!r}: expected one label for each point.")
    found = [value.item() if isinstance(value, np.generic) else value for value in values]
    for row, label in enumerate(found):
        if not isinstance(label, Hashable):
            raise ValueError(f"{name} of row {row} is {label!r}, which is not hashable.")
        # NaN, and the NaT and NA of pandas, do not equal themselves.
        if label is None or _unequal(label):
            raise ValueError(f"{name} of row {row} is {label}; fill it in, or leave the row out.")
    written = {}
    for label in set(found):
        other = written.setdefault(repr(label), label)
        if type(label).__repr__ is object.__repr__ or other != label:
            raise ValueError(f"{name}: {label!r} is not told from others by how it is written.")
    return found


def _unequal(label):
    try:
        return label != label
    except TypeError:  # pandas.NA is neither true nor false
        return True


def inputs(name: str, values, task: Sequence) -> np.ndarray:
    """Returns inputs `[n, ...]` as floats of rank 2 or more; see `ArrayTasks`."""
    return _floats(name, _array(name, values, task), task)


def targets(name: str, values, task: Sequence, classes: int | None) -> np.ndarray:
    """Returns targets as floats of rank 2 or more, or class labels as int32; see `ArrayTasks`."""
    array = _array(name, values, task)
    if array.dtype.kind not in "biu" or array.shape[1:] not in ((), (1,)):
        if classes is not None:
            raise ValueError(
                f"classes={classes} is for class labels, whole numbers [n], but {name} has shape "
                f"{array.shape} and type {array.dtype}."
            )
        return _floats(name, array, task)
    present = np.unique(array).tolist()
    known = range(1 + max(present) if classes is None else whole_number("classes", classes, 2))
    wrong = set(present) - set(known) or (classes is None and set(known) - set(present))
    if wrong or len(known) < 2:
        raise ValueError(
            f"{name} holds whole numbers from {min(present)} to {max(present)}, and these are "
            "class labels: number the N classes 0 to N - 1, and give classes=N where some of them "
            "do not occur. Convert to floats for a regression."
        )
    return array.astype(np.int32)


def modes(mode, task: Sequence) -> dict:
    """Returns the name of each task's mode; raises ValueError where a task has none or two."""
    if mode is None:
        return dict.fromkeys(task, "tasks")
    if isinstance(mode, Mapping):
        found = {label: mode.get(label) for label in task}
        if unknown := [label for label in mode if label not in found]:
            raise ValueError(f"mode names task {unknown[0]!r}, which has no data.")
        if missing := [label for label, name in found.items() if name is None]:
            raise ValueError(f"mode names no mode of task {missing[0]!r}; give one for each task.")
        return {label: str(name) for label, name in found.items()}
    names, found = labels("mode", mode), {}
    if len(names) != len(task):
        raise ValueError(f"mode has {len(names)} values for {len(task)} points; give one for each.")
    for label, name in zip(task, map(str, names), strict=True):
        if found.setdefault(label, name) != name:
            raise ValueError(
                f"task {label!r} has the modes {found[label]!r} and {name!r}; expected one."
            )
    return found


def column(frame, name: str) -> np.ndarray:
    """Returns a column of a frame; raises ValueError where there is none, or two."""
    if not hasattr(frame, "columns"):
        raise ValueError(f"frame is a {type(frame).__name__}; expected a pandas or Polars frame.")
    if not isinstance(name, Hashable) or name not in list(frame.columns):
        raise ValueError(f"there is no column {name!r}; the frame has {list(frame.columns)}.")
    values = frame[name].to_numpy()
    if values.ndim != 1:
        raise ValueError(f"the frame has several columns {name!r}; expected one.")
    return values


def joined(frame, what: str, names: Sequence[str], task: Sequence) -> np.ndarray:
    """Returns columns side by side, or one column of whole numbers alone."""
    if not names:
        raise ValueError(f"{what}={list(names)}: give at least one column.")
    found = [column(frame, name) for name in names]
    if what == "targets" and len(names) == 1 and found[0].dtype.kind in "biu":
        return found[0]
    return np.concatenate(
        [_floats(f"column {n!r}", c, task) for n, c in zip(names, found, strict=True)], axis=1
    )


def concatenated(pairs: Mapping) -> tuple[np.ndarray, np.ndarray, list]:
    """Returns x, y and the task of each point of `{task: (x, y)}`."""
    if not pairs:
        raise ValueError("there are no tasks: give at least one pair (x, y).")
    parts, shapes = [], {}
    for label, pair in pairs.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"task {label!r} is a {type(pair).__name__}; expected a pair (x, y).")
        x, y = (np.asarray(part) for part in pair)
        if x.ndim == 0 or x.shape[:1] != y.shape[:1]:
            raise ValueError(
                f"task {label!r} has x of shape {x.shape} and y of shape {y.shape}; expected as "
                "many points in both."
            )
        shape = x.shape[1:], y.shape[1:]
        first, expected = shapes.setdefault("first", (label, shape))
        if shape != expected:
            raise ValueError(
                f"the points of task {label!r} have the shapes {shape}, those of task {first!r} "
                f"{expected}; they must be equal."
            )
        parts.append((x, y, [label] * len(x)))
    x, y, task = zip(*parts, strict=True)
    return np.concatenate(x), np.concatenate(y), list(itertools.chain(*task))


def by_task(pairs: Mapping, mode) -> dict:
    """Returns the mode of each task, of one name for each task in order."""
    names = labels("mode", mode)
    if len(names) != len(pairs):
        raise ValueError(f"mode has {len(names)} values for {len(pairs)} tasks; give one for each.")
    return dict(zip(pairs, names, strict=True))


def _array(name, values, task):
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.array(None)  # rows of different lengths
    if array.ndim == 0 or array.dtype.kind not in "biuf" or 0 in array.shape:
        raise ValueError(
            f"{name} has shape {array.shape} and type {array.dtype}; expected numbers [n, ...] "
            "with at least one point."
        )
    if len(array) != len(task):
        raise ValueError(f"{name} has {len(array)} points and task {len(task)}; expected as many.")
    return array


def _floats(name, array, task):
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has type {array.dtype}; expected numbers.")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    array = array[:, None] if array.ndim == 1 else array
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        row = bad[0][0]
        raise ValueError(
            f"{name} of row {row}, task {task[row]!r}, is {array[tuple(bad[0])]}; expected finite "
            "numbers. Fill it in, or leave the row out."
        )
    return array
