"""A small reaching task in the environments' observation vocabulary, with an expert."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from embodied_reward.policies.config import PPOConfig, SACConfig
from embodied_reward.policies.demos import transitions
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.frames import ProgressInInfo
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from embodied_reward.types import Episode

# Two threads on networks this small wait for each other most of the time.
torch.set_num_threads(1)


class Reach(gym.Env):
    """Move a point [2] to a goal [2]; actions in [-2, 2] move it by up to 0.2."""

    metadata = {"render_fps": 10.0}  # noqa: RUF012
    render_mode = None
    task_description = "reach the goal"

    def __init__(self, horizon=20):
        box = gym.spaces.Box(-2, 2, (2,), np.float32)
        # The keys are sorted by gymnasium: agent_pos comes first when flattened.
        self.observation_space = gym.spaces.Dict({"environment_state": box, "agent_pos": box})
        self.action_space = gym.spaces.Box(-2, 2, (2,), np.float32)
        self.horizon = horizon

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = self.np_random.uniform(0.5, 1.0, 2).astype(np.float32)
        self.at, self.t = np.zeros(2, np.float32), 0
        self.first = self._distance()
        return self._obs(), {"is_success": False}

    def step(self, action):
        self.at = self.at + 0.1 * np.clip(action, -2, 2).astype(np.float32)
        self.t += 1
        won = bool(self._distance() < 0.15)
        return self._obs(), float(won), won, self.t >= self.horizon, {"is_success": won}

    def progress(self):
        return float(np.clip(1 - self._distance() / self.first, 0, 1))

    def _distance(self):
        return float(np.linalg.norm(self.at - self.goal))

    def _obs(self):
        return {"agent_pos": self.at.copy(), "environment_state": self.goal.copy()}


def demonstrate(seed, **changes):
    env, rows, won = Reach(), [], False
    obs, _ = env.reset(seed=seed)
    while True:
        action = np.clip(3 * (obs["environment_state"] - obs["agent_pos"]), -2, 2)
        rows.append((obs["agent_pos"], obs["environment_state"], action, won, env.progress()))
        if won:
            break
        obs, _, won, _, _ = env.step(action)
    state, goal, action, success, progress = (np.array(x) for x in zip(*rows, strict=True))
    fields = {
        "views": {},
        "action": action.astype(np.float32),
        "state": state,
        "environment_state": goal,
        "success": True,
        "success_frames": success,
        "progress": progress.astype(np.float32),
        "fps": 10.0,
        "task": "reach",
        "index": seed,
        "source": f"demos#{seed}",
        "length": len(rows),
    }
    return Episode(**{**fields, **changes})


def flat(env):
    return gym.wrappers.FlattenObservation(
        gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
    )


def learner(count=1, mode="oracle", gamma=0.95, seed=0):
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    envs = [ProgressInInfo(Monitor(flat(Reach()))) for _ in range(count)]
    vector = DummyVecEnv([lambda env=env: env for env in envs])
    vector.seed(seed)
    return LearnedRewardVecEnv(vector, mode_named(mode), gamma=gamma)


@pytest.fixture
def reach():
    return Reach


@pytest.fixture
def make_learner():
    return learner


@pytest.fixture
def demo():
    return demonstrate


@pytest.fixture
def demos():
    env = Reach()
    episodes = [demonstrate(seed) for seed in range(3)]
    return transitions(episodes, env.observation_space, env.action_space, lambda e: e.progress)


@pytest.fixture
def small_sac():
    def make(**changes):
        fields = {
            "net_arch": (32, 32),
            "batch_size": 32,
            "buffer_size": 500,
            "learning_starts": 10,
            "actor_starts": 20,
            "bc_steps": 200,
            "gamma": 0.95,
        }
        return SACConfig(**{**fields, **changes})

    return make


@pytest.fixture
def small_ppo():
    return PPOConfig(net_arch=(32, 32), n_steps=32, batch_size=16, bc_steps=200, gamma=0.95)
