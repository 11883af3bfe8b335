"""A copy of the project in a temporary Git repository, to run its pipeline in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from pipelines import warm_python

ROOT = Path(__file__).parents[1]
#: what DVC and the stages of a domain import
PACKAGES = dict.fromkeys(
    ("regression", "classification"),
    ("keras", "mlflow", "dvc.cli", "dvc.commands.repro", "matplotlib.pyplot", "sklearn.manifold"),
)
PACKAGES["reinforcement"] = (
    *PACKAGES["regression"], "mujoco", "tf_agents.drivers.dynamic_step_driver"
)  # fmt: skip


def run(repository, *command, check=True, **kwargs):
    """Runs a command in the repository; returns what it wrote."""
    done = subprocess.run(
        command, cwd=repository.path, env=repository.env, capture_output=True, text=True, **kwargs
    )
    assert not check or done.returncode == 0, (
        f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    )
    return done.stdout + done.stderr


class Repository:
    """The project's files, without its lock and results of stages, committed to a new repository.

    Args:
        path: where to.
        domain: the table whose stages are kept.
        without: stages that are not.
        change: changes params.yaml, given as a dictionary.
        env: more environment variables for the commands.
    """

    def __init__(self, path, domain, change, env=(), without=()):
        self.path = path
        # The package under test is the one in the copy, not the installed one.
        search = [str(Path(sys.executable).parent), os.environ["PATH"]]
        self.env = os.environ | {
            "PATH": os.pathsep.join([warm_python.directory(*PACKAGES[domain]), *search]),
            "PYTHONPATH": str(path),
            "MLFLOW_TRACKING_URI": f"sqlite:///{path}/mlflow.db",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **dict(env),
        }
        # Python writes bytecode for users, and a second repro must not mind it.
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)
        #: Here every stage is a process that signals reach.
        self.plain_env = self.env | {"PATH": os.pathsep.join(search)}
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file() and Path(name).name != "dvc.lock":
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, path / name)
        self.edit(lambda params: params.update(threads=1))  # other tests work beside the stages
        self.edit(change)
        self.edit(lambda pipeline: _keep(pipeline, domain, without), "dvc.yaml")
        for other in (path / "stages").iterdir():
            if other.name != domain:
                shutil.rmtree(other)
        for command in (
            ["init", "--quiet"],
            ["add", "--all"],
            ["-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "test"],
        ):
            run(self, "git", *command)

    def edit(self, change, name="params.yaml"):
        """Changes a YAML file, given as a dictionary."""
        file = self.path / name
        content = yaml.safe_load(file.read_text())
        change(content)
        file.write_text(yaml.safe_dump(content, sort_keys=False))

    def stages_run(self, *arguments):
        """Runs dvc repro; returns the names of the stages that it ran."""
        output = run(self, "dvc", "repro", *arguments)
        marker = "Running stage '"
        ran = [line.split("'")[1] for line in output.splitlines() if line.startswith(marker)]
        return [name.rpartition(":")[2] for name in ran]


def stages():
    """Returns the stages of all files by name."""
    files = [ROOT / "dvc.yaml", *ROOT.glob("stages/*/dvc.yaml")]
    return {
        name: stage
        for file in files
        for name, stage in yaml.safe_load(file.read_text())["stages"].items()
    }


def _keep(pipeline, domain, without):
    """Leaves one table's stages in dvc.yaml, and the page, which then shows that table alone."""
    kept = {"code"} | {name for name in pipeline["stages"] if _domain(name) == domain} - set(
        without
    )
    page = pipeline["stages"]["page"]
    page["deps"] = [dep for dep in page["deps"] if f"/{domain}/" in dep or dep.startswith("pipe")]
    if any(dep.startswith("results") for dep in page["deps"]):
        kept |= {"page"}
    pipeline["stages"] = {
        name: pipeline["stages"][name] for name in pipeline["stages"] if name in kept
    }
    pipeline.pop("artifacts")


def _domain(stage):
    if "image" in stage or stage == "mode_sets":
        return "classification"
    return "reinforcement" if "polic" in stage else "regression"
