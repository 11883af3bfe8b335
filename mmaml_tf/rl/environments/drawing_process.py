"""The program that draws MuJoCo simulations off screen; `MujocoRenderer` runs it.

It reads pickles from its input: first (model, view, goal radius, size), then (positions, goal)
again and again, and answers each of these with the bytes of a picture. It imports neither
TensorFlow nor this package: Mesa's software renderer and TensorFlow each bring a version of LLVM,
and a process that loads both crashes.
"""

import ctypes
import importlib
import os
import pickle
import platform
import sys

import mujoco
import numpy as np

# Of MuJoCo's off-screen backends on Linux, what each loads; the first that is there is used.
_BACKENDS = {"mujoco.egl": "libEGL.so.1", "mujoco.osmesa": "libOSMesa.so.8"}
_RED = np.array([0.85, 0.1, 0.1, 1.0], np.float32)


def main():
    """Answers requests until the input ends."""
    # Libraries may print; what they print must not get among the pictures.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    model, view, goal_radius, size = pickle.load(requests)
    gl = importlib.import_module(_backend()).GLContext(size, size)
    gl.make_current()
    drawing = _Drawing(model, view, goal_radius, size)
    while True:
        try:
            positions, goal = pickle.load(requests)
        except EOFError:
            break
        answers.write(drawing.draw(positions, goal).tobytes())
        answers.flush()
    # The context that draws needs OpenGL's, so it goes first.
    drawing.context.free()
    gl.free()


class _Drawing:
    def __init__(self, model, view, goal_radius, size):
        self.context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self.context)
        self._model, self._data = model, mujoco.MjData(model)
        self._goal_radius = np.full(3, goal_radius)
        self._rectangle = mujoco.MjrRect(0, 0, size, size)
        self._scene = mujoco.MjvScene(model, maxgeom=200)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        for name, value in view.items():
            setattr(self._camera, name, value)

    def draw(self, positions, goal):
        self._data.qpos[:] = positions
        mujoco.mj_forward(self._model, self._data)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        scene = self._scene
        mujoco.mjv_updateScene(
            self._model, self._data, self._option, None, self._camera, everything, scene
        )
        sphere, turn = mujoco.mjtGeom.mjGEOM_SPHERE, np.eye(3).ravel()
        mujoco.mjv_initGeom(scene.geoms[scene.ngeom], sphere, self._goal_radius, goal, turn, _RED)
        scene.ngeom += 1
        image = np.empty((self._rectangle.height, self._rectangle.width, 3), np.uint8)
        mujoco.mjr_render(self._rectangle, scene, self.context)
        mujoco.mjr_readPixels(image, None, self._rectangle, self.context)
        return image[::-1]  # OpenGL's first row is the lowest


def _backend():
    """Returns the module of MuJoCo that makes an OpenGL context on this machine."""
    if os.environ.get("MUJOCO_GL") or platform.system() != "Linux":
        return "mujoco.gl_context"  # MuJoCo's own choice
    for module, library in _BACKENDS.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return module
    sys.exit(
        f"none of {tuple(_BACKENDS.values())} is installed (Debian: libegl1 with "
        "libgl1-mesa-dri, or libosmesa6)"
    )


if __name__ == "__main__":
    main()
