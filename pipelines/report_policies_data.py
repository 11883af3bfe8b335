"""What the reinforcement-learning report shows: cells, their runs, and statistics of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.embedding_maps import Embeddings
from pipelines.report_data import Summary, paired_differences
from pipelines.report_inputs import OWN_STEPS, Ablation
from pipelines.report_texts import title

#: the rows of the table, and of which pairs the difference is taken
KINDS = ("promp", "multi_promp", "mmaml")
PAIRS = (("mmaml", "promp"), ("mmaml", "multi_promp"), ("multi_promp", "promp"))


class Run(NamedTuple):
    """One evaluated cell and seed.

    Attributes:
        report: `mmaml_tf.evaluation.Report`.
        seed: its seed.
        digest: that of the held-out goals; None for a Multi-ProMP, whose members each have one.
        goals: `[n, G]` of the tasks whose rollouts are shown.
        examples: `mmaml_tf.rl.evaluation.Examples`, their rollouts; None where these are
            gone, and for a Multi-ProMP.
        iterations: outer iterations of its training; a Multi-ProMP's are those of one member.
        environment_steps: of its training, those of all members together.
        rollouts: of each task in the evaluation.
        skipped: updates that were left out in training.
        unstable: rollouts of the evaluation in which the simulation became unstable.
        curve: `[P, 2]` environment steps and returns after adaptation in training; None without.
        embeddings: task embeddings, or None.
    """

    report: Any
    seed: int
    digest: str | None
    goals: np.ndarray
    examples: Any | None
    iterations: int
    environment_steps: int
    rollouts: int
    skipped: int = 0
    unstable: int = 0
    curve: np.ndarray | None = None
    embeddings: Embeddings | None = None

    @property
    def tasks(self) -> list:
        """What its tasks are told by beside their digest."""
        return self.goals.tolist()


class Cell(NamedTuple):
    """A cell of the table.

    Attributes:
        kind: kind of method.
        column: name of the set of goals, `<environment>-<modes>`.
        members: by mode, the model that a Multi-ProMP has for it; empty for the other kinds.
        runs: its runs by seed.
    """

    kind: str
    column: str
    members: Mapping[str, str] = {}
    runs: Sequence[Run] = ()

    @property
    def name(self) -> str:
        """Its name, which is that of its files for all kinds but Multi-ProMP."""
        return f"{self.kind}-{self.column}"

    @property
    def skipped(self) -> int:
        """The number of updates that were left out in training."""
        return sum(run.skipped for run in self.runs)

    @property
    def unstable(self) -> int:
        """The number of rollouts of the evaluation that became unstable."""
        return sum(run.unstable for run in self.runs)

    @property
    def curve(self) -> tuple[int, ...]:
        """The numbers of inner steps that were measured."""
        return tuple(steps for steps in self.runs[0].report.curve if steps != OWN_STEPS)

    def summary(self, mode: str | None = None, steps: int | None = None) -> Summary:
        """Returns the mean return of a mode (None: all) after inner steps (None: adapted)."""
        return Summary.of([run.report.estimate(mode, steps) for run in self.runs])


class GoalSet(NamedTuple):
    """A column of the table.

    Attributes:
        environment: name of the environment.
        modes: names of the modes.
        inner_steps: inner steps in training, and of what counts as adapted.
    """

    environment: str
    modes: tuple[str, ...]
    inner_steps: int

    @property
    def title(self) -> str:
        """Its name within its environment."""
        return title(len(self.modes))

    @property
    def full_title(self) -> str:
        """Its name."""
        return f"{environment_title(self.environment)}, {self.title}"


def environment_title(environment: str) -> str:
    """Returns the name of an environment in tables and pictures."""
    return environment.replace("_", " ")


class Results(NamedTuple):
    """Everything the report shows.

    Attributes:
        scale: name of the scale.
        seeds: seeds of params.yaml.
        sets: the sets of goals by name, those of an environment together.
        cells: by (kind, set of goals) in the order of the table.
        schedule: the scale's settings.
        ablations: the variants that were evaluated.
    """

    scale: str
    seeds: list[int]
    sets: dict[str, GoalSet]
    cells: dict[tuple[str, str], Cell]
    schedule: dict
    ablations: Sequence[Ablation] = ()

    @property
    def kinds(self) -> list[str]:
        """The kinds that have a row, in the order of the table."""
        return list(dict.fromkeys(kind for kind, _ in self.cells))

    @property
    def environments(self) -> dict[str, dict[str, GoalSet]]:
        """The sets of goals by environment and name."""
        found = {}
        for name, goals in self.sets.items():
            found.setdefault(goals.environment, {})[name] = goals
        return found

    @property
    def digests(self) -> dict[str, str]:
        """The digests of the held-out goals by set."""
        cells = self.cells.values()
        return {c.column: run.digest for c in cells for run in c.runs if run.digest}

    def runs(self, kind: str, column: str) -> Sequence[Run]:
        """Returns the runs of a kind on a set of goals; none where there is no such cell."""
        cell = self.cells.get((kind, column))
        return cell.runs if cell else ()

    def ran(self, column: str) -> dict[str, Cell]:
        """Returns the cells of a set of goals that have runs, by kind."""
        return {c.kind: c for c in self.cells.values() if c.column == column and c.runs}

    def differences(self, kind: str, reference: str, column: str, mode: str | None = None) -> dict:
        """Returns by seed paired estimates of the returns' differences, kind − reference."""
        return paired_differences(self.runs(kind, column), self.runs(reference, column), mode)
