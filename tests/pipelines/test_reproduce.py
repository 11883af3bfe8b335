"""Rebuilding with several trainings at a time, on a pipeline of shell commands."""

import os
import signal
import subprocess
import sys
import time

import networkx as nx
import psutil
import pytest
import yaml
from repository import ROOT

from pipelines.reproduce import plan

ADDRESS = "stages/rl/dvc.yaml:"


def graph():
    return nx.DiGraph(
        [
            ("train@a", "code"), ("train@b", "code"), ("code", "scan"),
            (f"{ADDRESS}train_policies@c", "code"),
            ("evaluate@a", "train@a"), ("evaluate@a", "tasks"), ("evaluate@b", "train@b"),
            (f"{ADDRESS}evaluate_policies@c", f"{ADDRESS}train_policies@c"),
            ("evaluate_multi@ab", "train@a"), ("evaluate_multi@ab", "train@b"),
            ("report", "evaluate@a"), ("report", "evaluate_multi@ab"), ("other", "scan"),
        ]
    )  # fmt: skip


def test_each_training_goes_with_what_needs_it_alone():
    groups, needs = plan(graph(), [])
    policies = [f"{ADDRESS}train_policies@c", f"{ADDRESS}evaluate_policies@c"]
    assert sorted(groups.values()) == [
        ["code"], ["evaluate_multi@ab"], ["other"], ["report"], ["scan"],
        policies, ["tasks"], ["train@a", "evaluate@a"], ["train@b", "evaluate@b"],
    ]  # fmt: skip
    assert needs == {
        "scan": set(), "tasks": set(), "code": {"scan"}, "other": {"scan"},
        policies[0]: {"code"}, "train@a": {"code", "tasks"}, "train@b": {"code"},
        "evaluate_multi@ab": {"train@a", "train@b"}, "report": {"train@a", "evaluate_multi@ab"},
    }  # fmt: skip


def test_targets_bring_what_they_depend_on_and_no_more():
    assert plan(graph(), ["other"])[1] == {"scan": set(), "other": {"scan"}}
    groups, _ = plan(graph(), ["evaluate_multi@ab"])
    assert set(groups) == {"scan", "code", "train@a", "train@b", "evaluate_multi@ab"}


# Each training waits for the other to have begun, so that one after the other they would fail.
WAIT = (
    "touch begun_{0}; for i in $(seq 300); do [ -e begun_{1} ] && break; sleep 0.1; done; "
    "[ -e begun_{1} ] && {2}"
)


@pytest.fixture
def project(tmp_path):
    def make(last_of_b="echo b > b"):
        stages = {
            "code": {"cmd": "echo code > code", "outs": ["code"]},
            "train_a": {"cmd": WAIT.format("a", "b", "echo a > a")},
            "train_b": {"cmd": WAIT.format("b", "a", last_of_b)},
            "evaluate_a": {"cmd": "cp a a_score", "deps": ["a"], "outs": ["a_score"]},
            "report": {"cmd": "cat a b > report", "deps": ["a", "b"], "outs": ["report"]},
        }
        for name in "ab":
            stages[f"train_{name}"] |= {"deps": ["code"], "outs": [name]}
        (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
        init = [sys.executable, "-m", "dvc", "init", "-q", "--no-scm"]
        subprocess.run(init, cwd=tmp_path, check=True)
        return tmp_path

    return make


def reproduce(project, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipelines.reproduce", *arguments]
    return subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_two_trainings_run_at_the_same_time(project):
    folder = project()
    process = reproduce(folder)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output.decode()
    assert (folder / "report").read_text() == "a\nb\n"
    assert (folder / "a_score").exists()
    locked = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    assert sorted(locked) == ["code", "evaluate_a", "report", "train_a", "train_b"]
    again, _ = reproduce(folder).communicate(timeout=120)
    assert b"Running stage" not in again


def test_a_failed_training_leaves_the_others_to_finish(project):
    folder = project(last_of_b="false")
    process = reproduce(folder)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert b"failed to reproduce" in output and b"Not all stages" in output
    assert (folder / "a_score").exists() and b"'report'" not in output


@pytest.mark.parametrize("jobs", [1, 2])
def test_sigterm_reaches_the_trainings(project, jobs):
    folder = project(last_of_b="sleep 120")
    process = reproduce(folder, "--jobs", str(jobs))
    for _ in range(600):
        if len(list(folder.glob("begun_*"))) == jobs:
            break
        time.sleep(0.1)
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    _, alive = psutil.wait_procs(started, timeout=30)
    assert started and not alive


TRAINING = """
import signal, sys, time
from pathlib import Path

name = sys.argv[1]
assert "keras" in sys.modules

def save(number, frame):
    time.sleep(3)
    Path(f"saved_{name}").touch()
    sys.exit(128 + number)

signal.signal(signal.SIGTERM, save)
Path(f"begun_{name}").touch()
time.sleep(60)
"""


def test_trainings_whose_packages_are_imported_already_save_when_terminated(project):
    folder = project()
    pipeline = yaml.safe_load((folder / "dvc.yaml").read_text())
    for name in "ab":
        pipeline["stages"][f"train_{name}"]["cmd"] = f"python -m training {name}"
    (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    (folder / "training.py").write_text(TRAINING)
    process = reproduce(folder)
    for _ in range(900):
        if len(list(folder.glob("begun_*"))) == 2:
            break
        time.sleep(0.1)
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert len(list(folder.glob("saved_*"))) == 2, "it did not wait for them"
    _, alive = psutil.wait_procs(started, timeout=30)
    assert started and not alive


@pytest.mark.parametrize(
    "arguments, message",
    [(["--jobs", "0"], b"--jobs is 0; it must be at least 1"), (["trian"], b"'trian'")],
)
def test_bad_arguments_are_refused_before_anything_runs(project, arguments, message):
    process = reproduce(project(), *arguments)
    output, _ = process.communicate(timeout=60)
    assert process.returncode and message in output
    assert b"Traceback" not in output and b"Running stage" not in output
