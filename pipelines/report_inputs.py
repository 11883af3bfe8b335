"""What the reports read of models that were evaluated one by one, and how they join several.

Nothing is computed with TensorFlow. It comes with the package, which is imported only once the
inputs are known to be there.
"""

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines import params as parameters
from pipelines import scores

#: stands for each member's own number of inner steps where members with different ones are joined
OWN_STEPS = -1
_EARLIER = "of_an_earlier_report"


class Files:
    """Where the inputs of a report are, and which stage makes each.

    Args:
        domain: name of the table's directories.
        scale: name of the scale.
    """

    def __init__(self, domain: str, scale: str):
        self.domain = domain
        self.scale = scale
        self.models = Path("models", scale, domain)
        self.results = Path("results", scale, domain)

    def evaluated(self, name: str, seed: int) -> tuple[Path, Path]:
        """Returns the arrays and the metrics of a model's evaluation."""
        name = f"{name}-{seed}"
        return self.models / "evaluation" / f"{name}.npz", self.results / "metrics" / f"{name}.json"

    def evaluated_seeds(self, name: str) -> list[int]:
        """Returns the seeds that a model was evaluated with."""
        stems = (path.stem for path in (self.results / "metrics").glob(f"{name}-*.json"))
        seeds = (stem.removeprefix(f"{name}-") for stem in stems)
        return sorted(int(seed) for seed in seeds if seed.isdecimal())

    def history(self, name: str, seed: int) -> Path:
        """Returns the training curve of a model."""
        return self.results / "history" / f"{name}-{seed}.csv"

    def stages(self, name: str, seeds: Sequence[int], suffix: str) -> dict[Path, str]:
        """Returns by input of a model the stage that makes it.

        Args:
            name: the model.
            seeds: its seeds.
            suffix: what stands behind `train_` and `evaluate_` in the names of its stages.
        """
        stages = {}
        for seed in seeds:
            where = f"{suffix}@{self.scale}-{name}-{seed}"
            evaluate = parameters.stage(self.domain, f"evaluate_{where}")
            stages |= dict.fromkeys(self.evaluated(name, seed), evaluate)
            stages[self.history(name, seed)] = parameters.stage(self.domain, f"train_{where}")
        return stages

    def read(self, name: str, seed: int) -> tuple[dict, dict] | None:
        """Returns the arrays and metrics of an evaluation, or None where it is not here.

        Scores that were kept stand in for arrays that are gone, or of an earlier evaluation.
        """
        path, metrics = self.evaluated(name, seed)
        if not metrics.is_file():
            return None
        arrays, kept = (_read(file) for file in (path, scores.path(metrics)))
        if arrays is None and kept is None:
            warnings.warn(
                f"{metrics} is of an evaluation whose arrays and scores are not here; the report "
                "leaves it out.",
                stacklevel=2,
            )
            return None
        if arrays is None or (kept and any(_differs(kept[k], arrays.get(k)) for k in kept)):
            arrays = kept
        return arrays, read_json(metrics)


def _read(path):
    """Returns the arrays of a file, or None where there is none."""
    if not path.is_file():
        return None
    with np.load(path) as file:
        return dict(file)


def _differs(array, other):
    return other is None or array.tobytes() != other.tobytes()


class Ablation(NamedTuple):
    """A variant of a cell, evaluated on the same tasks as the cell itself.

    Attributes:
        name: the variant's name.
        reference: the name of the cell it is a variant of.
        changes: how the variant differs from that cell, and its seed if that is not the first.
        run: the variant's run.
        reference_run: that of the cell, with the same seed, or else with the first.
    """

    name: str
    reference: str
    changes: str
    run: Any
    reference_run: Any


def find_ablations(
    files,
    variants: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    settings: Callable[[str], dict],
    run: Callable[[str, int], Any],
) -> list[Ablation]:
    """Returns the variants that were evaluated, with every seed there is.

    Args:
        files: where the report's inputs are.
        variants: by name the cells it is a variant of; a cell named as its own variant is one
            with other seeds.
        seeds: seeds of params.yaml, the first of which stands in where the cell has no run with
            the variant's own.
        settings: returns a cell's settings.
        run: returns a cell's run with a seed, or None where it was not evaluated.
    """
    first = seeds[0]
    ablations = []
    for name, references in variants.items():
        for reference, seed in product(references, files.evaluated_seeds(name)):
            found = run(name, seed)
            other, of_cell = seed, None if name == reference else run(reference, seed)
            if of_cell is None:
                other, of_cell = first, run(reference, first)
            if found is None or of_cell is None or (name, seed) == (reference, other):
                continue
            own, others = settings(name), settings(reference)
            # Some settings few cells have.
            names = dict.fromkeys([*own, *others])
            changes = [
                f"{k}: {own.get(k)} (not {others.get(k)})"
                for k in names
                if own.get(k) != others.get(k)
            ]
            if seed != first:
                changes.append(f"seed: {seed} ({'both' if seed == other else f'not {other}'})")
            ablations.append(Ablation(name, reference, ", ".join(changes), found, of_cell))
    return ablations


