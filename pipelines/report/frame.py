"""One tidy frame of the scores that evaluations commit: a row a task, inner step and measure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.report.domains import METHODS, Domain

#: stands for a run's own number of inner steps, of which joined members have different ones
ADAPTED = -1
#: of a predictor that is not trained; it is compared with every seed
SEEDLESS = -1

_ORDER = ("point_mass", "reacher", "ant", "5w1s", "5w5s", "20w1s")
COLUMNS = ("domain", "table", "method", "set", "seed", "measure", "step", "mode", "task", "value")


@dataclass(frozen=True)
class Run:
    """One evaluated method, set of tasks and seed.

    Attributes:
        names: the models it consists of, each with its seed, as their files are named.
        metrics: what evaluation wrote of it; of joined members the sums of what is counted.
        modes: its modes in order.
        steps: inner steps by mode.
        tasks: by mode, what tells its tasks.
        curve: the numbers of inner steps that were measured.
    """

    names: Sequence[str]
    metrics: Mapping
    modes: Sequence[str]
    steps: Mapping[str, int]
    tasks: Mapping[str, tuple]
    curve: Sequence[int]


@dataclass
class Scores:
    """What the evaluations of a domain left at one scale.

    Attributes:
        domain: the domain.
        directory: `results/<scale>/<domain>`.
        frame: the tidy frame, with the columns `COLUMNS`.
        runs: `Run` by (method, set, seed).
        left_out: names of models that had no data.
    """

    domain: Domain
    directory: Path
    frame: pd.DataFrame
    runs: dict[tuple[str, str, int], Run]
    left_out: list[str] = field(default_factory=list)

    @property
    def scale(self) -> str:
        """The name of the scale."""
        return self.directory.parent.name

    @property
    def sets(self) -> list[str]:
        """The sets of tasks that some method of the tables has runs of, in order."""
        found = {tasks for method, tasks, _ in self.runs if method in METHODS}
        return sorted(found, key=_natural)

    @property
    def methods(self) -> list[str]:
        """The methods that have runs, in the order of the tables."""
        found = {method for method, _, _ in self.runs}
        return [method for method in METHODS if method in found]

    @property
    def seeds(self) -> list[int]:
        """The seeds that the methods of the tables were run with."""
        found = {seed for method, _, seed in self.runs if method in METHODS}
        return sorted(found - {SEEDLESS}) or [0]

    def of(self, method: str, tasks: str) -> dict[int, Run]:
        """Returns the runs of a method on a set of tasks by seed."""
        seeds = sorted(s for m, t, s in self.runs if (m, t) == (method, tasks))
        return {seed: self.runs[method, tasks, seed] for seed in seeds}

    def modes(self, tasks: str) -> Sequence[str]:
        """Returns the modes of a set of tasks."""
        return next((run.modes for (_, t, _), run in self.runs.items() if t == tasks), ())

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Returns all arrays that a model's evaluation committed."""
        with np.load(self.directory / "scores" / f"{name}.npz") as file:
            return dict(file)

    def history(self, name: str) -> pd.DataFrame | None:
        """Returns what training logged of a model, or None where it is not here."""
        path = self.directory / "history" / f"{name}.csv"
        return pd.read_csv(path) if path.is_file() else None


def _natural(tasks):
    """Returns a key that sorts sets of tasks: numbers by size, names in the order of `_ORDER`."""
    parts = tasks.split("-")
    return [_ORDER.index(p) if p in _ORDER else int(p) if p.isdecimal() else 99 for p in parts]


def read(domain: Domain, scale: str, root: Path = Path("results")) -> Scores:
    """Reads the scores of a domain at a scale, and joins members to methods of all modes.

    Raises:
        SystemExit: for runs of one set that were evaluated on different tasks.
    """
    directory = root / scale / domain.name
    scores, frames = Scores(domain, directory, pd.DataFrame(columns=list(COLUMNS)), {}), []
    for path in sorted((directory / "metrics").glob("*.json")):
        metrics = json.loads(path.read_text())
        name, _, seed = path.stem.rpartition("-")
        if metrics.get("left_out"):
            scores.left_out.append(path.stem)
        elif (directory / "scores" / f"{path.stem}.npz").is_file():
            key = (*domain.split(name), int(seed))
            arrays = scores.arrays(path.stem)
            scores.runs[key] = run = _run(domain, path.stem, metrics, arrays)
            frames.append(_rows(domain, key, run, arrays))
    if domain.name == "regression" and (directory / "bayes.npz").is_file():
        frames += _bayes(scores)
    if domain.joined:
        frames += _joined(scores, frames)
    order = list(METHODS)
    known = sorted(
        scores.runs.items(),
        key=lambda item: order.index(item[0][0]) if item[0][0] in order else len(order),
    )
    scores.runs = dict(sorted(known, key=lambda item: _natural(item[0][1])))
    _check_same_tasks(scores)
    if frames:
        frame = pd.concat(frames, ignore_index=True).assign(domain=domain.name, table=scale)
        scores.frame = frame[list(COLUMNS)]
    return scores


