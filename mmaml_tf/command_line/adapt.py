"""`adapt`: one task of numbers, from CSV files to CSV."""

import csv
import math
import sys

import numpy as np

from mmaml_tf.command_line.errors import InputError
from mmaml_tf.command_line.exported import load


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
    support_names, support = _read(arguments.support)
    query_names, query = _read(arguments.query)
    inputs = [name for name in support_names if name in query_names]
    targets = [name for name in support_names if name not in query_names]
    missing = [name for name in query_names if name not in support_names]
    if missing or not inputs or not targets:
        raise InputError(
            f"{arguments.query} has columns {query_names}, {arguments.support} has "
            f"{support_names}: the query's columns must be the inputs of the support file, and "
            "the support file's other columns are the targets."
        )
    model = load(arguments.model)
    if model.predicts_classes:
        raise InputError(
            f"{model.path} is a classifier; adapt takes a regression model. For images there is "
            "the command classify."
        )
    x = [[row[support_names.index(name)] for name in inputs] for row in support]
    y = [[row[support_names.index(name)] for name in targets] for row in support]
    q = [[row[query_names.index(name)] for name in inputs] for row in query]
    tensors = [np.asarray(a, np.float32) for a in (x, y, q)]
    for name, tensor in zip(("support_x", "support_y"), tensors, strict=False):
        shape = tuple(model.inputs[name].shape[2:])
        if shape != tensor.shape[1:]:
            takes = f"{shape[0]} values" if len(shape) == 1 else f"values of shape {shape}"
            raise InputError(
                f"the model takes {takes} per point for {name}, the files give "
                f"{tensor.shape[-1]} (inputs {inputs}, targets {targets})."
            )
    if ("mode" in model.inputs) != (arguments.mode is not None):
        needs = "mode" in model.inputs
        raise InputError("this model needs --mode." if needs else "this model takes no --mode.")
    mode = [] if arguments.mode is None else [np.int32(arguments.mode)]
    predictions = model.predict(*tensors, *mode)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*inputs, *targets])
    writer.writerows([*a, *b] for a, b in zip(q, predictions.tolist(), strict=True))


def _read(path):
    """Returns the header and the rows of numbers of a CSV file."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if len(rows) < 2:
        raise InputError(f"{path} needs a header line and at least one point.")
    (_, header), *rows = rows
    if len(set(header)) < len(header):
        raise InputError(f"{path}: the header {header} names a column twice.")
    numbers = []
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path} line {line}: {len(row)} values, the header has {len(header)}."
            )
        try:
            numbers.append([float(value) for value in row])
        except ValueError:
            raise InputError(f"{path} line {line}: {row} are not all numbers.") from None
        if not all(map(math.isfinite, numbers[-1])):
            raise InputError(f"{path} line {line}: {row} are not all finite.")
    return header, numbers
