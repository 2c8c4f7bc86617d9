"""Pictures from MuJoCo: one renderer per environment, cheap flags where GL is software."""

import atexit
import contextlib
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
from embodied_reward.types import Bool, Float32, Float64, Int32, UInt8

from .dress import Dress, Shot

QUALITIES = ("auto", "fast", "full")
_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software rasterizer")
_PACKAGES = "libegl1 libgl1-mesa-dri libgles2"
_CHOSEN = {"MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"}  # any of these: leave MuJoCo's choice
_HIDDEN = 5  # a geom group that MuJoCo does not draw by default
_SKY = 0.3  # share of the far plane's distance; a skybox's nearest point is beyond it
_MESH = 7  # mujoco.mjtGeom.mjGEOM_MESH
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
        unchosen = not _CHOSEN & os.environ.keys() or os.environ.get("MUJOCO_GL") == "egl"
        if sys.platform == "linux" and unchosen:
            # Somebody imported MuJoCo before us: it holds GLFW, which would fail on first use.
            # robosuite does, and names EGL only afterwards.
            _backend(mujoco).GLContext = importlib.import_module("mujoco.egl").GLContext
    except ModuleNotFoundError as error:
        if error.name != "mujoco":
            raise _no_gl(error) from error
        raise MissingDependencyError(
            "MuJoCo is not installed; run `pip install 'embodied-reward[metaworld]'`"
        ) from error
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise _no_gl(error) from error
    return mujoco


def _backend(mujoco: ModuleType) -> Any:
    """Return the module from which `mujoco.Renderer` takes its GLContext."""
    return sys.modules[mujoco.Renderer.__module__].gl_context  # type: ignore[attr-defined]


@functools.cache
def gl_renderer() -> str:
    """Return the name of the GL renderer, e.g. "llvmpipe (LLVM 15.0.6, 256 bits)".

    Raises:
        EnvError: GL cannot start; names the system packages.
    """
    mujoco = load_mujoco()
    try:
        context = _backend(mujoco).GLContext(16, 16)
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
        self._model, self._cameras = model, dict(cameras)
        self._aspect = size[1] / size[0]
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

    def render(self, data: Any, dress: Dress | None = None) -> dict[str, UInt8]:
        """Render every view of `mujoco.MjData`: view -> UInt8["h w 3"], upright RGB.

        Args:
            data: `mujoco.MjData`, after a forward pass.
            dress: what the scene wears in these pictures.
        """
        with dress.worn(self._model, data) if dress else contextlib.nullcontext():
            return {v: self._picture(data, camera, dress) for v, camera in self._cameras.items()}

    def upload_meshes(self) -> None:
        """Draw meshes as the model has them now; call after their vertices have changed."""
        mujoco = load_mujoco()
        self._renderer._gl_context.make_current()
        for mesh in range(self._model.nmesh):
            mujoco.mjr_uploadMesh(self._model, self._renderer._mjr_context, mesh)

    def segment(self, data: Any, dress: Dress | None = None) -> dict[str, Int32]:
        """Return what every pixel shows: view -> Int32["h w 2"], number and `mujoco.mjtObj` type.

        -1 where there is nothing of the model. Transparent things count as if they were not.
        """
        self._renderer.enable_segmentation_rendering()
        try:
            with dress.worn(self._model, data) if dress else contextlib.nullcontext():
                return {
                    view: self._picture(data, camera, dress, paint=False)
                    for view, camera in self._cameras.items()
                }
        finally:
            self._renderer.disable_segmentation_rendering()

    def close(self) -> None:
        """Free the GL context; safe to call twice."""
        self._renderer.close()
        _open.discard(self)

    def _picture(
        self, data: Any, camera: Camera, dress: Dress | None, *, paint: bool = True
    ) -> Any:
        groups = self._model.geom_group.copy()
        if self.quality == "fast":  # without shadows and reflections, what is outside is nothing
            unseen = meshes_outside(self._model, data, camera.name, self._aspect)
            self._model.geom_group[unseen] = _HIDDEN
        self._renderer.update_scene(data, camera.name)
        self._model.geom_group[:] = groups
        if dress is not None:
            known = self._renderer.scene.ngeom
            dress.add(self._renderer.scene)
            _without_number(self._renderer.scene, known)
        frame = self._renderer.render()
        if dress is not None and paint and dress.paints:
            frame = dress.paint(self._shot(frame, data, camera.name), self._model, data)
        return np.ascontiguousarray(frame[::-1, ::-1] if camera.half_turn else frame)

    def _shot(self, frame: UInt8, data: Any, camera: str) -> Shot:
        """Return the picture that was rendered last with what its camera knows."""
        depth, view = self._depth(), data.camera(camera)
        focal = 0.5 * frame.shape[0] / np.tan(np.deg2rad(self._model.camera(camera).fovy[0]) / 2)
        metres = metric_depth(self._model, depth)
        return Shot(
            view=camera,
            frame=frame,
            depth=metres,
            place=view.xpos.copy(),
            axes=view.xmat.reshape(3, 3).copy(),
            focal=float(focal),
            sky=_SKY * self._model.vis.map.zfar * self._model.stat.extent,
        )

    def _depth(self) -> Float32:
        """Return the depth buffer of the picture that was rendered last, first row on top.

        Where pixels have several samples, their depths are not those of the pixels' middles;
        a second rendering in flat colours has one sample each.
        """
        mujoco, renderer = load_mujoco(), self._renderer
        if self.quality == "full":
            flags = renderer.scene.flags.copy()
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = True
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
            mujoco.mjr_render(renderer._rect, renderer.scene, renderer._mjr_context)
            np.copyto(renderer.scene.flags, flags)
        buffer = np.empty((renderer.height, renderer.width), np.float32)
        mujoco.mjr_readPixels(None, buffer, renderer._rect, renderer._mjr_context)
        return buffer[::-1]


