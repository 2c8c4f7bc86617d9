"""The planar tasks: geometry of success and progress, the region, experts and failures."""

import numpy as np
import pytest

from embodied_reward.envs.tasks.planar import GATHERED, LINE, REGION
from embodied_reward.envs.tasks.planar_drive import cheapest_way
from embodied_reward.envs.tasks.planar_scene import EMBODIMENTS, PUCK

BODIES = list(EMBODIMENTS)
TASKS = ("SweepToGoal", "Avoid", "Group")


def at(env, agent=None, pucks=None):
    """Put things somewhere, as a test's hand."""
    if agent is not None:
        env.data.qpos[:3] = agent
    if pucks is not None:
        env.data.qpos[env.rules._joints :] = np.ravel(pucks)


def planar(build, task, body="MediumStick", **kwargs):
    return build(f"embodied_reward/{task}-{body}-v0", **kwargs)


def test_sweeping_is_done_when_all_pucks_lie_wholly_in_the_zone(build):
    env = planar(build, "SweepToGoal")
    env.reset(seed=0)
    first = env.data.qpos[env.rules._joints :].reshape(3, 2).copy()
    assert env.progress() == 0.0
    inside = LINE + PUCK + 1e-6
    at(env, pucks=[(-0.4, inside), (0.0, inside), first[2]])
    assert env.progress() == pytest.approx(2 / 3)
    half = (first[2, 1] + LINE + PUCK) / 2
    at(env, pucks=[(-0.4, inside), (0.0, inside), (0.4, half)])
    assert env.progress() == pytest.approx(5 / 6)
    at(env, pucks=[(-0.4, inside), (0.0, inside), (0.4, inside - 1e-4)])
    assert env.progress() == 0.99
    assert not env.rules.success(env.data)
    at(env, pucks=[(-0.4, inside), (0.0, inside), (0.4, inside)])
    assert env.progress() == 1.0
    at(env, pucks=first - [0.0, 0.2])
    assert env.progress() == 0.0


def test_grouping_is_done_when_no_two_pucks_are_too_far_apart(build):
    env = planar(build, "Group")
    env.reset(seed=0)
    assert env.progress() == 0.0
    side = GATHERED - 1e-6
    at(env, pucks=[(0, 0), (side, 0), (side / 2, side * np.sqrt(3) / 2)])
    assert env.progress() == 1.0
    at(env, pucks=[(0, 0), (side, 0), (side / 2, 0.36)])
    assert 0.9 < env.progress() < 1.0


def test_entering_the_region_is_remembered_and_forbids_success(build):
    env = planar(build, "Avoid", reward="dense")
    env.reset(seed=0)
    still, region = np.zeros(3, np.float32), env.rules.region
    outside = region + [REGION + 0.01, 0.0]
    top = (0.5, LINE + PUCK + 0.01)
    at(env, pucks=outside)
    observation, reward, *_, info = env.step(still)
    assert info["steps_inside"] == 0
    assert reward == env.progress() - 1.0
    np.testing.assert_array_equal(observation["environment_state"][4:], [0, 0])
    at(env, pucks=region)
    observation, reward, *_, info = env.step(still)
    assert info["steps_inside"] == 1
    assert reward == env.progress() - 2.0
    np.testing.assert_array_equal(observation["environment_state"][4:], [1, 1])
    at(env, pucks=top)
    observation, reward, terminated, _, info = env.step(still)
    np.testing.assert_array_equal(observation["environment_state"][4:], [0, 1])
    assert (terminated, info["is_success"], info["puck_arrived"]) == (False, False, True)
    assert env.progress() == 0.5
    _, info = env.reset(seed=0)
    assert info["steps_inside"] == 0
    at(env, pucks=top)
    assert env.step(still)[4]["is_success"]


def test_the_agent_itself_may_not_enter_the_region_either(build):
    env = planar(build, "Avoid", "ShortStick")
    env.reset(seed=0)
    at(env, agent=(*env.rules.region, 0.0))
    assert env.step(np.zeros(3, np.float32))[4]["steps_inside"] == 1


