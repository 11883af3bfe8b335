"""A `python` and a `dvc` that have imported the large packages already.

Importing TensorFlow and MLflow takes ten seconds of processor time and more, which is longer than
what many stages do at the smaller scales. `directory` returns a directory for the front of PATH.
The commands in it hand their arguments, environment and streams to a process that has imported the
packages and forks a child for each call. No operation has run before, so that TensorFlow's threads
start in the children only; the project itself is imported by the child, from its own paths.

SIGTERM is passed on to the child, an interrupt in a terminal reaches it by itself, and what cannot
be passed on, such as SIGKILL, ends the command alone.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_CLIENT = """#!{python} -IS
import contextlib, json, os, signal, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
arguments = [*{prefix}, *sys.argv[1:]]
request = {{"arguments": arguments, "directory": os.getcwd(), "environment": dict(os.environ)}}
data = json.dumps(request).encode()
socket.send_fds(connection, [len(data).to_bytes(8, "big")], [0, 1, 2])
connection.sendall(data)
answers = connection.makefile()
child = int(answers.readline())

def pass_on(number, frame):
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)

signal.signal(signal.SIGTERM, pass_on)
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.exit(int(answers.readline() or 1))
"""


@functools.cache
def directory(*packages: str) -> str:
    """Starts a process that imports packages and ends with this one.

    Returns:
        The directory that goes to the front of PATH, once the packages are imported.

    Raises:
        RuntimeError: when one of the packages cannot be imported.
    """
    folder = Path(tempfile.mkdtemp())
    address = str(folder / "socket")
    for name, prefix in {"python": [], "dvc": ["-m", "dvc"]}.items():
        client = folder / name
        client.write_text(_CLIENT.format(python=sys.executable, address=address, prefix=prefix))
        client.chmod(client.stat().st_mode | stat.S_IXUSR)
    command = [sys.executable, "-P", __file__, address, *packages]
    # Its standard input ends when this process does.
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    while not os.path.exists(address):
        if process.poll() is not None:
            raise RuntimeError(f"importing {', '.join(packages)} failed, as said above.")
        time.sleep(0.05)
    return str(folder)


def _serve(address, packages):
    """Forks at every call; returns what was asked for, in the child alone."""
    for package in packages:
        importlib.import_module(package)
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen()
    os.rename(address + ".new", address)  # seen when it answers
    # A signal to all processes is for the children, whose status is to be told.
    ignored = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    while True:
        ready, _, _ = select.select([sys.stdin, listener], [], [])
        if sys.stdin in ready:
            shutil.rmtree(Path(address).parent)
            os._exit(0)
        connection, _ = listener.accept()
        if not os.fork():
            break
        connection.close()
    listener.close()
    signal.signal(signal.SIGCHLD, before[signal.SIGCHLD])
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    request = json.loads(connection.makefile("rb").read(int.from_bytes(size, "big")))
    if child := os.fork():
        with contextlib.suppress(BrokenPipeError):  # the command was killed
            connection.sendall(f"{child}\n".encode())
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            # As shells tell of signals.
            connection.sendall(f"{status if status >= 0 else 128 - status}\n".encode())
        os._exit(0)
    connection.close()
    for number, handler in before.items():
        signal.signal(number, handler)
    for stream, number in zip(streams, (0, 1, 2), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    return request


def _become(request):
    """Runs a module as `python -m` does, or else what `python` itself does."""
    if request["arguments"][:1] != ["-m"]:
        os.chdir(request["directory"])
        os.execve(sys.executable, [sys.executable, *request["arguments"]], request["environment"])
    module, *arguments = request["arguments"][1:]
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [request["directory"], *filter(None, paths)]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _become(_serve(sys.argv[1], sys.argv[2:]))
