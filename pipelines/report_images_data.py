"""What the classification report shows: cells, their runs, and statistics of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.embedding_maps import Embeddings
from pipelines.report_data import Summary, paired_differences
from pipelines.report_inputs import OWN_STEPS, Ablation


class Curves(NamedTuple):
    """What training logged of one model, or the mean over a Multi-MAML's members.

    Attributes:
        training: `[P, 2]` iterations and accuracies on the query points of training tasks.
        validation: `[V, 2]` iterations and accuracies on the validation tasks.
    """

    training: np.ndarray
    validation: np.ndarray


class Run(NamedTuple):
    """One evaluated cell and seed.

    Attributes:
        report: `mmaml_tf.evaluation.Report`.
        seed: its seed.
        digest: that of the held-out tasks; None for a Multi-MAML, whose members each have one.
        ways: classes of a test task by mode.
        steps: inner steps by mode.
        iterations: outer iterations of its training.
        skipped: updates that were left out in training.
        chosen: iterations whose weights validation chose, of each model it consists of.
        curves: what training logged; None without it.
        embeddings: task embeddings, or None.
    """

    report: Any
    seed: int
    digest: str | None
    ways: Mapping[str, int]
    steps: Mapping[str, int]
    iterations: int
    skipped: int = 0
    chosen: Sequence[int] = ()
    curves: Curves | None = None
    embeddings: Embeddings | None = None

    @property
    def tasks(self) -> Mapping[str, int]:
        """What its tasks are told by beside their digest."""
        return self.ways

    @property
    def chance(self) -> float:
        """The accuracy of guessing: the mean over modes of 1 / ways."""
        return float(np.mean([1 / ways for ways in self.ways.values()]))

    @property
    def lower_end(self) -> float:
        """The lower end of the 95 % confidence interval of the mean accuracy."""
        estimate = self.report.estimate()
        return estimate.mean - estimate.ci95


class Cell(NamedTuple):
    """A cell of the table.

    Attributes:
        kind: kind of method.
        mode_set: name of the mode set.
        protocol: name of the protocol.
        members: by mode, the model that a Multi-MAML has for it; empty for the other kinds.
        runs: its runs by seed.
    """

    kind: str
    mode_set: str
    protocol: str
    members: Mapping[str, str]
    runs: Sequence[Run] = ()

    @property
    def name(self) -> str:
        """Its name, which is that of its files for all kinds but Multi-MAML."""
        return f"{self.kind}-{self.mode_set}-{self.protocol}"

    @property
    def column(self) -> tuple[str, str]:
        """What its tasks depend on."""
        return self.mode_set, self.protocol

    @property
    def trained(self) -> list[str]:
        """The names of the models it consists of."""
        return list(self.members.values()) or [self.name]

    @property
    def skipped(self) -> int:
        """The number of updates that were left out in training."""
        return sum(run.skipped for run in self.runs)

    def summary(self, mode: str | None = None, steps: int | None = None) -> Summary:
        """Returns the mean accuracy of a mode (None: all) after inner steps (None: its own)."""
        return Summary.of([run.report.estimate(mode, steps, "accuracy") for run in self.runs])

    @property
    def curve(self) -> tuple[int, ...]:
        """The numbers of inner steps that were measured; 0 alone for what has none."""
        run = self.runs[0]
        if not any(run.steps.values()):
            return (0,)
        return tuple(steps for steps in run.report.curve if steps != OWN_STEPS)


class ModeSet(NamedTuple):
    """The modes that a mode set has here.

    Attributes:
        modes: names of its modes.
        stand_ins: by published mode, the one that stands in for it.
        left_out: published modes that have no images.
    """

    modes: tuple[str, ...]
    stand_ins: Mapping[str, str]
    left_out: Sequence[str]

    @property
    def as_published(self) -> bool:
        """Whether the modes are those of the published table."""
        return not (self.stand_ins or self.left_out)


class Results(NamedTuple):
    """Everything the report shows.

    Attributes:
        scale: name of the scale.
        seeds: seeds of params.yaml.
        mode_sets: by name.
        protocols: (ways, support) by name.
        cells: by (kind, mode set, protocol) in the order of the table.
        images: number of images by mode, of those whose preparation is there.
        altered: by mode, files that have another checksum than the published ones.
        splits: by dataset, its split, where it is not that of the published protocol.
        schedule: the scale's settings.
        defaults: the methods' settings, where one has none of its own.
        member_batches: tasks of a training batch of Multi-MAML's members by protocol.
        ablations: the variants that were evaluated.
    """

    scale: str
    seeds: list[int]
    mode_sets: dict[str, ModeSet]
    protocols: dict[str, tuple[int, int]]
    cells: dict[tuple[str, str, str], Cell]
    images: dict[str, int]
    altered: dict[str, list[str]]
    splits: dict[str, str]
    schedule: dict
    defaults: dict
    member_batches: dict[str, set[int]]
    ablations: Sequence[Ablation] = ()

    @property
    def kinds(self) -> list[str]:
        """The kinds that have a row, in the order of the table."""
        return list(dict.fromkeys(kind for kind, _, _ in self.cells))

    @property
    def digests(self) -> dict[str, str]:
        """The digests of the held-out tasks by mode set and protocol."""
        cells = self.cells.values()
        return {"-".join(c.column): run.digest for c in cells for run in c.runs if run.digest}

    def runs(self, *key: str) -> Sequence[Run]:
        """Returns the runs of (kind, mode set, protocol); none where there is no such cell."""
        cell = self.cells.get(key)
        return cell.runs if cell else ()

    def ran(self, mode_set: str, protocol: str) -> dict[str, Cell]:
        """Returns the cells that have runs by kind, in the order of the table."""
        return {
            cell.kind: cell
            for cell in self.cells.values()
            if cell.column == (mode_set, protocol) and cell.runs
        }

    def ways(self, mode_set: str, protocol: str) -> Mapping[str, int]:
        """Returns the classes of a test task by mode; empty where nothing was evaluated."""
        runs = [run for cell in self.ran(mode_set, protocol).values() for run in cell.runs]
        return runs[0].ways if runs else {}

    def differences(self, kind, reference, mode_set, protocol, mode=None) -> dict:
        """Returns by seed paired estimates of the accuracies' differences, kind − reference."""
        references = self.runs(reference, mode_set, protocol)
        return paired_differences(self.runs(kind, mode_set, protocol), references, mode)
