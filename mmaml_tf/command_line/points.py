"""Reading points from a CSV file, as spreadsheets and programs write it.

Values are separated by a comma, a semicolon or a tab, which the header shows, or by what a first
line `sep=;` says. Where it is not the comma, numbers may have a decimal comma. What could mean two
things is refused.
"""

import codecs
import csv
import io
import math
import re
from pathlib import Path
from typing import NamedTuple

from mmaml_tf.command_line.errors import InputError

# The longer ones first: that of UTF-32 begins as that of UTF-16 does.
_ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_SEPARATOR_LINE = re.compile(r'\s*"?sep=([,;\t|: ])"?\s*', re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")


class Points(NamedTuple):
    """The rows of a file.

    Attributes:
        path: the file.
        names: of the columns.
        rows: the values, a list for each point.
        lines: the line of the file that each point is in.
        unnamed: whether a first column without a name was left out, as the index of the rows.
    """

    path: str
    names: list[str]
    rows: list[list[float]]
    lines: list[int]
    unnamed: bool

    def columns(self, names: list[str]) -> list[list[float]]:
        """Returns the values of these columns, a list for each point."""
        indices = [self.names.index(name) for name in names]
        return [[row[i] for i in indices] for row in self.rows]


def read_points(path: str) -> Points:
    """Reads a CSV file of numbers with a header.

    Rows without any value and columns without name and values are left out, and so is a first
    column of whole numbers without a name.

    Raises:
        InputError: if it is no such file, naming the line.
    """
    cells = _cells(path)
    if len(cells) < 2:
        raise InputError(f"{path} needs a header line and at least one point.")
    (_, header), *cells = cells
    cells = [(line, _trimmed(path, line, row, header)) for line, row in cells]
    cells = _with_decimal_points(path, cells)
    kept = [i for i, name in enumerate(header) if name or any(row[i] for _, row in cells)]
    unnamed = kept[0] == 0 and header[0] in ("", "Unnamed: 0")  # as pandas writes and reads it
    if unnamed:
        if not all(row[0].isdecimal() for _, row in cells):
            raise InputError(f"{path}: the first column has no name; give it one in the header.")
        kept = kept[1:]
    names = [header[i] for i in kept]
    _check_names(path, names)
    rows = [_numbers(path, line, [row[i] for i in kept], names) for line, row in cells]
    return Points(path, names, rows, [line for line, _ in cells], unnamed)


def _cells(path):
    """Returns (line, stripped values) of each row that has any; the first is the header."""
    lines = list(io.StringIO(_text(path), newline=""))
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise InputError(f"{path} line {number} holds a NUL byte: save it as CSV in UTF-8.")
    declared = lines and _SEPARATOR_LINE.fullmatch(lines[0])
    first = 1 if declared else 0
    separator = declared[1] if declared else _separator(path, lines)
    reader = csv.reader(lines[first:], delimiter=separator, skipinitialspace=separator != "\t")
    cells = []
    try:
        for row in reader:
            number = reader.line_num + first
            row = [value.strip() for value in row]
            # Of one column, an empty value in quotes is a missing one and no blank row.
            if any(row) or (len(row) == 1 and lines[number - 1].strip()):
                cells.append((number, row))
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num + first} cannot be read: {error}") from None
    return cells


def _text(path):
    try:
        content = Path(path).expanduser().read_bytes()
        encoding = next((e for bom, e in _ENCODINGS.items() if content.startswith(bom)), None)
        if content.startswith(_SPREADSHEETS):
            raise InputError(f"{path} is a spreadsheet or an archive: save the table as CSV.")
        return content.decode(encoding or "utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read: {error}. Save it as CSV in UTF-8.") from None


def _separator(path, lines):
    """Returns what separates the names in the header."""
    header = next((line for line in lines if line.strip(" \t\r\n,;")), "")
    found = [s for s in _SEPARATORS if len(next(csv.reader([header], delimiter=s), ())) > 1]
    if len(found) > 1:
        names = " and ".join(_SEPARATORS[s] for s in found)
        raise InputError(
            f"{path}: {names} both separate the header {header.strip()!r}; say which is meant by "
            "a first line such as sep=; or put names that hold the other into quotes."
        )
    return found[0] if found else ","


def _trimmed(path, line, row, header):
    """Returns a row as long as the header; a comma too many at the end adds no value."""
    while len(row) > len(header) and not row[-1]:
        row = row[:-1]
    if len(row) != len(header):
        raise InputError(
            f"{path} line {line}: {len(row)} values, the header has {len(header)}. One comma, "
            "semicolon or tab separates two; in a file with commas, decimals have a point."
        )
    return row


def _with_decimal_points(path, cells):
    """Returns rows whose numbers have a decimal point; commas are left from other separators."""
    commas = [(line, value) for line, row in cells for value in row if "," in value]
    if not commas:
        return cells
    line, value = max(commas, key=lambda comma: comma[1].count(","))
    points = any("." in value for _, row in cells for value in row)
    if points or value.count(",") > 1 or all(_THOUSANDS.fullmatch(v) for _, v in commas):
        raise InputError(
            f"{path} line {line}: the comma in {value!r} may separate thousands or decimals. "
            "Write numbers without thousands separators, and with a decimal point."
        )
    return [(line, [value.replace(",", ".") for value in row]) for line, row in cells]


def _check_names(path, names):
    if len(set(names)) < len(names):
        raise InputError(f"{path}: the header {names} names a column twice.")
    if all(map(_NUMBER.fullmatch, names)):
        raise InputError(f"{path}: the first line is {names}; a header with names is expected.")
    if "" in names:
        raise InputError(
            f"{path}: column {names.index('') + 1} of {len(names)} has values and no name; give it "
            "one in the header."
        )


def _numbers(path, line, row, names):
    if wrong := [i for i, value in enumerate(row) if not _NUMBER.fullmatch(value)]:
        name, value = names[wrong[0]], row[wrong[0]]
        what = f"{name} is {value!r}" if value else f"the value of {name} is missing"
        raise InputError(
            f"{path} line {line}: {row} are not all numbers: {what}. Numbers such as 1.5 or -2e3, "
            "separated by comma, semicolon or tab, are expected."
        )
    numbers = [float(value) for value in row]
    if not all(map(math.isfinite, numbers)):
        raise InputError(f"{path} line {line}: {row} are not all finite.")
    return numbers
