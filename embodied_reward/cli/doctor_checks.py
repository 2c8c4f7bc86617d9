"""The checks of `er doctor`: each looks at one thing and returns a `Finding`."""

import importlib.util
import io
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from typing import Literal, cast

import numpy as np
from packaging.requirements import Requirement

from embodied_reward.envs.rendering import is_software

DISTRIBUTION = "embodied-reward"
# libegl1 brings libegl-mesa0; of libOpenGL, libGL and libGLESv2 any one is enough.
GL_PACKAGES = "libegl1 libgl1-mesa-dri libgles2"
NEEDED_GB = 5.0
PROBE_SECONDS = 60

# Run in a fresh interpreter: a broken driver may abort the process. The library is loaded first
# because its own message names what is missing; PyOpenGL's does not.
GL_PROBE = """
import ctypes, os, sys
try:
    if os.environ["MUJOCO_GL"] == "egl":
        ctypes.CDLL("libEGL.so.1")
    import mujoco
    context = mujoco.GLContext(64, 64)
    context.make_current()
    from OpenGL import GL
    name = GL.glGetString(GL.GL_RENDERER).decode()
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><geom size='.1'/></worldbody></mujoco>"
    )
    mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    print("renderer:", name, flush=True)
except Exception as error:
    print("reason:", type(error).__name__, error, flush=True)
    os._exit(1)
"""


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        check: what was looked at.
        level: `ok`, `warn` (works, but slow or risky) or `fail`.
        found: what was found.
        mend: a command that mends it, empty where none is needed.
    """

    check: str
    level: Literal["ok", "warn", "fail"]
    found: str
    mend: str = ""


def python_version() -> Finding:
    """Compare the interpreter with the distribution's `requires-python`."""
    wanted = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    found = f"{platform.python_version()} (needs {wanted}), {platform.machine()} {sys.platform}"
    fits = Requirement(f"python{wanted}").specifier.contains(platform.python_version())
    mend = "" if fits else "uv python install 3.12 && uv sync --python 3.12"
    return Finding("Python", "ok" if fits else "fail", found, mend)


def pinned_packages() -> Finding:
    """Compare every installed package with the range that the distribution declares."""
    wrong, missing, count = [], [], 0
    for line in metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(line)
        extra = "extra" in line.partition(";")[2]
        installed = _installed(requirement.name)
        if requirement.marker and not _applies(requirement):
            continue
        if installed is None:
            missing += [] if extra else [requirement.name]
        else:
            count += 1
            if not requirement.specifier.contains(installed, prereleases=True):
                wrong.append(f"{requirement.name} {installed} (needs {requirement.specifier})")
    if wrong or missing:
        found = "; ".join([*wrong, *(f"{name} is missing" for name in missing)])
        return Finding("packages", "fail", found, "uv sync")
    return Finding("packages", "ok", f"{count} packages inside their declared ranges")


def one_opencv() -> Finding:
    """Two OpenCV wheels install into the same `cv2/` folder and overwrite each other."""
    names = [d.metadata["Name"].lower() for d in metadata.distributions() if d.metadata["Name"]]
    wheels = sorted({n.replace("_", "-") for n in names if n.startswith("opencv")})
    if len(wheels) > 1:
        mend = (
            f"uv pip uninstall {' '.join(wheels)} && "
            "uv pip install --reinstall opencv-python-headless"
        )
        return Finding("OpenCV", "fail", f"installed twice: {', '.join(wheels)}", mend)
    if importlib.util.find_spec("cv2") is None:
        return Finding("OpenCV", "fail", "cv2 cannot be imported", "uv sync")
    return Finding("OpenCV", "ok", f"one wheel: {wheels[0] if wheels else 'unknown'}")


