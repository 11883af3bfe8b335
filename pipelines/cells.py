"""What the cells of all tables share: names, paths, tracked runs and weights.

What is heavy is imported where it is used, so that the stages of a cell that is left out end at
once.
"""

from __future__ import annotations

import csv
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pipelines import code_digest
from pipelines import params as parameters

if TYPE_CHECKING:
    import mmaml_tf as mm
    from mmaml_tf.tracking import Tracker
    from mmaml_tf.training import Validation


@dataclass(frozen=True)
class Cell:
    """One trained model of a table, with one seed.

    Attributes:
        name: its name.
        scale: name of the scale.
        seed: seed of its initialisation and task sequence.
        settings: its complete settings.
        schedule: the scale's settings.
        task_settings: those of the tasks.
        threads: CPU threads.
    """

    name: str
    scale: str
    seed: int
    settings: dict
    schedule: dict
    task_settings: dict
    threads: int

    #: name of the table's section in params.yaml and of its directories
    domain: ClassVar[str]
    #: what of the schedule the trained weights depend on
    trained_by: ClassVar[tuple[str, ...]]

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes of the cell's tasks."""
        return tuple(self.settings["modes"])

    @property
    def run_name(self) -> str:
        """The name of the cell's files and of its tracked run."""
        return f"{self.name}-{self.seed}"

    @property
    def config(self) -> dict:
        """Everything that the trained weights depend on."""
        return {
            "cell": self.settings,
            "schedule": {name: self.schedule[name] for name in self.trained_by},
            "tasks": self.task_settings,
            "seed": self.seed,
            "threads": self.threads,
        }

    @property
    def weights(self) -> Path:
        """Where training leaves the weights, as raw arrays."""
        return model_directory(self.domain, self.scale) / f"{self.run_name}.npz"

    @property
    def history(self) -> Path:
        """Where training leaves its curve."""
        return results_directory(self.domain, self.scale) / "history" / f"{self.run_name}.csv"

    @property
    def evaluation(self) -> Path:
        """Where evaluation leaves what it measured of each task, and embeddings."""
        return model_directory(self.domain, self.scale) / "evaluation" / f"{self.run_name}.npz"

    @property
    def metrics(self) -> Path:
        """Where evaluation leaves its metrics."""
        return results_directory(self.domain, self.scale) / "metrics" / f"{self.run_name}.json"

    @property
    def checkpoints(self) -> Path:
        """Where training keeps checkpoints."""
        return Path("checkpoints") / self.domain / self.scale / f"{self.run_name}-{self.identity}"

    @property
    def identity(self) -> str:
        """A digest of all that decides the trained weights, the code included."""
        code = code_digest.digest(f"train_{self.domain}")
        return parameters.digest(self.config | {"code": code})

    @property
    def exported(self) -> Path:
        """Where the exported model goes."""
        return model_directory(self.domain, self.scale) / "export" / self.run_name

    @property
    def batch(self) -> int:
        """Tasks of a training batch."""
        raise NotImplementedError

    @property
    def left_out(self) -> bool:
        """Whether there are no data for it, so that its stages leave empty outputs."""
        return not self.modes

    def tasks(self):
        """Returns the distribution of the cell's training tasks."""
        raise NotImplementedError

    def learner(self) -> mm.Learner:
        """Returns the cell's learner, compiled and built, with its initial weights."""
        raise NotImplementedError

    def check_evaluation(self, params: dict) -> None:
        """Raises what would stop the evaluation, which is only after training."""

    def validation(self) -> Validation | None:
        """Returns how training measures and selects weights, None for the last ones."""
        return None

    def trained_learner(self) -> mm.Learner:
        """Returns the cell's learner with its trained weights."""
        learner = self.learner()
        with np.load(self.weights) as arrays:
            learner.set_weights([arrays[name] for name in arrays.files])
        return learner

    def save(self, weights: list, history: list[dict]) -> None:
        """Writes what training leaves: weights as raw arrays, which hash equal when they are."""
        self.weights.parent.mkdir(parents=True, exist_ok=True)
        np.savez(self.weights, **{f"{i:03d}": array for i, array in enumerate(weights)})
        self.history.parent.mkdir(parents=True, exist_ok=True)
        with open(self.history, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(history[-1]) if history else ["step"])
            writer.writeheader()
            writer.writerows(history)

    def tracker(self, stage: str) -> Tracker:
        """Returns the tracked run of this cell; its stages write to one run.

        Args:
            stage: the stage that writes.
        """
        from mmaml_tf.tracking import Tracker

        # Another configuration or other code is another run, and so is another scale.
        return Tracker(
            experiment=f"{self.domain}-{self.scale}",
            run_name=self.run_name,
            key=f"{self.run_name}-{self.identity}",
            params=self.config,
            tags={"method": self.settings["method"], "cell": self.name, f"stage.{stage}": "run"},
        )


def of(params: dict, arguments) -> Cell:
    """Returns the cell that the command line of a stage names."""
    domain = importlib.import_module(f"pipelines.{arguments.domain}")
    return domain.cell(params, arguments.scale, arguments.cell, arguments.seed)


def configure_tensorflow(threads: int) -> None:
    """Fixes the number of CPU threads, on which the last bits of results may depend."""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # one graph per family or step count is meant
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def model_directory(domain: str, scale: str) -> Path:
    """Where large outputs go (DVC's cache keeps them)."""
    return Path("models") / scale / domain


def results_directory(domain: str, scale: str) -> Path:
    """Where small outputs go (git keeps them)."""
    return Path("results") / scale / domain
