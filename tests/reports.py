"""What the tests of all reports read them with."""

import csv
import re

import numpy as np


def run(monkeypatch, module, *options, scale="laptop"):
    """Runs a report's module as its stage does."""
    monkeypatch.setattr("sys.argv", ["report", "--scale", scale, *options])
    module.main()


def markdown_tables(path):
    """Returns each Markdown table as rows of cells by method."""
    tables = []
    for block in re.findall(r"(?:^\|.*\n)+", path.read_text(), re.MULTILINE):
        lines = [
            [cell.strip() for cell in row.strip("|\n").split("|")] for row in block.split("\n")
        ]
        tables.append({line[0]: line[1:] for line in lines if len(line) > 1})
    return tables


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def estimate(values, mode=None):
    """Mean and interval; of several modes with as many tasks each, from the modes' own."""
    values = np.asarray(values, np.float64)
    if mode is None:
        return np.mean(values), 1.96 * np.sqrt(np.var(values, ddof=1) / len(values))
    each = np.array([estimate(values[mode == index]) for index in set(mode.tolist())])
    return np.mean(values), np.sqrt(np.mean(each[:, 1] ** 2) / len(each))
