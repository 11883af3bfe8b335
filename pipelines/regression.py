"""What the regression stages share: from parameters to learners, tasks and paths."""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import mmaml_tf as mm
from mmaml_tf.layers import derive_seed
from mmaml_tf.tracking import Tracker
from pipelines import params as parameters

DOMAIN = "regression"


class Cell(NamedTuple):
    """One trained model of the table.

    Attributes:
        name: key of regression.cells.
        scale: name of the scale.
        seed: seed of its initialisation and task sequence.
        settings: its complete settings.
        schedule: the scale's settings.
        task_settings: regression.tasks.
        threads: CPU threads.
    """

    name: str
    scale: str
    seed: int
    settings: dict
    schedule: dict
    task_settings: dict
    threads: int

    @property
    def modes(self) -> tuple[str, ...]:
        """The cell's function families."""
        return tuple(self.settings["modes"])

    @property
    def run_name(self) -> str:
        """The name of the cell's files and of its tracked run."""
        return f"{self.name}-{self.seed}"

    @property
    def config(self) -> dict:
        """Everything that the trained weights depend on."""
        schedule = {k: self.schedule[k] for k in ("iterations", "log_every", "batch_per_mode")}
        return {
            "cell": self.settings,
            "schedule": schedule,
            "tasks": self.task_settings,
            "seed": self.seed,
            "threads": self.threads,
        }

    @property
    def weights(self) -> Path:
        """Where training leaves the weights, as raw arrays."""
        return model_directory(self.scale) / f"{self.run_name}.npz"

    @property
    def history(self) -> Path:
        """Where training leaves its curve."""
        return results_directory(self.scale) / "history" / f"{self.run_name}.csv"

    @property
    def evaluation(self) -> Path:
        """Where evaluation leaves per-task losses and embeddings."""
        return model_directory(self.scale) / "evaluation" / f"{self.run_name}.npz"

    @property
    def metrics(self) -> Path:
        """Where evaluation leaves its metrics."""
        return results_directory(self.scale) / "metrics" / f"{self.run_name}.json"

    @property
    def checkpoints(self) -> Path:
        """Where training keeps checkpoints; another configuration has another directory."""
        digest = parameters.digest(self.config)
        return Path("checkpoints") / DOMAIN / self.scale / f"{self.run_name}-{digest}"

    @property
    def exported(self) -> Path:
        """Where the exported model goes."""
        return model_directory(self.scale) / "export" / self.run_name

    def tasks(self) -> mm.tasks.FunctionTasks:
        """Returns the cell's task distribution."""
        return mm.tasks.FunctionTasks(self.modes, **self.task_settings)

    def learner(self) -> mm.Learner:
        """Returns the cell's learner, compiled and built, with its initial weights."""
        s = self.settings
        tasks = self.tasks()
        common = {"outer_clip": s["outer_clip"], "on_nonfinite": s["on_nonfinite"]}
        inner_loop = mm.InnerLoop(
            s["inner_steps"], s["inner_learning_rate"], s["inner_clip"], s["first_order"]
        )
        if s["method"] == "MAML":
            learner = mm.MAML(self._network(), inner_loop, modes=self.modes, **common)
        elif s["method"] in ("MMAML", "LSTMLearner"):
            encoder = mm.encoders.SequenceEncoder(
                s["encoder_units"], s["encoder_layers"], seed=derive_seed(self.seed, 1)
            )
            modulation = type(mm.modulation.get(s["modulation"]))(
                blocks=s["blocks"], seed=derive_seed(self.seed, 2)
            )
            parts = {"encoder": encoder, "modulation": modulation, "modes": self.modes}
            if s["method"] == "MMAML":
                parts["inner_loop"] = inner_loop
            learner = getattr(mm, s["method"])(self._network(), **parts, **common)
        else:
            raise parameters.ParameterError(
                f"regression.cells.{self.name}.method is {s['method']!r}; expected MAML, "
                "MMAML or LSTMLearner to train."
            )
        optimizer = keras.optimizers.Adam(s["outer_learning_rate"], epsilon=1e-8)
        learner.compile(optimizer=optimizer, loss="mse")
        learner.build_for(tasks.sample(len(self.modes), self.seed))
        return learner

    def trained_learner(self) -> mm.Learner:
        """Returns the cell's learner with its trained weights.

        A Multi-MAML is the bank of the single-mode MAMLs that were trained on its modes.
        """
        if self.settings["method"] == "MultiMAML":
            members = [self._sibling(f"single_{mode}").trained_learner() for mode in self.modes]
            bank = mm.MultiMAML.from_learners(members, self.modes)
            bank.compile(loss="mse")
            return bank
        learner = self.learner()
        with np.load(self.weights) as arrays:
            learner.set_weights([arrays[name] for name in sorted(arrays.files)])
        return learner

    def tracker(self, stage: str) -> Tracker:
        """Returns the tracked run of this cell; its stages write to one run.

        Args:
            stage: the stage that writes.
        """
        # Another configuration is another run, and so is another scale.
        return Tracker(
            experiment=f"{DOMAIN}-{self.scale}",
            run_name=self.run_name,
            key=f"{self.run_name}-{parameters.digest(self.config)}",
            params=self.config,
            tags={"method": self.settings["method"], "cell": self.name, f"stage.{stage}": "run"},
        )

    def _sibling(self, name):
        params = parameters.load()
        return cell(params, self.scale, name, self.seed)

    def save_weights(self, learner) -> None:
        """Writes a learner's weights as raw arrays, which hash equal when they are equal."""
        self.weights.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            self.weights, **{f"{i:03d}": array for i, array in enumerate(learner.get_weights())}
        )

    def _network(self):
        return mm.networks.MLP(
            self.settings["hidden"],
            bias_transformation=self.settings["bias_transformation"],
            seed=derive_seed(self.seed, 0),
        )


def cell(params: dict, scale: str, name: str, seed: int) -> Cell:
    """Returns a cell of params.yaml, checked."""
    schedule = dict(parameters.regression_scale(params, scale))
    members = schedule.pop("member_iterations")
    settings = parameters.regression_cell(params, name)
    if name.startswith("single_") or settings["method"] == "MultiMAML":
        schedule["iterations"] = members
    return Cell(
        name,
        scale,
        seed,
        settings,
        schedule,
        parameters.get(params, "regression.tasks"),
        params["threads"],
    )


def configure_tensorflow(threads: int) -> None:
    """Fixes the number of CPU threads, on which the last bits of results may depend."""
    tf.get_logger().setLevel("ERROR")  # one graph per family or step count is meant
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def model_directory(scale: str) -> Path:
    """Where large outputs go (DVC's cache keeps them)."""
    return Path("models") / scale / DOMAIN


def results_directory(scale: str) -> Path:
    """Where small outputs go (git keeps them)."""
    return Path("results") / scale / DOMAIN


def held_out_path(scale: str) -> Path:
    """Where the held-out tasks are."""
    return model_directory(scale) / "held_out.npz"


def bayes_path(scale: str) -> Path:
    """Where the posteriors of the held-out tasks are."""
    return model_directory(scale) / "bayes.npz"
