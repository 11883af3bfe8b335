"""The command line ends well when its output goes nowhere, and helps at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmaml_tf as mm
from mmaml_tf import __main__ as module
from mmaml_tf.command_line.errors import InputError
from mmaml_tf.command_line.output import write_table


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ
        | {"PYTHONPATH": str(Path(mm.__file__).parents[1]), "PYTHONUNBUFFERED": ""},
        stderr=subprocess.PIPE, text=True, timeout=60, **options,
    )  # fmt: skip


def closed_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("arguments", [["--help"], ["adapt", "--help"], ["classify", "--help"]])
def test_help_into_a_closed_pipe(arguments):
    done = run("-m", "mmaml_tf", *arguments, stdout=closed_pipe())
    assert (done.returncode, done.stderr) == (141, "")


def test_help_comes_without_tensorflow():
    imports = (
        "import sys, runpy; sys.argv[:] = ['-m', '--help']; sys.orig_argv[1:] = ['-m', 'mmaml_tf']"
    )
    script = f"""
{imports}
try:
    runpy.run_module("mmaml_tf", run_name="__main__")
except SystemExit:
    print(sorted({{"tensorflow", "keras"}} & set(sys.modules)))
"""
    done = run("-c", script, stdout=subprocess.PIPE)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_table_into_a_closed_pipe(monkeypatch, capfd):
    class Pipe:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

        def fileno(self):
            return closed

    closed = closed_pipe()
    monkeypatch.setattr(sys, "stdout", Pipe())
    monkeypatch.setattr(module, "_run", lambda _: write_table(["x"], [[1]]))
    assert module.main([]) == 141
    os.write(closed, b"to nowhere")  # as Python does at exit
    os.close(closed)
    assert capfd.readouterr().err == ""


def test_ctrl_c(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_run", interrupted)
    assert module.main([]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_output_that_cannot_be_written_is_refused(monkeypatch, tmp_path):
    with open(tmp_path / "out", "w", encoding="ascii") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(InputError, match=r"ascii has no '\\xe9'; set PYTHONIOENCODING"):
            write_table(["é"], [])
    with open("/dev/full", "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(InputError, match=r"cannot be written: .*space"):
            write_table(["x"], [[1]])
        stdout.buffer.raw.close()
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(InputError, match="cannot be written"):
        write_table(["x"], [[1]])