def _run(domain, name, metrics, arrays):
    modes = [str(mode) for mode in arrays["modes"]]
    curve = arrays.get("curve", np.arange(len(arrays[domain.measures[domain.headline]])))
    counts = np.bincount(arrays["mode"], minlength=len(modes)).tolist()
    ways, goals = metrics.get("ways", {}), arrays.get("examples_goals")
    tasks = {}
    for index, mode in enumerate(modes):
        shown = () if goals is None else _of_mode(goals, index, len(modes))
        tasks[mode] = counts[index], ways.get(mode), shown
    steps = dict.fromkeys(modes, int(arrays["steps"]))
    return Run([name], metrics, modes, steps, tasks, [int(step) for step in curve])


def _of_mode(goals, index, modes):
    each = len(goals) // modes  # of every mode as many, one mode after the other
    return tuple(goals[index * each : (index + 1) * each].ravel().tolist())


def _rows(domain, key, run, arrays):
    """Returns the rows of a run, those after its own number of steps twice: as ADAPTED too."""
    mode = np.asarray(run.modes)[arrays["mode"]]
    task = pd.Series(mode).groupby(mode).cumcount().to_numpy()
    own = run.curve.index(int(arrays["steps"]))
    rows, steps = [*range(len(run.curve)), own], [*run.curve, ADAPTED]
    parts = []
    for measure, name in domain.measures.items():
        values = np.asarray(arrays[name], np.float64)[rows]
        part = {
            "step": np.repeat(steps, len(mode)),
            "mode": np.tile(mode, len(rows)),
            "task": np.tile(task, len(rows)),
            "value": values.ravel(),
        }
        parts.append(pd.DataFrame(part).assign(measure=measure))
    method, tasks, seed = key
    return pd.concat(parts).assign(method=method, set=tasks, seed=seed)


def _bayes(scores):
    """Returns the rows of the Bayes-optimal predictor, whose errors are kept by number of modes."""
    with np.load(scores.directory / "bayes.npz") as file:
        kept = dict(file)
    frames = []
    for tasks in {tasks for _, tasks, _ in scores.runs}:
        like = next(run for (_, t, _), run in scores.runs.items() if t == tasks)
        if f"{tasks}_noisy" not in kept or not all(count for count, *_ in like.tasks.values()):
            continue
        counts = [count for count, *_ in like.tasks.values()]
        mode = np.repeat(np.arange(len(counts)), counts)
        arrays = {"mode": mode, "modes": np.array(like.modes), "steps": np.array(0)}
        for measure, name in scores.domain.measures.items():
            arrays[name] = kept[f"{tasks}_{measure}"][None]
        metrics = {"effective": kept[f"{tasks}_effective"]}
        run = _run(scores.domain, "bayes", metrics, arrays)
        scores.runs["bayes", tasks, SEEDLESS] = run
        frames.append(_rows(scores.domain, ("bayes", tasks, SEEDLESS), run, arrays))
    return frames


def _joined(scores, frames):
    """Joins members of one mode each: the tasks of a mode are the same in every set."""
    domain, members = scores.domain, {}
    for (method, tasks, seed), run in scores.runs.items():
        if method == "single" and len(run.modes) == 1:
            members.setdefault((domain.group(tasks), run.modes[0], seed), (tasks, run))
    by_key = {(f["method"].iloc[0], f["set"].iloc[0], f["seed"].iloc[0]): f for f in frames}
    found = []
    for tasks in {t for method, t, _ in scores.runs if method in METHODS}:
        modes, group = scores.modes(tasks), domain.group(tasks)
        for seed in {seed for _, _, seed in members}:
            own = [members.get((group, mode, seed)) for mode in modes]
            if not all(own):
                continue
            runs = [run for _, run in own]
            curve = sorted(set.intersection(*(set(run.curve) for run in runs)))
            parts = pd.concat([by_key["single", member, seed] for member, _ in own])
            parts = parts[parts["step"].isin([*curve, ADAPTED])]
            found.append(parts.assign(method=domain.joined, set=tasks))
            scores.runs[domain.joined, tasks, seed] = _joined_run(runs, modes, curve)
    return found


def _joined_run(runs, modes, curve):
    metrics = {"iterations": runs[0].metrics["iterations"]}
    for name in ("skipped_updates", "unstable_rollouts", "environment_steps"):
        metrics[name] = sum(run.metrics.get(name, 0) for run in runs)
    metrics["rollouts"] = runs[0].metrics.get("rollouts")
    of_mode = zip(modes, runs, strict=True)
    metrics["ways"] = {mode: run.metrics.get("ways", {}).get(mode) for mode, run in of_mode}
    steps = {mode: run.steps[mode] for mode, run in zip(modes, runs, strict=True)}
    tasks = {mode: run.tasks[mode] for mode, run in zip(modes, runs, strict=True)}
    return Run([run.names[0] for run in runs], metrics, modes, steps, tasks, curve)


def _check_same_tasks(scores):
    """Ends the program where paired differences would not be of the same tasks."""
    first, digests = {}, {}
    for (_, tasks, _), run in scores.runs.items():
        name, digest = " and ".join(run.names), run.metrics.get("held_out_digest")
        other, known = first.setdefault(tasks, (name, run))
        same = list(run.tasks.items()) == list(known.tasks.items())
        if digest is not None:
            other, known = digests.setdefault(tasks, (name, digest)) if same else (other, None)
            same = same and known == digest
        if not same:
            raise SystemExit(
                f"report: {other} and {name} were evaluated on different tasks; evaluate both anew."
            )
