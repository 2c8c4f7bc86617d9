import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from embodied_reward.envs.robosuite.behaviours import EXPERTS
from embodied_reward.envs.robosuite.progress import SPECS, way
from embodied_reward.envs.robosuite.tasks import TASKS


def check_experts(build, roll, task, repeat, episodes, **kwargs):
    env = build(f"robosuite/{task}", horizon=300 // repeat, action_repeat=repeat, **kwargs)
    rolls = [roll(env, "expert", seed) for seed in range(episodes)]
    wins = [progress for progress, info, _ in rolls if info["is_success"]]
    assert len(wins) >= 0.9 * episodes
    assert all(progress[0] <= 0.05 for progress, *_ in rolls)
    assert all(progress[-1] == 1.0 and progress[:-1].max() < 1.0 for progress in wins)
    assert all(((progress >= 0) & (progress <= 1)).all() for progress, *_ in rolls)
    trends = [spearmanr(np.arange(len(progress)), progress).statistic for progress in wins]
    assert np.median(trends) >= 0.95
    falls = [(np.maximum.accumulate(progress) - progress).max() for progress in wins]
    assert np.median(falls) <= 0.1


@pytest.mark.parametrize("task", ["Lift", "Stack", "Door"])
@pytest.mark.slow
def test_progress_rises_along_experts_and_stays_low_along_wanderers(build, roll, task):
    check_experts(build, roll, task, repeat=2, episodes=2)
    env = build(f"robosuite/{task}", horizon=60, action_repeat=2)
    rolls = [roll(env, "wander", seed) for seed in range(2)]
    highest = [progress.max() for progress, info, _ in rolls if not info["is_success"]]
    assert np.median(highest) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("repeat", [1, 2])
@pytest.mark.parametrize("task", EXPERTS)
def test_experts_of_every_task_win_nine_times_of_ten(build, roll, task, repeat):
    check_experts(build, roll, task, repeat, episodes=20)


@pytest.mark.slow
def test_the_cube_is_lifted_without_turning_the_hand_too(build, roll):
    check_experts(build, roll, "Lift", 1, 20, control="position")


@pytest.mark.parametrize("task", ["NutAssembly", "PickPlace", "Wipe", "TwoArmPegInHole"])
def test_progress_begins_at_nothing_and_is_a_function_of_the_state(build, task):
    env = build(f"robosuite/{task}")
    for seed in range(2):
        env.reset(seed=seed)
        assert 0.0 <= env.progress() <= 0.05
    sim, kept = env.sim.sim, env.data.qpos.copy()
    for action in np.random.default_rng(0).uniform(-1, 1, (5, *env.action_space.shape)):
        env.step(action)
    sim.data.qpos[:] = kept
    sim.forward()
    assert env.progress() <= 0.05


def place(env, joint, position):
    address = env.model.joint(joint).qposadr[0]
    env.data.qpos[address : address + 3] = position
    env.sim.sim.forward()


def test_nuts_count_one_by_one(build):
    env = build("robosuite/NutAssembly")
    env.reset(seed=0)
    sim = env.sim.sim
    seen = []
    for i, nut in enumerate(("SquareNut", "RoundNut")):
        peg = sim.data.get_body_xpos(f"peg{i + 1}").copy()
        height = env.sim.table_offset[2]
        place(env, f"{nut}_joint0", [*peg[:2], peg[2] + 0.15])
        above = env.progress()
        place(env, f"{nut}_joint0", [*peg[:2], height + 0.02])
        seen += [above, env.progress()]
    assert 0.0 < seen[0] < seen[1] == pytest.approx(0.5, abs=0.02)
    assert seen[1] < seen[2] < seen[3] == 1.0


def test_things_count_only_in_their_own_bin(build):
    env = build("robosuite/PickPlaceCan")
    env.reset(seed=0)
    goals = env.sim.target_bin_placements
    values = []
    for number in (0, 3):  # the milk's bin, the can's
        place(env, "Can_joint0", goals[number] + [0, 0, 0.05])
        values.append(env.progress())
    assert values[0] < 0.99
    assert values[1] == 1.0


def test_dirt_counts_where_it_is_wiped(build):
    env = build("robosuite/Wipe")
    env.reset(seed=0)
    markers = env.sim.model.mujoco_arena.markers
    values = [env.progress()]
    for share in (0.25, 0.5, 0.99):
        env.sim.wiped_markers = markers[: round(share * len(markers))]
        values.append(env.progress())
    np.testing.assert_allclose(values[1:], [0.25, 0.5, 0.99], atol=0.2)
    assert values == sorted(values)
    env.sim.wiped_markers = list(markers)
    assert env.progress() == 1.0


def test_every_task_has_progress():
    assert SPECS.keys() == TASKS.keys()


number = st.floats(-0.5, 0.5)
spot = st.tuples(number, number, number)


@given(spot, spot, st.floats(0, 0.3), st.floats(0, 0.1))
def test_laws_of_a_way_over_something(here, goal, clear, beside):
    here, goal = np.array(here), np.array(goal)
    left = way(here, goal, goal[2] + clear, beside)
    across = np.linalg.norm((here - goal)[:2])
    assert left >= 0.0
    assert left >= max(here[2] - goal[2], 0.0) - 1e-9
    if across > beside:
        assert left >= across - beside + clear - 1e-9
        # On top of that height nothing but across and down is left; going there loses nothing.
        up = np.array([*here[:2], max(goal[2] + clear, here[2])])
        assert way(up, goal, goal[2] + clear, beside) == pytest.approx(left - (up - here)[2])
    assert way(np.array([*goal[:2], goal[2]]), goal, goal[2] + clear, beside) == 0.0
