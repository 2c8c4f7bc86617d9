import logging
import subprocess
import sys

import numpy as np
import pytest

from embodied_reward.envs import rendering
from embodied_reward.envs.rendering import gl_renderer, is_software, resolve_quality
from embodied_reward.errors import EnvError

ALL_VIEWS = ("topview", "corner", "corner2", "corner3", "behindGripper", "gripperPOV")
FIXED = ("corner", "corner2", "corner3", "behindGripper")
STILL = np.zeros(4, np.float32)


def test_frames_are_rendered_once_per_step_and_only_when_asked_for(build, monkeypatch):
    env = build("metaworld/reach-v3", pixels=False)
    counts = []
    render = rendering.ViewRenderer.render
    monkeypatch.setattr(
        rendering.ViewRenderer, "render", lambda *args: (counts.append(1), render(*args))[1]
    )
    env.reset()
    assert len(counts) == 0
    env.frames(), env.frames(), env.render()
    assert len(counts) == 1
    for _ in range(5):
        env.step(STILL)
    assert len(counts) == 1
    env.frames(), env.render()
    assert len(counts) == 2
    env.reset()
    env.frames()
    assert len(counts) == 3


def test_pixels_in_the_observation_share_that_one_rendering(build, monkeypatch):
    env = build("metaworld/reach-v3", pixels=True, size=32)
    counts = []
    render = rendering.ViewRenderer.render
    monkeypatch.setattr(
        rendering.ViewRenderer, "render", lambda *args: (counts.append(1), render(*args))[1]
    )
    observation, _ = env.reset()
    frames = env.frames()
    assert len(counts) == 1
    assert all(np.array_equal(observation["pixels"][view], frames[view]) for view in env.views)


def test_frames_belong_to_the_caller(build):
    env = build("metaworld/reach-v3")
    env.reset()
    kept = env.frames()
    copies = {view: frame.copy() for view, frame in kept.items()}
    env.frames()["corner2"][:] = 0
    assert np.array_equal(env.frames()["corner2"], copies["corner2"])
    for _ in range(10):
        env.step(np.ones(4, np.float32))
    assert not np.array_equal(env.frames()["corner2"], copies["corner2"])
    assert all(np.array_equal(kept[view], copies[view]) for view in kept)


def test_shape_type_and_order_of_views(build):
    env = build("metaworld/reach-v3", views=ALL_VIEWS, size=(48, 80))
    env.reset()
    frames = env.frames()
    assert tuple(frames) == ALL_VIEWS
    for frame in frames.values():
        assert frame.shape == (48, 80, 3)
        assert frame.dtype == np.uint8
        assert frame.flags.c_contiguous
        assert frame.std() > 10
    assert np.array_equal(env.render(), frames["topview"])


def project(env, view, point, size):
    """Return (row, column) of a world point by the pinhole camera, turned as the picture is."""
    model, camera = env.sim.model, env.sim.data.camera(view)
    x, y, z = camera.xmat.reshape(3, 3).T @ (point - camera.xpos)
    focal = 0.5 * size / np.tan(np.deg2rad(model.camera(view).fovy[0]) / 2)
    row, column = size / 2 - focal * y / -z, size / 2 + focal * x / -z
    turned = view in env.fingerprint()["half_turned"]
    return (size - row, size - column) if turned else (row, column)


@pytest.mark.parametrize("view", FIXED)
def test_up_in_the_world_is_up_in_the_picture(build, view):
    env = build("metaworld/push-v3", views=(view,), size=256)
    env.reset(seed=0)
    base = np.array([0.0, 0.7, 0.1])
    low, high = (project(env, view, base + [0, 0, z], 256) for z in (0.0, 0.1))
    assert high[0] < low[0] - 3
    assert abs(high[1] - low[1]) < abs(high[0] - low[0])


@pytest.mark.parametrize("view", ["corner", "corner2", "corner3", "topview"])
def test_the_goal_is_seen_where_the_camera_says(build, view):
    """Ties pictures to geometry: a flipped, mirrored or stale picture has no green there."""
    env = build("metaworld/push-v3", views=(view,), size=256)
    for seed in range(3):
        env.reset(seed=seed)
        row, column = project(env, view, env.sim._target_pos, 256)
        patch = env.frames()[view][round(row) - 5 : round(row) + 6, round(column) - 5 :][:, :11]
        red, green, blue = patch.reshape(-1, 3).astype(int).T
        assert ((green > 120) & (green > red + 60) & (green > blue + 60)).any()


