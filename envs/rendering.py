"""MuJoCo's pixels without a display: which OpenGL, and one camera's picture."""

import importlib
import logging
import os
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import parent_process
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.suggest import nearest

log = logging.getLogger(__name__)

QUALITIES = ("fast", "full")
PACKAGES = "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri (or libosmesa6 libgl1)"
PROBE = """
import mujoco
context = mujoco.GLContext(8, 8)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100).free()
context.free()
"""
NEWEST_PYTHON = (3, 12)  # that labmaze has wheels for, a dependency of dm_control
_working: set[str] = set()  # values of MUJOCO_GL that this process has tried

DISTANCE = 1.5  # of a movable camera, in extents of the model: MuJoCo's default
HIDDEN_GROUP = 5  # geoms of this group are not drawn by default


def load_suite() -> Any:
    """The module `dm_control.suite`, ready to render; see `load_module`."""
    return load_module("dm_control.suite")


def load_module(name: str) -> Any:
    """A module of dm_control, ready to render.

    Raises:
        RuntimeError: dm_control is missing, MuJoCo is a version that it does not work with, or nothing renders.
    """
    choose_backend()
    try:
        absl = importlib.import_module("absl.logging")
        absl.set_verbosity(absl.ERROR)  # else each run tells how it looks for OpenGL and what its models deprecate
        logging.getLogger("OpenGL").setLevel(logging.WARNING)
        return importlib.import_module(name)
    except (ImportError, AttributeError, RuntimeError) as error:  # what PyOpenGL raises without its library
        raise RuntimeError(f"MUJOCO_GL={os.environ.get('MUJOCO_GL')} fails ({error}): {PACKAGES}") from error


def choose_backend() -> None:
    """Set MUJOCO_GL, which MuJoCo reads once when it is imported, to what works here; the user's choice is tried alone.

    Raises:
        RuntimeError: dm_control is missing, or MuJoCo is a version that it does not work with; the user's choice does
            not work, or neither EGL nor OSMesa does.
    """
    check_packages()
    chosen = os.environ.get("MUJOCO_GL")
    if sys.platform != "linux" or chosen in _working or parent_process():  # a worker's parent has tried it
        return
    for backend in [chosen] if chosen else ["egl", "osmesa"]:
        variables = {"MUJOCO_GL": backend} | ({} if chosen else {"PYOPENGL_PLATFORM": backend})
        # Another process: a failed attempt leaves PyOpenGL bound to the library that does not work.
        command = [sys.executable, "-W", "ignore", "-c", PROBE]
        trial = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
        if trial.returncode == 0:
            os.environ.update(variables)
            _working.add(backend)
            return
    if chosen:
        reason = (trial.stderr.splitlines() or [f"exit code {trial.returncode}"])[-1]
        raise RuntimeError(f"MUJOCO_GL={chosen} fails ({reason}): unset it, or {PACKAGES}")
    raise RuntimeError(f"nothing renders MuJoCo here, neither EGL nor OSMesa: {PACKAGES}")


def check_packages() -> None:
    """Raise RuntimeError if dm_control is missing or MuJoCo is a version that it does not work with."""
    try:
        version("dm-control")
        installed = version("mujoco")
    except PackageNotFoundError as error:
        remedy = "pip install 'dm-control>=1.0.50,<2' 'mujoco>=3.17,<4'"
        if sys.version_info[:2] > NEWEST_PYTHON:
            remedy = "its dependency labmaze has no release past Python {}.{}, use that one".format(*NEWEST_PYTHON)
        raise RuntimeError(f"{error.name} is missing: {remedy}") from error
    if not (3, 17) <= tuple(int(part) for part in installed.split(".")[:2]) < (4,):
        raise RuntimeError(f"dm_control does not work with mujoco {installed}: pip install 'mujoco>=3.17,<4'")


@cache  # once a process: each evaluation and film builds copies of its own
def log_renderer(task: str, quality: str, renderer: str) -> None:
    """Say what draws an environment."""
    log.info("%s: %s quality, drawn by %s", task, quality, renderer)


