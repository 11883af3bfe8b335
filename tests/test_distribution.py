"""Training on several devices and in several processes gives what training on one device gives."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
SCRIPT = HERE / "distributed_training.py"
CASES = ("maml", "mmaml", "multi_maml", "moving_averages", "proto_net")


def start(file, devices, **environment):
    """Starts a process that trains all learners; returns it, and the file it writes."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, SCRIPT, file, str(devices)]
    environment = os.environ | {"PYTHONPATH": path} | environment
    output = open(file.with_suffix(".log"), "w")  # noqa: SIM115
    with output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    return process, file


def cluster(folder, size):
    """Starts a process for each of a cluster of hosts on this machine."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(size)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for index in range(size):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        yield start(folder / f"host{index}.npz", 1, TF_CONFIG=config)


def finish(*started):
    """Returns the arrays that processes wrote."""
    for process, file in started:
        log = file.with_suffix(".log")
        assert process.wait(timeout=600) == 0, log.read_text()[-3000:]
    return [dict(np.load(file)) for _, file in started]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return finish(start(folder / "one.npz", 1))[0]


@pytest.fixture(scope="module", params=["2 devices", "4 devices", "2 processes"])
def several(request, tmp_path_factory):
    """What each process of a division wrote."""
    folder = tmp_path_factory.mktemp("several")
    number, kind = request.param.split()
    if kind == "processes":
        return finish(*cluster(folder, int(number)))
    return finish(start(folder / "several.npz", int(number)))


@pytest.mark.parametrize("case", CASES)
def test_weights_and_logs_do_not_depend_on_the_division(one, several, case):
    names = [name for name in one if name.startswith(f"{case}: ")]
    assert any("array" in name for name in names)
    assert any("log loss" in name for name in names)
    for found in several:
        assert set(found) == set(one)
        for name in names:
            np.testing.assert_allclose(found[name], one[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_training_changed_every_weight(one):
    """A step that did nothing would be the same on any number of devices."""