def _without_number(scene: Any, known: int) -> None:
    """Let a segmentation show what was added to a scene as nothing of the model.

    A geom's `segid` is what is drawn; MuJoCo leaves those of added geoms unset.
    """
    for k in range(known, scene.ngeom):
        geom = scene.geoms[k]
        geom.segid, geom.objid, geom.objtype = k, -1, -1


def metric_depth(model: Any, buffer: Any) -> Float64:
    """Return distances along the optical axis [m] from MuJoCo's depth buffer; inf at its far end.

    The buffer is reversed, 1 at the near plane n and 0 at the far plane f, and projective:
    z = f n / (b (f - n) + n).
    """
    near = model.vis.map.znear * model.stat.extent
    far = model.vis.map.zfar * model.stat.extent
    depth = far * near / (buffer.astype(np.float64) * (far - near) + near)
    return np.where(buffer <= 0.0, np.inf, depth)


def place_cameras(model: Any, cameras: Mapping[str, Camera]) -> None:
    """Move those cameras of an `mujoco.MjModel` that have a position of their own."""
    for camera in cameras.values():
        if camera.position is not None:
            model.camera(camera.name).pos[:] = camera.position


def meshes_outside(model: Any, data: Any, camera: str, aspect: float) -> Bool:
    """Return which geoms are meshes wholly outside a camera's view, Bool["geoms"].

    Software GL spends nearly all its time on the triangles of the arm, of which a wrist camera
    sees next to none; leaving those out changes no pixel. Bounding spheres are tested against
    the cone through the picture's corners, so it errs towards drawing.

    Args:
        model: `mujoco.MjModel`.
        data: its `mujoco.MjData`, after a forward pass.
        camera: the camera's name.
        aspect: width of the picture over its height.
    """
    view = data.camera(camera)
    corner = np.arctan(np.tan(np.deg2rad(model.camera(camera).fovy[0]) / 2) * np.hypot(1, aspect))
    x, y, z = view.xmat.reshape(3, 3).T @ (data.geom_xpos - view.xpos).T
    # Distance [m] beyond the cone; a camera looks along its own -z.
    outside = np.hypot(x, y) * np.cos(corner) + z * np.sin(corner)
    return (model.geom_type == _MESH) & (outside > model.geom_rbound)


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
    return EnvError(
        f"GL cannot start with MUJOCO_GL={os.environ.get('MUJOCO_GL', 'unset')} "
        f"({type(error).__name__}: {error}); on Debian or Ubuntu run "
        f"`apt-get install -y {_PACKAGES}`, and leave MUJOCO_GL unset or 'egl'"
    )
