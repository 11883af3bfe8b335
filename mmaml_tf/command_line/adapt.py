"""`adapt`: one task of numbers, from CSV files to CSV."""

import numpy as np

from mmaml_tf.command_line.errors import InputError
from mmaml_tf.command_line.exported import load
from mmaml_tf.command_line.output import note, write_table
from mmaml_tf.command_line.points import read_points


def add_arguments(parser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", help="SavedModel directory written by learner.export()")
    parser.add_argument(
        "--support", required=True, help="CSV with header: inputs x..., targets y..."
    )
    parser.add_argument("--query", required=True, help="CSV with header: the same inputs")
    parser.add_argument("--mode", type=int, help="index of the task's mode (Multi-MAML only)")


def run(arguments) -> None:
    """Runs the command.

    Raises:
        InputError: if it cannot be done.
    """
    support, query = read_points(arguments.support), read_points(arguments.query)
    inputs = [name for name in support.names if name in query.names]
    targets = [name for name in support.names if name not in query.names]
    missing = [name for name in query.names if name not in support.names]
    if missing or not inputs or not targets:
        raise InputError(
            f"{arguments.query} has columns {query.names}, {arguments.support} has "
            f"{support.names}: the query's columns must be the inputs of the support file, and "
            "the support file's other columns are the targets."
        )
    model = load(arguments.model)
    if model.predicts_classes:
        raise InputError(
            f"{model.path} is a classifier; adapt takes a regression model. For images there is "
            "the command classify."
        )
    tensors = {
        "support_x": _tensor(model, "support_x", support, inputs),
        "support_y": _tensor(model, "support_y", support, targets),
        "query_x": _tensor(model, "query_x", query, inputs),
    }
    if ("mode" in model.inputs) != (arguments.mode is not None):
        needs = "mode" in model.inputs
        raise InputError("this model needs --mode." if needs else "this model takes no --mode.")
    if arguments.mode is not None:
        tensors["mode"] = _mode(arguments.mode)
    predictions = model.predict(**tensors)
    for line, row in zip(query.lines, predictions, strict=True):
        if not np.isfinite(row).all():
            raise InputError(
                f"the model predicts {row.tolist()} for {query.path} line {line}: the values are "
                "too large for it, or its training diverged."
            )
    for points in (support, query):
        if points.unnamed:
            note(f"{points.path}: the first column has no name and is left out, as an index.")
    rows = zip(query.columns(inputs), predictions.tolist(), strict=True)
    write_table([*inputs, *targets], [[*x, *y] for x, y in rows])


def _tensor(model, argument, points, names):
    """Returns columns of points as the model takes them, `[n, D]`."""
    shape = tuple(model.inputs[argument].shape[2:])
    if shape != (len(names),):
        takes = f"{shape[0]} values" if len(shape) == 1 else f"values of shape {shape}"
        raise InputError(
            f"the model takes {takes} per point for {argument}, the columns {names} of "
            f"{points.path} give {len(names)}."
        )
    columns, dtype = points.columns(names), model.dtype(argument)
    with np.errstate(over="ignore"):
        tensor = np.asarray(columns, dtype)
    for line, values, row in zip(points.lines, columns, tensor, strict=True):
        if not np.isfinite(row).all():
            raise InputError(
                f"{points.path} line {line}: {values} are not all within the range of {dtype}, in "
                "which the model computes; choose a smaller unit."
            )
    return tensor


def _mode(mode):
    if abs(mode) > np.iinfo(np.int32).max:
        raise InputError(f"--mode {mode}: the index of a mode is expected.")
    return mode
