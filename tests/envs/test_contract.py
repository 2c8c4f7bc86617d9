"""Gymnasium's and Stable-Baselines3's own checkers; any warning of theirs is an error here."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.utils.passive_env_checker import env_render_passive_checker
from stable_baselines3.common.env_checker import check_env as sb3_check

from embodied_reward.envs import list_envs, make

TASKS = ["drawer-open-v3", "basketball-v3", "door-lock-v3", "bin-picking-v3", "stick-push-v3"]


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_gymnasium_checker_finds_nothing(build, task, pixels):
    env = build(f"metaworld/{task}", pixels=pixels, horizon=30, action_repeat=2)
    # The full render check wants a registered id; the passive one checks modes, rate and array.
    gymnasium_check(env, skip_render_check=True)
    env.reset()
    env_render_passive_checker(env)


@pytest.mark.parametrize("task", TASKS)
def test_sb3_checker_finds_nothing(build, task):
    sb3_check(build(f"metaworld/{task}", horizon=30))


def test_attributes_that_lerobot_reads(build):
    env = build("metaworld/drawer-open-v3", horizon=123, action_repeat=4)
    assert env.task == "drawer-open-v3"
    assert env.task_description == "pull the drawer open by its handle"
    assert env._max_episode_steps == 123
    assert env.metadata == {"render_modes": ["rgb_array"], "render_fps": 20.0}
    assert env.views == ("corner2", "gripperPOV")


@pytest.mark.parametrize("reward", ["success", "dense"])
def test_runs_in_a_gymnasium_vector_env(reward):
    mode = gym.vector.AutoresetMode.SAME_STEP
    builders = [lambda: make("metaworld/reach-v3", horizon=5, reward=reward)] * 2
    envs = gym.vector.SyncVectorEnv(builders, autoreset_mode=mode)
    observation, info = envs.reset(seed=[1, 2])
    assert not np.array_equal(observation["environment_state"][0], info["is_success"])
    for _ in range(6):
        observation, *_, info = envs.step(envs.action_space.sample())
    assert observation["agent_pos"].shape == (2, 4)
    assert "is_success" in info
    envs.close()


@pytest.mark.slow
@pytest.mark.parametrize("env_id", list_envs())
def test_every_task_passes_the_checkers(build, env_id):
    env = build(env_id, pixels=True, horizon=30)
    gymnasium_check(env, skip_render_check=True)
    sb3_check(build(env_id, horizon=30))
    assert 2 <= len(env.task_description.split()) <= 15