def gl_renderer() -> Finding:
    """Draw with MuJoCo off screen, in a process of its own."""
    if importlib.util.find_spec("mujoco") is None:
        return Finding("OpenGL", "warn", "MuJoCo is not installed", "uv sync --extra metaworld")
    backend = os.environ.get("MUJOCO_GL") or ("egl" if sys.platform == "linux" else "cgl")
    try:
        probe = subprocess.run(  # noqa: S603 (our own constant script)
            [sys.executable, "-c", GL_PROBE],
            env={**os.environ, "MUJOCO_GL": backend},
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding("OpenGL", "fail", f"{backend}: no answer in {PROBE_SECONDS} s", _gl_mend())
    return _read_probe(probe, backend)


def _read_probe(probe: subprocess.CompletedProcess[str], backend: str) -> Finding:
    said = dict(line.split(": ", 1) for line in probe.stdout.splitlines() if ": " in line)
    renderer = said.get("renderer")
    if probe.returncode != 0 or renderer is None:
        reason = said.get("reason", f"the driver ended the process ({probe.returncode})")
        return Finding("OpenGL", "fail", f"{backend} cannot draw: {reason[:160]}", _gl_mend())
    if is_software(renderer):
        found = f"{backend}: {renderer} (software; shadows and multisampling are switched off)"
        return Finding("OpenGL", "ok", found)
    return Finding("OpenGL", "ok", f"{backend}: {renderer}")


def _gl_mend() -> str:
    if sys.platform != "linux":
        return "MUJOCO_GL=glfw er doctor"
    sudo = "" if _is_root() else "sudo "
    return f"{sudo}apt-get update && {sudo}apt-get install -y {GL_PACKAGES}"


def video_codecs() -> Finding:
    """Encode and decode H.264 (our videos) and decode AV1 (LeRobot's)."""
    import av
    from av.error import FFmpegError

    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder greets on stderr otherwise
    wrong = []
    for encoder, decoder in (("libx264", "h264"), ("libsvtav1", "libdav1d")):
        try:
            _round_trip(encoder)
        except (FFmpegError, ValueError) as error:
            wrong.append(f"{encoder}/{decoder}: {type(error).__name__} {error}")
    if wrong:
        return Finding("video", "fail", "; ".join(wrong), "uv pip install --reinstall 'av>=15,<16'")
    return Finding("video", "ok", f"PyAV {av.__version__}: H.264 and AV1 encode and decode")


def _round_trip(encoder: str) -> None:
    import av
    from av.video.stream import VideoStream

    frames, buffer = [np.full((64, 64, 3), 20 * i, np.uint8) for i in range(8)], io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as out:
        stream = cast(VideoStream, out.add_stream(encoder, rate=Fraction(10)))
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, mode="r") as back:
        got = [f.to_ndarray(format="rgb24") for f in back.decode(video=0)]
    if len(got) != len(frames) or np.abs(got[5].astype(int) - frames[5]).mean() > 12:
        raise ValueError(f"{len(got)} of {len(frames)} frames came back, or altered")


def torch_threads() -> Finding:
    """Time one convolution with one thread and with torch's own choice."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    chosen = torch.get_num_threads()
    device = "CUDA" if torch.cuda.is_available() else "no CUDA"
    one, own = _convolution_ms(1), _convolution_ms(chosen)
    torch.set_num_threads(chosen)
    found = f"torch {torch.__version__}, {device}, {cores} cores; conv {one:.0f} ms on 1 thread"
    if own > 1.3 * one:
        found += f", {own:.0f} ms on {chosen}: the machine is busy or its cores are shared"
        return Finding("torch", "warn", found, "export OMP_NUM_THREADS=1")
    return Finding("torch", "ok", f"{found}, {own:.0f} ms on {chosen}")


def _convolution_ms(threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    layer, x = torch.nn.Conv2d(16, 32, 4, stride=2), torch.zeros(32, 16, 64, 64)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(6):
            begun = time.perf_counter()
            layer(x)
            best = min(best, time.perf_counter() - begun)
    return 1000 * best


def disk_space() -> Finding:
    """Look at the space left where runs are written."""
    free = shutil.disk_usage(".").free / 1e9
    if free < NEEDED_GB:
        found = f"{free:.1f} GB free here, runs want {NEEDED_GB:.0f} GB"
        return Finding("disk", "warn", found, "du -sh outputs/* | sort -h")
    return Finding("disk", "ok", f"{free:.0f} GB free here")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _applies(requirement: Requirement) -> bool:
    """Evaluate a marker with every extra of ours switched on."""
    extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    assert requirement.marker is not None
    return any(requirement.marker.evaluate({"extra": extra}) for extra in ["", *extras])


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


ALL = (
    python_version,
    pinned_packages,
    one_opencv,
    gl_renderer,
    video_codecs,
    torch_threads,
    disk_space,
)
