import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from embodied_reward.envs.progress import SPECS, UNDEFINED, combine
from embodied_reward.errors import EnvError

TASKS = ["drawer-open-v3", "button-press-topdown-v3", "reach-v3", "push-v3", "hammer-v3"]


@pytest.mark.parametrize("repeat", [1, 4])
@pytest.mark.parametrize("task", TASKS)
def test_progress_rises_along_experts_and_stays_low_along_wanderers(build, roll, task, repeat):
    check_experts(build, roll, task, repeat, episodes=3)
    env = build(f"metaworld/{task}", horizon=200 // repeat, action_repeat=repeat)
    rolls = [roll(env, "wander", seed) for seed in range(3)]
    highest = [progress.max() for progress, info, _ in rolls if not info["is_success"]]
    assert np.median(highest) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("task", SPECS)
def test_progress_of_every_task(build, roll, task):
    check_experts(build, roll, task, repeat=1, episodes=8)


def check_experts(build, roll, task, repeat, episodes):
    env = build(f"metaworld/{task}", horizon=400 // repeat, action_repeat=repeat)
    rolls = [roll(env, "expert", seed) for seed in range(episodes)]
    wins = [progress for progress, info, _ in rolls if info["is_success"]]
    assert len(wins) >= 0.35 * episodes  # of these experts, the worst wins half the time
    # Only a hand that starts at the contact point (handle-press does at times) has done a part.
    assert np.median([progress[0] for progress, *_ in rolls]) <= 0.05
    assert all(progress[0] <= 0.5 for progress, *_ in rolls)
    assert all(progress[-1] == 1.0 and progress[:-1].max() < 1.0 for progress in wins)
    assert all(((progress >= 0) & (progress <= 1)).all() for progress, *_ in rolls)
    # Some experts miss, back off and try again (push-back's for 300 steps), which is honest
    # regress; hence direct episodes, and their median.
    direct = [progress for progress in wins if len(progress) <= 200 // repeat]
    trends = [spearmanr(np.arange(len(progress)), progress).statistic for progress in direct]
    assert np.median(trends) >= 0.85


def test_progress_is_a_function_of_the_state_not_of_the_path(build):
    env = build("metaworld/reach-v3")
    env.reset(seed=0)
    away = np.array([1, 0, 0, 0], np.float32)
    for _ in range(15):
        env.step(away)
    first = env.progress()
    assert env.progress() == first
    for _ in range(100):
        env.step(np.zeros(4, np.float32))
    settled = env.progress()
    for sign in (-1, 1):
        for _ in range(10):
            env.step(sign * away)
    for _ in range(100):
        env.step(np.zeros(4, np.float32))
    assert env.progress() == pytest.approx(settled, abs=0.02)


@pytest.mark.parametrize("task", sorted(UNDEFINED))
def test_tasks_without_honest_progress_say_why(build, task):
    env = build(f"metaworld/{task}")
    env.reset()
    with pytest.raises(EnvError, match=f"{task}' has no honest progress: its thermos slides"):
        env.progress()


def test_that_reason_is_true(build):
    env = build("metaworld/stick-push-v3")
    before, _ = env.reset(seed=0)
    for _ in range(40):
        after, *_ = env.step(np.zeros(4, np.float32))
    moved = np.linalg.norm(after["environment_state"][7:10] - before["environment_state"][7:10])
    assert moved > 0.15


def test_every_task_is_either_defined_or_refused():
    assert len(SPECS) + len(UNDEFINED) == 50
    assert not SPECS.keys() & UNDEFINED.keys()


FAMILIES = {
    "reach": ("move",),
    "mechanism": ("approach", "move"),
    "carry": ("approach", "move"),
    "tool": ("approach", "bring", "move"),
}
unit = st.floats(0, 1)


@given(st.sampled_from(sorted(FAMILIES)), unit, unit, unit, unit)
def test_combination_laws(family, approach, bring, move, more):
    values = {"approach": approach, "bring": bring, "move": move}
    parts = {name: values[name] for name in FAMILIES[family]}
    total = combine(family, parts)
    assert 0.0 <= total <= 1.0 + 1e-12
    assert total >= move - 1e-12  # the last part vouches for those before it
    for name in parts:
        assert combine(family, {**parts, name: max(parts[name], more)}) >= total - 1e-12
    assert combine(family, dict.fromkeys(parts, 1.0)) == pytest.approx(1.0)
    assert combine(family, dict.fromkeys(parts, 0.0)) == 0.0
