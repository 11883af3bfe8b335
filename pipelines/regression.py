"""The cells of the regression table: from parameters to tasks and learners."""

from pathlib import Path

import keras

import mmaml_tf as mm
from mmaml_tf.seeds import derive_seed
from pipelines import params as parameters
from pipelines.cells import Cell, model_directory


class RegressionCell(Cell):
    """One trained model of the regression table."""

    domain = "regression"
    trained_by = ("iterations", "log_every", "batch_per_mode", "xla")

    @property
    def batch(self):
        """See `Cell.batch`."""
        return self.schedule["batch_per_mode"] * len(self.modes)

    def tasks(self) -> mm.tasks.FunctionTasks:
        """See `Cell.tasks`."""
        return function_tasks(self.modes, self.task_settings)

    def learner(self):
        """See `Cell.learner`."""
        s = self.settings
        common = {"outer_clip": s["outer_clip"], "on_nonfinite": s["on_nonfinite"]}
        inner_loop = mm.InnerLoop(
            s["inner_steps"],
            s["inner_learning_rate"],
            update=s.get("update"),
            clip=s["inner_clip"],
            first_order=s["first_order"],
        )
        if s["method"] == "MAML":
            learner = mm.MAML(self._network(), inner_loop=inner_loop, modes=self.modes, **common)
        elif s["method"] in ("MMAML", "LSTMLearner"):
            encoder = mm.encoders.SequenceEncoder(
                s["encoder_units"], s["encoder_layers"], seed=derive_seed(self.seed, "encoder")
            )
            modulation = type(mm.modulation.get(s["modulation"]))(
                blocks=s["blocks"], seed=derive_seed(self.seed, "modulation")
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
        learner.compile(optimizer, "mse", jit_compile=self.schedule["xla"])
        learner.build_for(self.tasks().sample(len(self.modes), self.seed))
        return learner

    def trained_learner(self):
        """See `Cell.trained_learner`.

        A Multi-MAML is the bank of the single-mode MAMLs that were trained on its modes.
        """
        if self.settings["method"] != "MultiMAML":
            return super().trained_learner()
        params = parameters.load()
        members = [cell(params, self.scale, f"single_{m}", self.seed) for m in self.modes]
        bank = mm.MultiMAML.from_learners([m.trained_learner() for m in members], self.modes)
        bank.compile(loss="mse")
        return bank

    def _network(self):
        return mm.networks.MLP(
            self.settings["hidden"],
            bias_transformation=self.settings["bias_transformation"],
            seed=derive_seed(self.seed, "network"),
        )


def cell(params: dict, scale: str, name: str, seed: int) -> RegressionCell:
    """Returns a cell of params.yaml, checked."""
    schedule = dict(parameters.regression_scale(params, scale))
    members = schedule.pop("member_iterations")
    settings = parameters.regression_cell(params, name)
    if name.startswith("single_") or settings["method"] == "MultiMAML":
        schedule["iterations"] = members
    tasks = parameters.get(params, "regression.tasks")
    return RegressionCell(name, scale, seed, settings, schedule, tasks, params["threads"])


def function_tasks(modes, settings: dict) -> mm.tasks.FunctionTasks:
    """Returns the tasks of some modes by `regression.tasks` of params.yaml."""
    return mm.tasks.FunctionTasks(
        modes,
        support=settings["support"],
        queries=settings["query"],
        noise=settings["noise"],
        x_range=settings["x_range"],
    )


def held_out_path(scale: str) -> Path:
    """Where the held-out tasks are."""
    return model_directory("regression", scale) / "held_out.npz"


def bayes_path(scale: str) -> Path:
    """Where the posteriors of the held-out tasks are."""
    return model_directory("regression", scale) / "bayes.npz"
