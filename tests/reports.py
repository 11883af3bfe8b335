"""What the tests of all reports write inputs and read reports with."""

import csv
import pathlib
import re
import subprocess
import sys

import numpy as np
import yaml
from scipy import stats

from pipelines import params as parameters
from pipelines import scores

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
PARAMS = pathlib.Path(__file__).parents[1] / "params.yaml"


class Inputs:
    """Synthetic outputs of the stages before a report, in the working directory."""

    def __init__(self, domain, seeds, scale):
        self.params = parameters.load(PARAMS)
        self.params["scale"], self.params["seeds"], self.scale = scale, list(seeds), scale
        self.models = pathlib.Path("models") / scale / domain
        self.results = pathlib.Path("results") / scale / domain

    def write_params(self):
        """Writes params.yaml and makes the folders that every domain has."""
        pathlib.Path("params.yaml").write_text(yaml.dump(self.params, Dumper=DUMPER))
        (self.models / "evaluation").mkdir(parents=True, exist_ok=True)
        for folder in ("metrics", "history"):
            (self.results / folder).mkdir(parents=True, exist_ok=True)

    def arrays(self, name, seed=0):
        """What a model's evaluation left."""
        with np.load(self.models / "evaluation" / f"{name}-{seed}.npz") as file:
            return dict(file)

    def keep_scores_alone(self, measures):
        """Leaves of all evaluations what is kept with the code."""
        names = {"mode", "modes", "steps", "curve", *measures}
        for path in (self.models / "evaluation").iterdir():
            with np.load(path) as file:
                arrays = {name: file[name] for name in names & set(file)}
            scores.save(self.results / "metrics" / f"{path.stem}.json", **arrays)
            path.unlink()


def run(monkeypatch, module, *options, scale="laptop"):
    """Runs a report's module as its stage does."""
    monkeypatch.setattr("sys.argv", ["report", "--scale", scale, *options])
    module.main()


def run_without_inputs(folder, module):
    """Runs a report in a process of its own; what it says, and whether it imported TensorFlow."""
    (folder / "params.yaml").write_text(PARAMS.read_text())
    code = (
        "import sys; sys.argv = ['report', '--scale', 'laptop']\n"
        f"from pipelines import {module}\n"
        f"try:\n    {module}.main()\n"
        "except SystemExit as error:\n    print(error, 'tensorflow' in sys.modules)"
    )
    env = {"PYTHONPATH": str(PARAMS.parent)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True).stdout


def written():
    """The content of every file of results."""
    files = sorted(path for path in pathlib.Path("results").rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files}


def markdown_tables(path):
    """Returns each Markdown table as rows of cells by method."""
    tables = []
    for block in re.findall(r"(?:^\|.*\n)+", path.read_text(), re.MULTILINE):
        lines = [
            [cell.strip() for cell in row.strip("|\n").split("|")] for row in block.split("\n")
        ]
        tables.append({line[0]: line[1:] for line in lines if len(line) > 1})
    return tables


def rows_of_markdown(path, first):
    """Returns the rows of the Markdown table whose first title is `first`."""
    for block in re.findall(r"(?:^\|.*\n)+", path.read_text(), re.MULTILINE):
        title, _, *rows = [[c.strip() for c in r.strip("|").split("|")] for r in block.splitlines()]
        if title[0] == first:
            return rows
    return []


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def parts_of(section):
    """Returns what a section says of this report's cells, and of an earlier report's pictures."""
    new, _, earlier = section.read_text().partition("Pictures of an earlier report")
    return new, earlier


def pictures_of(part):
    return set(re.findall(r'<img src="plots/([^"]+)"', part))


def estimate(values, mode=None):
    """Mean and interval; of several modes with as many tasks each, from the modes' own."""
    values = np.asarray(values, np.float64)
    strata = [values] if mode is None else [values[mode == index] for index in np.unique(mode)]
    variances = np.array([np.var(stratum, ddof=1) / len(stratum) for stratum in strata])
    freedom = variances.sum() ** 2 / np.sum(variances**2 / (len(strata[0]) - 1))
    error = np.sqrt(variances.sum()) / len(strata)
    return np.mean(values), stats.t.ppf(0.975, freedom) * error
