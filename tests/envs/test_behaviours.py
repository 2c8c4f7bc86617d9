from collections import Counter

import gymnasium as gym
import numpy as np
import pytest

from embodied_reward.envs import make_behaviour
from embodied_reward.envs.behaviours import BEHAVIOURS, QUALITIES
from embodied_reward.errors import EnvError

TASKS = [
    "drawer-open-v3",
    "door-open-v3",
    "button-press-topdown-v3",
    "reach-v3",
    "window-open-v3",
    "push-v3",
    "handle-press-v3",
    "drawer-close-v3",
]


@pytest.mark.parametrize("repeat", [1, 2, 3, 4])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.slow
def test_experts_succeed_at_every_action_repeat(build, roll, task, repeat):
    env = build(f"metaworld/{task}", action_repeat=repeat, horizon=200 // repeat)
    assert sum(roll(env, "expert", seed)[2] for seed in range(4)) == 4


def wins(env, roll, quality, episodes):
    return sum(roll(env, quality, seed)[2] for seed in range(episodes)) / episodes


def test_qualities_are_ordered(build, roll):
    env = build("metaworld/drawer-open-v3", action_repeat=4, horizon=50)
    assert wins(env, roll, "expert", 5) == 1.0
    assert 0.1 <= wins(env, roll, "noisy", 20) <= 0.9
    assert wins(env, roll, "random", 20) <= 0.1


def test_failures_visit_partial_progress(build, roll):
    env = build("metaworld/door-open-v3", action_repeat=4, horizon=50)
    reached = [roll(env, name, seed)[0].max() for name in ("stop", "retreat") for seed in range(8)]
    assert np.ptp(reached) > 0.3
    assert 0.15 < np.mean(reached) < 0.8


def test_wanderers_travel(build):
    env = build("metaworld/reach-v3", action_repeat=4, horizon=100, terminate_on_success=False)
    observation, _ = env.reset(seed=0)
    act, path = make_behaviour(env, "wander", np.random.default_rng(0)), []
    for _ in range(100):
        observation, *_ = env.step(act(observation))
        path.append(observation["agent_pos"][:3])
    assert np.all(np.ptp(path, axis=0) > 0.1)  # white noise stays within about 5 cm


def test_stop_holds_its_place(build):
    env = build("metaworld/drawer-open-v3", action_repeat=4, horizon=80)
    observation, _ = env.reset(seed=0)
    act, path = make_behaviour(env, "stop", np.random.default_rng(1)), []
    for _ in range(80):
        observation, *_ = env.step(act(observation))
        path.append(observation["agent_pos"][:3])
    assert np.abs(np.diff(path[-10:], axis=0)).max() < 1e-3
    assert np.linalg.norm(np.ptp(path, axis=0)) > 0.02


def test_mixed_draws_every_behaviour_anew(build):
    env, rng = build("metaworld/reach-v3"), np.random.default_rng(0)
    env.reset()
    drawn = Counter(make_behaviour(env, "mixed", rng).name for _ in range(400))
    assert drawn.keys() == BEHAVIOURS.keys()
    for name, share in QUALITIES["mixed"].items():
        assert drawn[name] / 400 == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize("quality", sorted(BEHAVIOURS))
def test_a_generator_decides_everything(build, roll, quality):
    env = build("metaworld/window-open-v3", action_repeat=4, horizon=30)
    first, second, other = (roll(env, quality, seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("quality", sorted(BEHAVIOURS))
def test_actions_lie_in_the_action_space(build, quality):
    env = build("metaworld/drawer-close-v3", horizon=60)
    observation, _ = env.reset(seed=0)
    act = make_behaviour(env, quality, np.random.default_rng(0))
    for _ in range(60):
        action = act(observation)
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)


def test_wrapped_environments_are_unwrapped_and_foreign_ones_refused(build):
    env = gym.wrappers.TimeLimit(build("metaworld/reach-v3"), 5)
    env.reset()
    assert make_behaviour(env, "expert", np.random.default_rng(0)).name == "expert"
    with pytest.raises(EnvError, match="CartPoleEnv has no scripted behaviours"):
        make_behaviour(gym.make("CartPole-v1"), "expert", np.random.default_rng(0))


def test_unknown_quality_lists_the_nearest(build):
    with pytest.raises(EnvError, match="unknown quality 'experts'; did you mean 'expert'"):
        make_behaviour(build("metaworld/reach-v3"), "experts", np.random.default_rng(0))
