"""Commands whose process is forked from one that has imported packages behave like their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines import warm_python

MODULE = """
import os, signal, sys, time
from pathlib import Path

def terminated(number, frame):
    Path("terminated").touch()
    sys.exit(128 + number)

print("imported" if "colorsys" in sys.modules else "not imported", sys.stdin.read())
print(os.getcwd(), os.environ["OF_THE_CALL"], *sys.argv[1:], __name__, file=sys.stderr)
if "wait" in sys.argv:
    signal.signal(signal.SIGTERM, terminated)
    Path("waits").write_text(str(os.getpid()))
    time.sleep(60)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def warm():
    """The `python` and its server."""
    # A package that nothing else imports.
    return os.path.join(warm_python.directory("colorsys"), "python"), warm_python.SERVERS[-1]


@pytest.fixture
def call(warm, tmp_path):
    (tmp_path / "look.py").write_text(MODULE)

    def start(*arguments):
        return subprocess.Popen(
            [warm[0], *arguments],
            cwd=tmp_path,
            env=os.environ | {"OF_THE_CALL": "seen"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_a_module_has_the_calls_arguments_streams_directory_and_environment(call, tmp_path):
    process = call("-m", "look", "3", "b c")
    assert process.communicate("given") == (
        "imported given\n",
        f"{tmp_path} seen 3 b c __main__\n",
    )
    assert process.returncode == 3


def test_other_calls_are_those_of_python(call):
    process = call("-c", "import sys; print(sys.argv, 'colorsys' in sys.modules); sys.exit(4)", "a")
    assert process.communicate()[0] == "['-c', 'a'] False\n"
    assert process.returncode == 4


def wait_for(path):
    for _ in range(600):
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


def test_sigterm_reaches_the_module(call, tmp_path):
    process = call("-m", "look", "0", "wait")
    process.stdin.close()
    wait_for(tmp_path / "waits")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert (tmp_path / "terminated").exists()


def left_of(warm):
    """The processes that calls have left, after a while."""
    for _ in range(100):
        if not (left := psutil.Process(warm[1].pid).children(recursive=True)):
            break
        time.sleep(0.05)
    return left


def test_no_sigterm_is_lost(call, warm):
    for delay in range(0, 160, 4):
        process = call("-m", "look", "0", "wait")
        process.stdin.close()
        time.sleep(delay / 1000)
        process.send_signal(signal.SIGTERM)
        if process.wait(timeout=30) != 128 + signal.SIGTERM:
            # It came before the server was called.
            assert process.returncode == -signal.SIGTERM
            assert not psutil.Process(warm[1].pid).children()
        assert not left_of(warm)


def test_a_killed_command_ends_the_module(call, warm, tmp_path):
    process = call("-m", "look", "0", "wait")
    process.stdin.close()
    wait_for(tmp_path / "waits")
    process.kill()
    assert not left_of(warm)
    assert (tmp_path / "terminated").exists()


def test_a_killed_module_ends_the_command(call, tmp_path):
    process = call("-m", "look", "0", "wait")
    process.stdin.close()
    os.kill(wait_for(tmp_path / "waits"), signal.SIGKILL)
    assert process.wait(timeout=30) == 128 + signal.SIGKILL


def test_packages_that_are_not_there_are_named(capfd):
    with pytest.raises(RuntimeError, match=r"importing no_such_package failed"):
        warm_python.directory("no_such_package")
    assert "ModuleNotFoundError" in capfd.readouterr().err


def test_nothing_is_left_when_the_process_that_asked_has_ended():
    script = "from pipelines import warm_python; print(warm_python.directory('colorsys'))"
    root = Path(warm_python.__file__).parents[1]
    asked = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    folder = Path(asked.stdout.strip())
    assert folder.is_absolute()
    for _ in range(200):
        if not folder.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{folder} is left")