def variants_of_methods(
    methods: Mapping[str, Sequence[str]], columns: Sequence[str]
) -> dict[str, list[str]]:
    """Returns the variants of cells named `<method>-<column>` for variants of methods."""
    return {
        f"{own}-{column}": [f"{other}-{column}" for other in others]
        for own, others in methods.items()
        for column in columns
    }


def read_json(path: Path):
    """Returns the content of a JSON file."""
    return json.loads(path.read_text())


def with_earlier(summary: dict, path: Path, keys: Sequence[str]) -> dict:
    """Returns a summary that keeps an earlier one's numbers of what is not here, marked as such.

    Args:
        summary: what summary.json is to have.
        path: summary.json; without it there is no earlier one.
        keys: of numbers by name that need arrays which may be elsewhere.
    """
    before = read_json(path) if path.is_file() else {}
    earlier = {}
    for key in keys:
        known = before.get(_EARLIER, {}).get(key, {}) | before.get(key, {})
        if kept := {name: known[name] for name in known if name not in summary[key]}:
            earlier[key] = kept
    return summary | ({_EARLIER: earlier} if earlier else {})


def report_of(arrays: dict, measure: str):
    """Returns the `mmaml_tf.evaluation.Report` of an evaluation's arrays."""
    from mmaml_tf.evaluation import Report

    return Report(
        {measure: arrays[measure]},
        arrays["mode"],
        tuple(str(mode) for mode in arrays["modes"]),
        int(arrays["steps"]),
        tuple(int(steps) for steps in arrays["curve"]),
    )


def joined_report(reports: Sequence, modes: Sequence[str]):
    """Returns the report of several members, each on the tasks of its own mode.

    The held-out tasks of a mode are the same whichever other modes are evaluated, so the joined
    tasks are those of the methods that have one model for all modes. As adapted counts each
    member after its own number of inner steps; others are measured where all members were.

    Args:
        reports: the members' reports of one mode each.
        modes: the modes in the same order.
    """
    from mmaml_tf.evaluation import Report

    (measure,) = reports[0].measures
    curve = sorted(set.intersection(*(set(report.curve) for report in reports)))
    rows = [
        np.concatenate([report.values(steps=steps) for report in reports])
        for steps in (*curve, None)
    ]
    mode = np.repeat(np.arange(len(modes)), [len(report.mode) for report in reports])
    measures = {measure: np.stack(rows)}
    return Report(measures, mode, tuple(modes), OWN_STEPS, (*curve, OWN_STEPS))


def check_same_tasks(cells: Iterable, ablations: Iterable[Ablation] = ()) -> None:
    """Ends the program where paired differences would not be of the same tasks.

    Args:
        cells: cells with `name`, `column` and `runs`; a run has a `digest`, which is None for
            joined members, a `report`, and `tasks`, which is equal for the same tasks.
        ablations: variants, each of which is compared with its cell.
    """
    first = {}
    for cell in cells:
        for run in cell.runs:
            own = cell.name, run
            of_column = first.setdefault(cell.column, own)
            _check_same_tasks(of_column, own)
            if of_column[1].digest is None and run.digest is not None:
                first[cell.column] = own
    for ablation in ablations:
        _check_same_tasks(
            (ablation.reference, ablation.reference_run), (ablation.name, ablation.run)
        )


def _check_same_tasks(*named_runs):
    (name, run), (other_name, other) = named_runs
    same_digest = None in (run.digest, other.digest) or run.digest == other.digest
    same_counts = np.array_equal(run.report.mode, other.report.mode)
    if not (same_digest and same_counts and run.tasks == other.tasks):
        raise SystemExit(
            f"report: {name}-{run.seed} and {other_name}-{other.seed} were evaluated on "
            "different tasks; evaluate both anew."
        )
