"""A `python` and a `dvc` for pipelines under test that have imported the large packages already.

Importing TensorFlow and MLflow takes longer than what a stage does at `smoke` scale. `directory`
returns a directory for the front of PATH. The commands in it hand their arguments, environment and
streams to a process that has imported the packages and forks a child for each call. No operation
has run before, so that TensorFlow's threads start in the children only; the project itself is
imported by the child, from its own paths. A signal reaches the command that was called, and not
the child: tests of signals leave the directory out.
"""

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

CLIENT = """#!{python} -IS
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
arguments = [*{prefix}, *sys.argv[1:]]
request = {{"arguments": arguments, "directory": os.getcwd(), "environment": dict(os.environ)}}
data = json.dumps(request).encode()
socket.send_fds(connection, [len(data).to_bytes(8, "big")], [0, 1, 2])
connection.sendall(data)
sys.exit(int(connection.makefile().read() or 1))
"""


@functools.cache
def directory(*packages):
    """Starts a process that imports packages and ends with this one; returns what goes on PATH."""
    folder = Path(tempfile.mkdtemp())
    address = str(folder / "socket")
    for name, prefix in {"python": [], "dvc": ["-m", "dvc"]}.items():
        client = folder / name
        client.write_text(CLIENT.format(python=sys.executable, address=address, prefix=prefix))
        client.chmod(client.stat().st_mode | stat.S_IXUSR)
    command = [sys.executable, "-P", __file__, address, *packages]
    # Its standard input ends when this process does.
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    while not os.path.exists(address):
        assert process.poll() is None, "importing the packages failed"
        time.sleep(0.05)
    return str(folder)


def serve(address, packages):
    """Forks at every call; returns what was asked for, in the child alone."""
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
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    request = json.loads(connection.makefile("rb").read(int.from_bytes(size, "big")))
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(str(status % 256).encode())
        os._exit(0)
    connection.close()
    for stream, number in zip(streams, (0, 1, 2), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    return request


def become(request):
    """Runs a module as `python -m` does."""
    flag, module, *arguments = request["arguments"]
    assert flag == "-m", f"python {flag} is not what stages call"
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [request["directory"], *filter(None, paths)]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    become(serve(sys.argv[1], sys.argv[2:]))
