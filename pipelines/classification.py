"""The cells of the classification table: from parameters to image tasks and learners.

What is heavy is imported where it is used, see `pipelines.cells`.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import params as parameters
from pipelines.cells import Cell, model_directory

if TYPE_CHECKING:
    import mmaml_tf as mm

# A validation's tasks are others than those of the final evaluation, even on the same classes.
_VALIDATION_SEED = 1


class ImageCell(Cell):
    """One trained model of the classification table."""

    domain = "classification"
    trained_by = (
        "image_size",
        "filters",
        "embedding",
        "queries",
        "iterations",
        "batch",
        "log_every",
        "validation_every",
        "validation_tasks",
        "xla",
    )

    @property
    def batch(self):
        """See `Cell.batch`."""
        return self.schedule["batch"]

    def tasks(self, split: str = "train") -> mm.tasks.ImageTasks:
        """Returns the cell's tasks of a split; those of validation and test may have fewer ways."""
        import mmaml_tf as mm
        from mmaml_tf.datasets import PreparedImages

        directory = images_directory(self.scale)
        size = self.schedule["image_size"]
        sources = [PreparedImages.load(directory / mode, mode, size) for mode in self.modes]
        splits = self.task_settings["splits"]
        return mm.tasks.ImageTasks(
            [mm.tasks.ImageMode.of(images, splits.get(images.name)) for images in sources],
            self.settings["ways"],
            self.settings["support"],
            self.schedule["queries"],
            split,
            fewer_ways=split != "train",
        )

    def held_out(self, params: dict, tasks_per_mode: int):
        """Returns the tasks of the evaluation."""
        seed = parameters.get(params, "classification.evaluation.seed")
        return self.tasks("test").held_out(tasks_per_mode, seed)

    def check_evaluation(self, params):
        """See `Cell.check_evaluation`."""
        next(self.held_out(params, 1).batches())

    def learner(self):
        """See `Cell.learner`."""
        import keras

        import mmaml_tf as mm
        from mmaml_tf.seeds import derive_seed

        s, filters = self.settings, self.schedule["filters"]
        outputs = None if s["method"] == "ProtoNet" else s["ways"]
        network = mm.networks.ConvNet(
            filters,
            outputs,
            s["statistics"],
            seed=derive_seed(self.seed, "network"),
            dtype=s["dtype"],
        )
        inner_loop = mm.InnerLoop(
            s["inner_steps"],
            s["inner_learning_rate"],
            update=s.get("update"),
            clip=s["inner_clip"],
            first_order=s["first_order"],
            head_only=s["head_only"],
        )
        common = {
            "modes": self.modes,
            "outer_clip": s["outer_clip"],
            "on_nonfinite": s["on_nonfinite"],
            # No more than the largest test tasks, of which some modes have fewer classes.
            "fewer_ways": True,
        }
        if s["method"] == "MAML":
            learner = mm.MAML(network, inner_loop=inner_loop, **common)
        elif s["method"] == "MMAML":
            encoder = mm.encoders.ImageEncoder(
                filters,
                self.schedule["embedding"],
                label_classes=s["ways"] if s["encoder_sees_labels"] else 0,
                seed=derive_seed(self.seed, "encoder"),
                dtype=s["dtype"],
            )
            modulation = type(mm.modulation.get(s["modulation"]))(
                blocks=s["blocks"], seed=derive_seed(self.seed, "modulation")
            )
            learner = mm.MMAML(
                network, encoder=encoder, modulation=modulation, inner_loop=inner_loop, **common
            )
        elif s["method"] == "ProtoNet":
            learner = mm.ProtoNet(network, ways=s["ways"], **common)
        else:
            raise parameters.ParameterError(
                f"the method of cell {self.name!r} is {s['method']!r}; expected MAML, MMAML or "
                "ProtoNet."
            )
        learner.compile(
            keras.optimizers.Adam(s["outer_learning_rate"], epsilon=1e-8),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
            jit_compile=self.schedule["xla"],
        )
        learner.build_for(self.tasks().sample(1, self.seed))
        return learner

    def validation(self):
        """See `Cell.validation`: the accuracy on tasks of the validation classes."""
        from mmaml_tf.evaluation import Evaluator
        from mmaml_tf.training import Validation

        held_out = self.tasks("validation").held_out(
            self.schedule["validation_tasks"], _VALIDATION_SEED
        )

        evaluator = functools.cache(Evaluator)  # training measures the one learner many times

        def measure(learner):
            report = evaluator(learner)(held_out)
            accuracy = {f"accuracy_{mode}": report.estimate(mode).mean for mode in report.modes}
            loss = report.estimate(measure="loss").mean
            return {"score": report.estimate().mean, "loss": loss, **accuracy}

        return Validation(measure, self.schedule["validation_every"])


def cell(params: dict, scale: str, name: str, seed: int) -> ImageCell:
    """Returns a cell of params.yaml, checked, with the modes whose images are there."""
    settings = parameters.classification_cell(params, name)
    schedule = dict(parameters.classification_scale(params, scale))
    method, mode_set, protocol = name.split("-")
    members = schedule.pop("member_iterations")
    iterations = members if method == "single" else schedule["iterations"]
    batch = settings.pop("batch") or schedule["batch"][protocol]
    embedding = settings.pop("embedding") or schedule["embedding"]
    schedule |= {"iterations": iterations[protocol], "batch": batch, "embedding": embedding}
    found = mode_set_file(scale, mode_set)
    if not found.is_file():
        stage = parameters.stage("classification", f"mode_sets@{scale}")
        raise SystemExit(
            f"{found} is missing; `dvc repro {stage}` finds out which images there are."
        )
    images = json.loads(found.read_text())
    settings |= {"modes": list(images["modes"])}
    tasks = {
        "splits": parameters.get(params, "classification.splits"),
        "images": images["modes"],
    }
    return ImageCell(name, scale, seed, settings, schedule, tasks, params["threads"])


def sources_file(scale: str, dataset: str) -> Path:
    """Where it is written which files of a dataset were found."""
    return model_directory("classification", scale) / "sources" / f"{dataset}.json"


def images_directory(scale: str) -> Path:
    """Where the prepared images are, in a folder for each dataset."""
    return model_directory("classification", scale) / "images"


def mode_set_file(scale: str, mode_set: str) -> Path:
    """Where it is written which modes a mode set has here."""
    return model_directory("classification", scale) / "modes" / f"{mode_set}.json"