def test_environments_do_not_disturb_each_others_pictures(build):
    alone, one, two = (build("metaworld/push-v3", size=size) for size in (64, 64, 96))
    for seed in (1, 2):
        alone.reset(seed=seed)
        expected = alone.frames()
        one.reset(seed=seed), two.reset(seed=9)
        two.frames()
        assert np.array_equal(one.frames()["corner2"], expected["corner2"])
        assert two.frames()["corner2"].shape == (96, 96, 3)
    alone.close()
    one.step(np.ones(4, np.float32))
    assert one.frames()["corner2"].std() > 10


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (96, 48)])
@pytest.mark.parametrize("task", ["drawer-open-v3", "push-v3", "coffee-pull-v3"])
@pytest.mark.slow
def test_leaving_out_what_no_camera_sees_changes_no_pixel(build, monkeypatch, task, size):
    env = build(f"metaworld/{task}", views=ALL_VIEWS, size=size, quality="fast")
    rng, left_out = np.random.default_rng(0), 0
    everything = np.zeros(env.sim.model.ngeom, bool)
    env.reset(seed=0)
    for _ in range(6):
        for _ in range(10):
            env.step(rng.uniform(-1, 1, 4).astype(np.float32))
        lean = env.frames()
        left_out += rendering.meshes_outside(
            env.sim.model, env.sim.data, "gripperPOV", size[1] / size[0]
        ).sum()
        with monkeypatch.context() as patch:
            patch.setattr(rendering, "meshes_outside", lambda *_: everything)
            env._forget_frames()
            full = env.frames()
        assert all(np.array_equal(lean[view], full[view]) for view in ALL_VIEWS)
    assert left_out >= 6 * 5


def test_quality_follows_the_gl_renderer_and_is_recorded(build):
    software = is_software(gl_renderer())
    assert resolve_quality("auto") == ("fast" if software else "full")
    prints = [build("metaworld/reach-v3", quality=q).fingerprint() for q in ("fast", "full")]
    assert [p["quality"] for p in prints] == ["fast", "full"]
    assert prints[0]["gl_renderer"] == gl_renderer()


def test_full_quality_casts_shadows(build):
    fast, full = (build("metaworld/drawer-open-v3", quality=q, size=128) for q in ("fast", "full"))
    fast.reset(seed=0), full.reset(seed=0)
    difference = np.abs(fast.frames()["corner2"].astype(int) - full.frames()["corner2"])
    assert 0.5 < difference.mean() < 30


@pytest.mark.parametrize(
    ("name", "software"),
    [
        ("llvmpipe (LLVM 15.0.6, 256 bits)", True),
        ("softpipe", True),
        ("NVIDIA H200/PCIe/SSE2", False),
        ("Mesa Intel(R) UHD Graphics 620 (KBL GT2)", False),
    ],
)
def test_software_renderers_are_recognised(name, software):
    assert is_software(name) is software


def test_software_rendering_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(rendering, "gl_renderer", lambda: "llvmpipe (LLVM 15.0.6, 256 bits)")
    rendering._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert [resolve_quality("auto") for _ in range(3)] == ["fast"] * 3
    assert len(caplog.records) == 1
    assert "llvmpipe" in caplog.text


PROGRAM = """
from embodied_reward.envs import make
from embodied_reward.errors import EnvError
try:
    env = make("metaworld/reach-v3")
    env.reset()
    env.frames()
except EnvError as error:
    print(error)
"""


@pytest.fixture
def no_gl_choice(monkeypatch):
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY", "PYOPENGL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.skipif(sys.platform != "linux", reason="EGL is how Linux renders without a display")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        # What a Debian without Mesa's EGL looks like to the loader.
        ({"__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent"}, "apt-get install -y libegl1"),
        ({"MUJOCO_EGL_DEVICE_ID": "99"}, "MUJOCO_EGL_DEVICE_ID"),
        ({"MUJOCO_GL": "nonsense"}, "leave MUJOCO_GL unset or 'egl'"),
    ],
)
def test_gl_that_cannot_start_is_one_clear_error(no_gl_choice, monkeypatch, fault, message):
    for name, value in fault.items():
        monkeypatch.setenv(name, value)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.startswith("GL cannot start"), run.stderr
    assert message in run.stdout


@pytest.mark.parametrize("first", ["mujoco", "metaworld"])
def test_whoever_imports_mujoco_first_pictures_come(no_gl_choice, first):
    program = f"import {first}\n{PROGRAM}\nprint(env.frames()['corner2'].std() > 10)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert run.stdout.strip() == "True", run.stderr


def test_programs_that_never_close_exit_silently():
    code = PROGRAM + "kept = [make('metaworld/push-v3') for _ in range(2)]\n"
    code += "[env.reset() for env in kept]; [env.frames() for env in kept]"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0
    assert "Exception" not in run.stderr
    assert "Error" not in run.stderr


def test_closing_twice_and_rendering_again_after(build):
    env = build("metaworld/reach-v3")
    env.reset()
    env.frames()
    env.close()
    env.close()
    env.reset()
    assert env.render().std() > 10


def test_unknown_quality_is_refused():
    with pytest.raises(EnvError, match="unknown quality 'ultra'"):
        resolve_quality("ultra")
