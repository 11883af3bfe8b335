"""Writing tables to the standard output."""

import csv
import io
import sys

from mmaml_tf.command_line.errors import InputError


def write_table(header: list, rows: list[list]) -> None:
    """Prints a table as CSV.

    Raises:
        InputError: if it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    try:
        sys.stdout.write(text.getvalue())
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except UnicodeEncodeError as error:
        raise InputError(
            f"the output's encoding {error.encoding} has no {error.object[error.start]!a}; set "
            "PYTHONIOENCODING=utf-8."
        ) from None
    except (OSError, AttributeError) as error:  # no standard output at all
        raise InputError(f"the output cannot be written: {error}") from None


def note(text: str) -> None:
    """Prints a remark beside the output."""
    print(f"note: {text}", file=sys.stderr)
