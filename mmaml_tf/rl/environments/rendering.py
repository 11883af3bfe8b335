"""Pictures of MuJoCo simulations, drawn in a process of their own."""

import pickle
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

import numpy as np

_PROGRAM = Path(__file__).with_name("drawing_process.py")


class MujocoRenderer:
    """Draws a model's state, with the goal as a red sphere.

    Args:
        model: the model.
        view: the camera's `distance` from the origin, `azimuth` and `elevation` in degrees.
        goal_radius: radius of the sphere.
        size: width and height in pixels.
    """

    def __init__(self, model, view: dict[str, float], goal_radius: float, size: int = 400):
        self._shape = (size, size, 3)
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115
        # -P keeps this folder off the program's module path, where its names might hide others.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
        )
        # The program ends with its input, which this closes.
        self._end = weakref.finalize(self, self._process.communicate)
        self._send((model, view, goal_radius, size))

    def draw(self, positions, goal) -> np.ndarray:
        """Returns the picture of positions `[nq]` and a goal `[3]`, `[size, size, 3]` uint8.

        Raises:
            RuntimeError: when no OpenGL library for drawing off screen is there, or it fails.
        """
        self._send((positions, goal))
        size = np.prod(self._shape)
        picture = self._process.stdout.read(size)
        if len(picture) < size:
            raise RuntimeError(self._failure())
        return np.frombuffer(picture, np.uint8).reshape(self._shape).copy()

    def close(self) -> None:
        """Ends the process."""
        self._end()

    def _send(self, request):
        try:
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer will be missing, and the process has said why

    def _failure(self):
        code = self._process.wait()
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").strip().splitlines() or ["?"]
        return (
            f"MuJoCo cannot draw on this machine: {lines[-1]} (exit code {code}). Choose an OpenGL "
            "backend with the environment variable MUJOCO_GL (egl or glfw), or use "
            "render_mode=None."
        )
