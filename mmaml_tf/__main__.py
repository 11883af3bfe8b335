"""Adapts an exported model to one task and predicts, without writing code."""

import argparse
import os
import sys

from mmaml_tf.command_line import adapt, classify
from mmaml_tf.command_line.errors import InputError

_COMMANDS = {
    "adapt": (
        adapt,
        "adapt a regression model to points in a CSV file",
        "Adapts an exported model to the labelled points of one task and prints the queries with "
        "predictions as CSV.",
    ),
    "classify": (
        classify,
        "adapt an image classifier to a few images of each class",
        "Adapts an exported classifier to the images of a few classes and prints the most "
        "probable class of each query image as CSV. A model whose batch normalisation uses the "
        'statistics of the queries (statistics="query", as published) sees all query images at '
        "once: each prediction then depends on the other query images.",
    ),
}


#: exit statuses as of a process that the signal ended
_INTERRUPTED = 130
_CLOSED_PIPE = 141


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # Who read the output has enough. What is left of it goes nowhere, without an error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED_PIPE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED


def _run(arguments):
    parser = argparse.ArgumentParser(prog="mmaml", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (command, summary, description) in _COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=summary, description=description))
    parsed = parser.parse_args(arguments)
    try:
        _COMMANDS[parsed.command][0].run(parsed)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
