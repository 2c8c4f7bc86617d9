"""robosuite's models were made by others: every factor must find its parts in them too."""

import numpy as np
import pytest

from embodied_reward.envs.parts import PARTS
from embodied_reward.envs.variation import vary
from embodied_reward.envs.variation.roles import level_boxes, roles_of
from embodied_reward.envs.variation.settings import LOOKS
from embodied_reward.errors import EnvError

VIEWS = ("frontview", "robot0_eye_in_hand")
ACTION = np.array([0.4, -0.3, 0.6, 0.2, 0.0, -0.2, 1.0], np.float32)


@pytest.fixture
def original(build):
    env = build("robosuite/Lift", views=VIEWS, size=64)
    env.reset(seed=3)
    return env


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.slow
def test_every_look_changes_pictures_and_nothing_else(build, original, look):
    varied = vary(build("robosuite/Lift", views=VIEWS, size=64), **{look: 1.0})
    varied.reset(seed=3)
    before = original.frames()["frontview"].astype(int)
    changed = np.abs(varied.frames()["frontview"] - before).max(axis=-1) > 8
    assert changed.mean() > {"object_colour": 0.0005, "fixture_colour": 0.0005}.get(look, 0.005)
    mine, theirs = varied.step(ACTION)[0], original.step(ACTION)[0]
    assert all(np.array_equal(mine[key], theirs[key]) for key in theirs)
    varied.restore()
    assert all(
        np.array_equal(frame, original.frames()[view]) for view, frame in varied.frames().items()
    )


@pytest.mark.parametrize("factor", ["gravity", "actuator", "robot"])
def test_dynamics_change_the_motion_and_are_taken_back(build, original, factor):
    env = build("robosuite/Lift", views=VIEWS, size=64)
    varied = vary(env, **{factor: 1.0})
    varied.reset(seed=3)
    mine, theirs = varied.step(ACTION)[0]["agent_pos"], original.step(ACTION)[0]["agent_pos"]
    assert not np.array_equal(mine, theirs)
    varied.restore()
    env.reset(seed=3)
    assert np.array_equal(env.step(ACTION)[0]["agent_pos"], theirs)


def test_what_cannot_vary_is_refused(build):
    with pytest.raises(EnvError, match="'object_size' has nothing to vary here: no object is loo"):
        vary(build("robosuite/Door"), object_size=1.0)
    with pytest.raises(EnvError, match="'distractors' has nothing to vary here: no table or fl"):
        vary(build("robosuite/TwoArmPegInHole"), distractors=1.0)


def test_walls_that_stand_upright_are_no_tables(original):
    model, background = original.model, roles_of(original.model).background_geoms
    names = [model.geom(i).name for i in level_boxes(model, original.data, background)]
    assert names == ["table_visual"]
    assert {model.geom(i).name for i in np.flatnonzero(background)} > {"floor", "wall_rear_visual"}


def test_a_pattern_is_seen_on_the_table_and_distractors_lie_on_it(build):
    view = ("agentview",)
    varied = vary(build("robosuite/Lift", views=view, size=84), texture=1.0)
    varied.reset(seed=3)
    frame, parts = varied.frames()["agentview"], varied.parts()["agentview"]
    table = frame[40:80, 10:70][parts[40:80, 10:70] == PARTS.index("background")].astype(int)
    assert table.std(axis=0).max() > 10
    plain = build("robosuite/Lift", views=view, size=84)
    plain.reset(seed=3)
    strewn = vary(build("robosuite/Lift", views=view, size=84), distractors=1.0)
    strewn.reset(seed=3)
    changed = (strewn.frames()["agentview"] != plain.frames()["agentview"]).any(axis=-1)
    assert changed[30:].mean() > 0.02
