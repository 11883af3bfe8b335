"""Command line: `python -m mmaml_tf adapt MODEL --support support.csv --query query.csv`."""

import argparse
import csv
import math
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mmaml_tf", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    adapt = commands.add_parser(
        "adapt",
        help="adapt an exported model to one task and predict",
        description="Adapts an exported model to the labelled points of one task and prints the "
        "queries with predictions as CSV.",
    )
    adapt.add_argument("model", help="SavedModel directory written by learner.export()")
    adapt.add_argument(
        "--support", required=True, help="CSV with header: inputs x..., targets y..."
    )
    adapt.add_argument("--query", required=True, help="CSV with header: the same inputs")
    adapt.add_argument("--mode", type=int, help="index of the task's mode (Multi-MAML only)")
    try:
        _adapt(parser.parse_args(arguments))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


class InputError(Exception):
    """What the user gave cannot be used; the message says what is expected."""


def _adapt(arguments):
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
    if not (Path(arguments.model) / "saved_model.pb").exists():
        raise InputError(f"{arguments.model} is no SavedModel; learner.export(path) writes one.")
    try:
        model = tf.saved_model.load(arguments.model)
        specs = model.signatures["adapt_and_predict"].structured_input_signature[1]
    except (OSError, KeyError) as error:
        raise InputError(
            f"{arguments.model} is no model that learner.export(path) wrote, or is damaged: {error}"
        ) from None
    x = [[row[support_names.index(name)] for name in inputs] for row in support]
    y = [[row[support_names.index(name)] for name in targets] for row in support]
    q = [[row[query_names.index(name)] for name in inputs] for row in query]
    tensors = [np.asarray([a], np.float32) for a in (x, y, q)]
    for name, tensor in zip(("support_x", "support_y"), tensors, strict=False):
        if specs[name].shape[-1] != tensor.shape[-1]:
            raise InputError(
                f"the model takes {specs[name].shape[-1]} values per point for {name}, the files "
                f"give {tensor.shape[-1]} (inputs {inputs}, targets {targets})."
            )
    if ("mode" in specs) != (arguments.mode is not None):
        raise InputError(
            "this model needs --mode." if "mode" in specs else "this model takes no --mode."
        )
    mode = [] if arguments.mode is None else [np.array([arguments.mode], np.int32)]
    try:
        predictions = model.adapt_and_predict(*tensors, *mode)[0].numpy()
    except tf.errors.InvalidArgumentError as error:
        raise InputError(f"{arguments.model} refuses these inputs: {error.message}") from None
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


if __name__ == "__main__":
    sys.exit(main())
