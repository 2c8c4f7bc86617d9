"""What every pixel shows, beside the pictures themselves."""

import numpy as np
import pytest

from embodied_reward.envs import list_envs
from embodied_reward.envs.base import VisualEnv
from embodied_reward.envs.parts import PARTS, PartNames
from embodied_reward.errors import EnvError

LABEL = {name: k for k, name in enumerate(PARTS)}


def of(env, view, name):
    return env.parts()[view] == LABEL[name]


def coloured(frame, rgb, within=60):
    """Pixels whose hue is near a colour, whatever the light does."""
    wanted = np.array(rgb, float)
    found = frame.astype(float)
    cosine = (
        (found @ wanted) / np.linalg.norm(wanted) / np.maximum(np.linalg.norm(found, axis=-1), 1)
    )
    return (cosine > 0.99) & (found.max(-1) > within)


def test_labels_lie_where_the_picture_shows_the_thing(build):
    env = build("embodied_reward/SweepToGoal-MediumStick-v0", size=96)
    env.reset(seed=1)
    frame = env.frames()["top"]
    blue = coloured(frame, (0.16, 0.42, 0.85))
    assert blue.sum() > 20
    assert of(env, "top", "objects")[blue].mean() > 0.95
    red = coloured(frame, (0.75, 0.2, 0.15))
    assert of(env, "top", "gripper")[red].mean() > 0.95
    assert 0.1 < of(env, "top", "goal").mean() < 0.25
    assert of(env, "top", "arm").sum() == 0
    assert sum(of(env, "top", name).sum() for name in PARTS) == 96 * 96


@pytest.mark.parametrize("view", ["corner2", "gripperPOV"])
def test_what_moves_between_two_pictures_is_the_arm_and_what_it_holds(build, view):
    """Half-turned and moved cameras and hidden meshes are the same in both renderings."""
    env = build("metaworld/reach-v3", views=("corner2", "gripperPOV"))
    env.reset(seed=0)
    before, parts = env.frames()[view].astype(int), env.parts()[view]
    for _ in range(3):
        env.step(np.array([1, 1, 0.5, 0], np.float32))
    after, later = env.frames()[view].astype(int), env.parts()[view]
    moved = np.abs(after - before).max(-1) > 40
    assert moved.sum() > 20
    if view == "corner2":  # a camera that stands still
        shown = (parts != LABEL["background"]) | (later != LABEL["background"])
        assert shown[moved].mean() > 0.95
    else:  # the fingers stand still in the hand's own camera
        gripper = parts == LABEL["gripper"]
        assert (gripper == (later == LABEL["gripper"])).mean() > 0.95


def test_asking_for_parts_changes_no_picture(build):
    env = build("metaworld/door-open-v3")
    env.reset(seed=0)
    before = env.frames()
    env.parts()
    env.step(np.zeros(4, np.float32))
    first = env.frames()
    other = build("metaworld/door-open-v3")
    other.reset(seed=0)
    other.step(np.zeros(4, np.float32))
    for view in env.views:
        np.testing.assert_array_equal(first[view], other.frames()[view])
    assert set(before) == set(env.parts())


def test_multisampling_does_not_mix_labels(build):
    found = []
    for quality in ("fast", "full"):
        env = build("embodied_reward/TablePeg-v0", quality=quality, views=("front", "side", "top"))
        env.reset(seed=3)
        found.append(env.parts())
    for view, parts in found[0].items():
        assert (parts == found[1][view]).mean() > 0.995


def test_a_held_peg_is_an_object_and_a_screen_is_background(build):
    env = build("embodied_reward/TablePeg-v0", views=("side",), size=96)
    env.reset(seed=0)
    assert of(env, "side", "objects").sum() > 40
    assert of(env, "side", "gripper").sum() > 40
    hidden = build("embodied_reward/TableDrawer-v0", views=("top",))
    hidden.reset(seed=0)
    screen = coloured(hidden.frames()["top"], hidden.frames()["top"][5, 5])
    assert of(hidden, "top", "background")[screen].mean() > 0.95


def test_names_inherit_from_parents_and_patterns_match(build):
    names = PartNames(background=("wall*",), gripper=("hand",))
    assert names.label("wall3") == LABEL["background"]
    assert names.label("handle") is None
    assert names.label("") is None


def test_parts_need_a_scene_and_an_environment_that_can_tell(build):
    with pytest.raises(EnvError, match="call reset"):
        build("embodied_reward/TablePush-v0").parts()
    env = build("trap/insert")
    env.reset(seed=0)
    assert of(env, "front", "gripper").any()
    assert of(env, "front", "objects").any()

    class Plain(VisualEnv):
        task = "plain"
        progress = fingerprint = _render_views = lambda self: None

    with pytest.raises(EnvError, match="cannot tell what its pixels show"):
        Plain().parts()


@pytest.mark.slow
@pytest.mark.parametrize("env_id", [e for e in list_envs() if not e.startswith("trap")])
def test_every_task_shows_its_gripper_and_its_objects(build, env_id):
    views = ("corner2", "behindGripper") if env_id.startswith("metaworld") else ()
    env = build(env_id, size=128, views=views)
    env.reset(seed=0)
    parts = np.stack(list(env.parts().values()))
    assert (parts == LABEL["gripper"]).any()
    assert (parts == LABEL["objects"]).any()
    assert (parts == LABEL["background"]).mean() > 0.2