@pytest.mark.parametrize("body", BODIES)
def test_an_action_moves_and_turns_the_agent_by_its_units(build, body):
    env = planar(build, "SweepToGoal", body)
    env.reset(seed=0)
    at(env, agent=(0.0, -0.7, np.pi / 2), pucks=[(-0.9, 0.9), (0.0, 0.9), (0.9, 0.9)])
    for action, moved in (([0, 0.5, 0], [0, 0.3]), ([-0.5, 0, 0], [-0.3, 0])):
        before = env.rules.pose(env.data)[:2]
        for _ in range(5):
            env.step(np.array([*action, 0][: env.rules.actions], np.float32))
        np.testing.assert_allclose(env.rules.pose(env.data)[:2] - before, moved, atol=0.04)
    before = env.rules.pose(env.data)[2]
    for _ in range(5):
        env.step(np.array([0, 0, 1, 0][: env.rules.actions], np.float32))
    assert env.rules.pose(env.data)[2] - before == pytest.approx(1.5, abs=0.15)


def test_a_stick_pushes_what_is_in_its_way_and_walls_hold_it(build):
    env = planar(build, "SweepToGoal", "LongStick")
    env.reset(seed=0)
    at(env, agent=(0.0, -0.8, np.pi / 2), pucks=[(-0.5, 0), (0, 0), (0.5, 0)])
    for _ in range(30):
        env.step(np.array([0, 1, 0], np.float32))
    pucks = env.rules.positions(env.data)
    assert np.all(pucks[:, 1] > 0.85)
    assert np.all(pucks[:, 1] < 1.0)
    assert np.abs(env.rules.pose(env.data)[0]) < 0.02


def test_fingers_hold_a_puck_that_is_drawn_backwards(build):
    env = planar(build, "SweepToGoal", "Gripper")
    env.reset(seed=0)
    at(env, agent=(0.0, 0.0, np.pi / 2), pucks=[(0.0, 0.14), (0.9, 0.9), (-0.9, 0.9)])
    for _ in range(5):
        env.step(np.array([0, 0, 0, 1], np.float32))
    for _ in range(5):
        env.step(np.array([0, -0.8, 0, 1], np.float32))
    assert env.rules.positions(env.data)[0, 1] < -0.2
    for _ in range(4):
        env.step(np.array([0, 0, 0, -1], np.float32))
    placed = env.rules.positions(env.data)[0, 1]
    for _ in range(5):
        env.step(np.array([0, -0.8, 0, -1], np.float32))
    assert env.rules.positions(env.data)[0, 1] == pytest.approx(placed, abs=0.05)


def success_rate(env, roll, quality, seeds):
    return float(np.mean([roll(env, quality, seed)[1]["is_success"] for seed in seeds]))


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("task", TASKS)
def test_experts_succeed_and_progress_rises_to_one(build, roll, task, body):
    env = planar(build, task, body, horizon=150)
    for seed in range(3):
        progress, info, _ = roll(env, "expert", seed)
        assert info["is_success"], f"seed {seed}"
        assert progress[0] == 0.0
        assert progress[-1] == 1.0
        assert progress[:-1].max() < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("task", TASKS)
def test_experts_succeed_in_nine_of_ten_scenes_and_failures_seldom_do(build, roll, task, body):
    env = planar(build, task, body, horizon=150)
    assert success_rate(env, roll, "expert", range(1000, 1100)) >= 0.9
    for quality in ("careless", "wander", "stop", "retreat", "miss"):
        assert success_rate(env, roll, quality, range(20)) <= 0.3, quality
    assert 0.0 < success_rate(env, roll, "noisy", range(20)) < 1.0


@pytest.mark.parametrize("quality", ["careless", "wander", "stop", "miss"])
@pytest.mark.parametrize("task", TASKS)
def test_failing_behaviours_mostly_fail(build, roll, task, quality):
    env = planar(build, task, "ShortStick", horizon=60)
    assert success_rate(env, roll, quality, range(4)) <= 0.25


def test_a_careless_expert_delivers_the_puck_through_the_region(build, roll):
    env = planar(build, "Avoid", "ShortStick", horizon=60)
    for seed in range(3):
        _, info, _ = roll(env, "careless", seed)
        assert info["puck_arrived"]
        assert info["steps_inside"] > 2


def test_the_cheapest_way_goes_round_what_is_dear():
    cost = np.ones((9, 9))
    assert cheapest_way(cost, (4, 0), (4, 8)) == [(4, j) for j in range(9)]
    cost[1:, 4] = 100.0
    way = cheapest_way(cost, (4, 0), (4, 8))
    assert (0, 4) in way
    assert not any(cost[cell] > 1 for cell in way)
    cost[:, 4] = 100.0  # no way round: straight through
    assert len(cheapest_way(cost, (4, 0), (4, 8))) == 9
