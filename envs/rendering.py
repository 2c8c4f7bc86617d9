"""Pictures from MuJoCo: one renderer per environment, cheap flags where GL is software."""

import atexit
import functools
import importlib
import logging
import os
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from embodied_reward.errors import EnvError, MissingDependencyError, did_you_mean
from embodied_reward.types import UInt8

QUALITIES = ("auto", "fast", "full")
_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software rasterizer")
_PACKAGES = "libegl1 libgl1-mesa-dri libgles2"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Camera:
    """How to take an upright picture with one camera of a model.

    Attributes:
        name: the camera's name in the MuJoCo model.
        half_turn: the model mounts it upside down; the picture is turned by 180 degrees.
        position: replaces the model's own camera position [m], where given.
    """

    name: str
    half_turn: bool = False
    position: tuple[float, float, float] | None = None


def load_mujoco() -> ModuleType:
    """Import MuJoCo, choosing EGL on Linux unless the user chose a backend with MUJOCO_GL.

    Raises:
        MissingDependencyError: MuJoCo is not installed.
        EnvError: the GL backend cannot be loaded; names the system packages.
    """
    if sys.platform == "linux" and "mujoco" not in sys.modules:
        # Read by MuJoCo at import; its own default, GLFW, needs a display.
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        mujoco = importlib.import_module("mujoco")
    except ModuleNotFoundError as error:
        if error.name != "mujoco":
            raise _no_gl(error) from error
        raise MissingDependencyError(
            "MuJoCo is not installed; run `pip install 'embodied-reward[metaworld]'`"
        ) from error
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise _no_gl(error) from error
    return mujoco


@functools.cache
def gl_renderer() -> str:
    """Return the name of the GL renderer, e.g. "llvmpipe (LLVM 15.0.6, 256 bits)".

    Raises:
        EnvError: GL cannot start; names the system packages.
    """
    mujoco = load_mujoco()
    try:
        context = mujoco.GLContext(16, 16)
        context.make_current()
        name = importlib.import_module("OpenGL.GL").glGetString(0x1F01)  # GL_RENDERER
        context.free()
    except (ImportError, AttributeError, RuntimeError, OSError, mujoco.FatalError) as error:
        raise _no_gl(error) from error
    return name.decode() if name else "unknown"


def is_software(renderer: str) -> bool:
    """Return whether a GL renderer's name is that of a software rasteriser."""
    return any(mark in renderer.lower() for mark in _SOFTWARE)


def check_quality(quality: str) -> None:
    """Raise EnvError unless `quality` is one of QUALITIES."""
    if quality not in QUALITIES:
        raise EnvError(f"unknown quality '{quality}'; {did_you_mean(quality, QUALITIES)}")


def resolve_quality(quality: str) -> str:
    """Return "fast" or "full"; "auto" is fast exactly where GL is software.

    MuJoCo's default shadow map makes software rasterisers 10 to 100 times slower, so fast
    drops shadows, reflections and multisampling.

    Raises:
        EnvError: unknown quality, or GL cannot start.
    """
    check_quality(quality)
    if quality != "auto":
        return quality
    if not is_software(gl_renderer()):
        return "full"
    _say_once(gl_renderer())
    return "fast"


class ViewRenderer:
    """Renders fixed-size pictures of one MuJoCo model from several cameras.

    Args:
        model: `mujoco.MjModel`; its visual quality fields are set here.
        cameras: view -> camera.
        size: (height, width) in pixels.
        quality: one of QUALITIES.

    Raises:
        EnvError: GL cannot start; names the system packages.
    """

    def __init__(
        self, model: Any, cameras: Mapping[str, Camera], size: tuple[int, int], quality: str
    ) -> None:
        mujoco = load_mujoco()
        self.quality = resolve_quality(quality)
        self._cameras = dict(cameras)
        model.vis.global_.offheight, model.vis.global_.offwidth = size
        if self.quality == "fast":
            model.vis.quality.shadowsize = 0
            model.vis.quality.offsamples = 0
        try:
            self._renderer = mujoco.Renderer(model, *size)
        except (AttributeError, RuntimeError, OSError, mujoco.FatalError) as error:
            raise _no_gl(error) from error
        if self.quality == "fast":
            self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
            self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        _close_at_exit()
        _open.add(self)

    def render(self, data: Any) -> dict[str, UInt8]:
        """Render every view of `mujoco.MjData`: view -> UInt8["h w 3"], upright RGB."""
        return {view: self._picture(data, camera) for view, camera in self._cameras.items()}

    def close(self) -> None:
        """Free the GL context; safe to call twice."""
        self._renderer.close()
        _open.discard(self)

    def _picture(self, data: Any, camera: Camera) -> UInt8:
        self._renderer.update_scene(data, camera.name)
        frame = self._renderer.render()
        return np.ascontiguousarray(frame[::-1, ::-1] if camera.half_turn else frame)


def place_cameras(model: Any, cameras: Mapping[str, Camera]) -> None:
    """Move those cameras of an `mujoco.MjModel` that have a position of their own."""
    for camera in cameras.values():
        if camera.position is not None:
            model.camera(camera.name).pos[:] = camera.position


_open: "weakref.WeakSet[ViewRenderer]" = weakref.WeakSet()


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()


@functools.cache
def _close_at_exit() -> None:
    # Exit hooks run last-registered first, so after MuJoCo's import these contexts are freed
    # before MuJoCo ends the display they live on.
    atexit.register(_close_all)


@functools.cache
def _say_once(renderer: str) -> None:
    _log.warning(
        "GL renders in software (%s): shadows, reflections and multisampling are off; "
        "quality='full' keeps them at a tenth of the speed or less",
        renderer,
    )


def _no_gl(error: Exception) -> EnvError:
    what = f"GL cannot start ({type(error).__name__}: {error})"
    if sys.platform == "linux" and "MUJOCO_GL" not in os.environ:
        return EnvError(
            f"{what}: MuJoCo was imported before embodied_reward.envs could choose EGL; set "
            "MUJOCO_GL=egl in the shell, or call embodied_reward.envs.make first"
        )
    return EnvError(
        f"{what} with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}; on Debian or Ubuntu run "
        f"`apt-get install -y {_PACKAGES}`, and leave MUJOCO_GL unset or 'egl'"
    )