class Screen:
    """What one camera of a dm_control physics sees.

    Args:
        physics: of dm_control; it has not rendered yet, or for screens of the same settings.
        size: pixels, height and width.
        camera: a name of the model; "azimuth/elevation" in degrees for one that looks at the middle of the model, and
            follows what the first camera follows; or empty for the first camera.
        quality: "full" as the model asks; "fast" without multisampling, shadows and reflections.
        hide_background: leave out the sky and, with `hide_floor`, the planes fixed to the world. A picture with holes
            costs less than one with a floor.

    Raises:
        ValueError: the model has no such camera.
    """

    def __init__(
        self, physics: Any, size: int, camera: str, quality: str, *, hide_background: bool, hide_floor: bool = True
    ) -> None:
        import mujoco
        from dm_control.mujoco import Camera, MovableCamera

        self._mujoco, self._physics = mujoco, physics
        model = physics.model
        fast = quality == "fast"
        if fast:  # all of it is read when the first picture is drawn
            model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
        frame = model.vis.global_
        frame.offwidth = size if fast else max(size, frame.offwidth)
        frame.offheight = size if fast else max(size, frame.offheight)
        if hide_background and hide_floor:
            fixed = model.geom_bodyid == 0
            model.geom_group[fixed & (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)] = HIDDEN_GROUP
        self._angles = _angles(camera)
        if self._angles:
            self._camera = MovableCamera(physics, size, size)
        else:
            self._camera = Camera(physics, size, size, _camera_id(model, camera))
        flags = self._camera.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] &= not fast
        flags[mujoco.mjtRndFlag.mjRND_SKYBOX] &= not hide_background
        self._rect = mujoco.MjrRect(0, 0, size, size)
        self._rgb = np.zeros((size, size, 3), np.uint8)
        self._depth = np.zeros((size, size), np.float32) if hide_background else None
        self.renderer: str = self._call(_renderer)

    def draw(self, background: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The picture of this moment, (H, W, 3), valid until the next one.

        Args:
            background: (H, W, 3), stands where nothing was drawn. A screen that hides the background needs it.
        """
        picture, empty = self.layers()
        return picture if background is None else np.where(empty[..., None], background, picture)

    def layers(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The picture of this moment without a background, (H, W, 3), and where (H, W) nothing was drawn."""
        if self._angles:
            self._aim(*self._angles)
        self._camera.update()
        self._call(self._draw)
        picture = self._rgb[::-1]  # OpenGL's first row is the lowest
        if self._depth is None:
            return picture, np.zeros(picture.shape[:2], np.bool_)
        return picture, self._depth[::-1] == 1  # the far plane

    def _aim(self, azimuth: float, elevation: float) -> None:
        """Turn the movable camera to the middle of the model, or to the body that the first camera follows."""
        model, data = self._physics.model, self._physics.data
        follows = model.ncam and int(model.cam_mode[0]) != int(self._mujoco.mjtCamLight.mjCAMLIGHT_FIXED)
        target = data.subtree_com[model.cam_bodyid[0]] if follows else model.stat.center
        self._camera.set_pose(target, DISTANCE * model.stat.extent, azimuth, elevation)

    def _draw(self) -> None:
        context = self._physics.contexts.mujoco.ptr
        self._mujoco.mjr_render(self._rect, self._camera.scene.ptr, context)
        self._mujoco.mjr_readPixels(self._rgb, self._depth, self._rect, context)

    def _call(self, function: Any) -> Any:
        with self._physics.contexts.gl.make_current() as context:
            return context.call(function)


def _renderer() -> str:
    from OpenGL import GL

    return str(GL.glGetString(GL.GL_RENDERER).decode())


def _angles(camera: str) -> tuple[float, float] | None:
    """Azimuth and elevation in degrees; None for the name of a camera."""
    number = r"(-?\d+(?:\.\d+)?)"
    found = re.fullmatch(f"{number}/{number}", camera)
    return (float(found[1]), float(found[2])) if found else None


def _camera_id(model: Any, camera: str) -> int:
    names = [model.id2name(i, "camera") for i in range(model.ncam)]
    if camera and camera not in names:
        raise ValueError(f"unknown camera {camera!r}: {nearest(camera, names)}, or azimuth/elevation such as 90/-30")
    return names.index(camera) if camera else 0
