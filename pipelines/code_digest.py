"""Writes digests of the code that decides what stages put out.

Stages depend on a digest and not on the files, since DVC reads and writes all of a dvc.lock after
every stage: naming each file there for each stage takes seconds a stage. A checkpoint belongs to
one digest as well, so that training neither goes on from, nor takes for finished, what other code
has begun.
"""

import hashlib
import json
from pathlib import Path

from pipelines import params as parameters

_TRAINING = (
    "mmaml_tf/annealing.py",
    "mmaml_tf/distribution.py",
    "mmaml_tf/division.py",
    "mmaml_tf/encoders/running.py",
    "mmaml_tf/episodes.py",
    "mmaml_tf/learners/task_model.py",
    "mmaml_tf/initializers.py",
    "mmaml_tf/inner_loop.py",
    "mmaml_tf/keras_internals.py",
    "mmaml_tf/layers",
    "mmaml_tf/learners/meta_learner.py",
    "mmaml_tf/modulation",
    "mmaml_tf/networks",
    "mmaml_tf/nonfinite.py",
    "mmaml_tf/learners/outer_gradients.py",
    "mmaml_tf/learners/outer_step.py",
    "mmaml_tf/seeds.py",
    "mmaml_tf/training.py",
    "mmaml_tf/update_rules",
    "pipelines/cells.py",
    "pipelines/train.py",
)
_SUPERVISED_TRAINING = (
    *_TRAINING,
    "mmaml_tf/encoders",
    "mmaml_tf/learners",
    "mmaml_tf/losses.py",
)
_EVALUATION = (
    "mmaml_tf/learners/bank.py",
    "mmaml_tf/evaluation.py",
    "mmaml_tf/report.py",
    "mmaml_tf/task_metrics.py",
)
_EXPORT = ("mmaml_tf/export.py", "pipelines/export.py")

#: Files and directories, by digest. Evaluation and export depend on the digest of training too.
#: Values of parameters are dependencies one by one, and the code that reads them is left out; so
#: is what only keeps or reports the numbers.
CODE = {
    "train_regression": (
        *_SUPERVISED_TRAINING,
        "mmaml_tf/tasks/families.py",
        "mmaml_tf/tasks/functions.py",
        "pipelines/regression.py",
    ),
    "evaluate_regression": (
        *_EVALUATION,
        "mmaml_tf/tasks/held_out.py",
        "pipelines/evaluate_regression.py",
    ),
    "train_classification": (
        *_SUPERVISED_TRAINING,
        "mmaml_tf/datasets/prepared.py",
        "mmaml_tf/evaluation.py",
        "mmaml_tf/learners/protonet.py",
        "mmaml_tf/tasks/class_splits.py",
        "mmaml_tf/tasks/drawing.py",
        "mmaml_tf/tasks/held_out_images.py",
        "mmaml_tf/tasks/image_modes.py",
        "mmaml_tf/tasks/images.py",
        "mmaml_tf/tasks/splits",
        "pipelines/classification.py",
    ),
    "evaluate_classification": (
        *_EVALUATION,
        "mmaml_tf/tasks/held_out.py",
        "pipelines/evaluate_images.py",
    ),
    "train_reinforcement": (
        *_TRAINING,
        "mmaml_tf/rl/adaptation.py",
        "mmaml_tf/rl/advantages.py",
        "mmaml_tf/rl/driver.py",
        "mmaml_tf/rl/encoders.py",
        "mmaml_tf/rl/environments",
        "mmaml_tf/rl/fixed_horizon.py",
        "mmaml_tf/rl/goal_modes.py",
        "mmaml_tf/rl/goals.py",
        "mmaml_tf/rl/learners.py",
        "mmaml_tf/rl/policies.py",
        "mmaml_tf/rl/policy_learner.py",
        "mmaml_tf/rl/policy_parts.py",
        "mmaml_tf/rl/promp.py",
        "mmaml_tf/rl/rollouts.py",
        "mmaml_tf/rl/trajectories.py",
        "pipelines/reinforcement.py",
    ),
    "evaluate_reinforcement": (
        *_EVALUATION,
        "mmaml_tf/rl/evaluation.py",
        "pipelines/evaluate_policies.py",
    ),
    "export_regression": _EXPORT,
    "export_classification": _EXPORT,
    "export_reinforcement": (*_EXPORT, "mmaml_tf/rl/export.py"),
}

_ROOT = Path(__file__).parents[1]
_OUTPUT = Path("models/code")


def files(name: str, root: Path = _ROOT) -> dict[str, str]:
    """Returns the SHA-256 of each file of a digest, by its path.

    Args:
        name: one of `CODE`.
        root: the project's root.

    Raises:
        FileNotFoundError: for a file that is not there.
    """
    found = []
    for path in (root / part for part in CODE[name]):
        found += sorted(path.rglob("*.*")) if path.is_dir() else [path]
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
        if path.parent.name != "__pycache__" and not path.is_dir()
    }


def digest(name: str) -> str:
    """Returns one digest of all files of `CODE[name]`."""
    return parameters.digest(files(name))


def main() -> None:
    """Writes a file for each digest, which names its files."""
    _OUTPUT.mkdir(parents=True, exist_ok=True)
    for name in CODE:
        (_OUTPUT / f"{name}.json").write_text(json.dumps(files(name), indent=2) + "\n")


if __name__ == "__main__":
    main()
