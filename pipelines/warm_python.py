"""A `python` and a `dvc` that have imported the large packages already.

Importing TensorFlow and MLflow takes ten seconds of processor time and more, which is longer than
what many stages do at the smaller scales. `directory` returns a directory for the front of PATH.
The commands in it hand their arguments, environment and streams to a process, the server, that has
imported the packages and forks a child for each call. No operation has run before, so that
TensorFlow's threads start in the children only; the project itself is imported by the child, from
its own paths.

A SIGTERM of the command is passed on to the child, which also gets one when the command is killed;
an interrupt in a terminal reaches the child by itself. Needs Linux.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: the running servers, which end with this process
SERVERS = []

_HELD = {signal.SIGINT, signal.SIGTERM}
_COMMAND = """#!/bin/sh
exec {python} -IS {client} {address} {prefix} "$@"
"""
_CLIENT = f"""
import contextlib, json, os, signal, socket, sys

# They wait until it is known where to pass them on to.
signal.pthread_sigmask(signal.SIG_BLOCK, {set(map(int, _HELD))})
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
request = {{"arguments": sys.argv[2:], "directory": os.getcwd(), "environment": dict(os.environ)}}
data = json.dumps(request).encode()
socket.send_fds(connection, [len(data).to_bytes(8, "big")], [0, 1, 2])
connection.sendall(data)
answers = connection.makefile()
child = int(answers.readline() or sys.exit(1))

def pass_on(number, frame):
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)

signal.signal(signal.SIGTERM, pass_on)
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
sys.exit(int(answers.readline() or 1))
"""


@functools.cache
def directory(*packages: str) -> str:
    """Starts a process that imports packages and ends with this one.

    Args:
        *packages: names of modules; a second call with the same ones starts nothing.

    Returns:
        The directory that goes to the front of PATH, once the packages are imported.

    Raises:
        RuntimeError: when a package cannot be imported or the commands cannot be run.
    """
    folder = Path(tempfile.mkdtemp())
    address, client = folder / "socket", folder / "client.py"
    client.write_text(_CLIENT)
    quoted = {
        "python": shlex.quote(sys.executable),
        "client": shlex.quote(str(client)),
        "address": shlex.quote(str(address)),
    }
    for name, prefix in {"python": "", "dvc": "-m dvc"}.items():
        (folder / name).write_text(_COMMAND.format(prefix=prefix, **quoted))
        (folder / name).chmod(0o700)
    # Its standard input ends when this process does.
    server = subprocess.Popen(
        [sys.executable, "-P", __file__, str(address), *packages], stdin=subprocess.PIPE
    )
    SERVERS.append(server)
    while not address.exists():
        if server.poll() is not None:
            shutil.rmtree(folder)
            raise RuntimeError(f"importing {', '.join(packages)} failed, as said above.")
        time.sleep(0.05)
    try:
        subprocess.run([folder / "python", "-c", ""], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"{folder / 'python'} cannot be run ({error}).") from error
    return str(folder)


def _serve(address, packages):
    """Forks at every call; returns what was asked for, in the child alone."""
    # A signal to all processes is for the children, and stays pending until one can handle it.
    # Held before the packages start threads, which would take it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    for package in packages:
        importlib.import_module(package)
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    listener.listen()
    os.rename(address + ".new", address)  # seen when it answers
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
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
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        size, streams, _, _ = socket.recv_fds(connection, 8, 3)
        request = json.loads(connection.makefile("rb").read(int.from_bytes(size, "big")))
    except ValueError:  # the command was killed
        os._exit(1)
    if child := os.fork():
        _watch(child, connection)
        os._exit(0)
    connection.close()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    for stream, number in zip(streams, (0, 1, 2), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    return request


def _watch(child, connection):
    """Tells the command which process its child is and how it ended; ends it when it is alone."""
    ends = os.pidfd_open(child)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{child}\n".encode())
    ready, _, _ = select.select([ends, connection], [], [])
    if connection in ready:
        os.kill(child, signal.SIGTERM)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        # As shells tell of signals.
        connection.sendall(f"{status if status >= 0 else 128 - status}\n".encode())


def _become(request):
    """Runs a module as `python -m` does, or else what `python` itself does."""
    os.chdir(request["directory"])
    if request["arguments"][:1] != ["-m"]:
        os.execve(sys.executable, [sys.executable, *request["arguments"]], request["environment"])
    module, *arguments = request["arguments"][1:]
    os.environ.clear()
    os.environ.update(request["environment"])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [request["directory"], *filter(None, paths)]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _become(_serve(sys.argv[1], sys.argv[2:]))
