"""An environment whose decision is a whole plan of a diffusion policy."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from embodied_reward.types import Float32

from ..diffusion.actor import DiffusionActor, DiffusionSpec, History, load_actor
from .config import SteeringConfig, TuningConfig
from .steering import Steering, steering_of


class PlanEnv(gym.Wrapper):
    """Carry out one steered plan per step; what shapes rewards belongs outside of it.

    So Phi is read once per plan, gamma is the discount per plan, and the shaping telescopes.
    The reward of a plan is the sum of its steps' rewards. A plan stops where the episode ends,
    at a termination as at a truncation, and both are passed on as they are.

    Observation: Float32["width"] as the steering says; action: [-1, 1], one number per degree of
    freedom of the steering.

    Args:
        env: with the observations that the diffusion policy was trained on.
        steering: see `Steering`.
        seed: of the first episode's noise; later ones follow it.
    """

    def __init__(self, env: gym.Env, steering: Steering, seed: int) -> None:
        super().__init__(env)
        self.steering, self._history = steering, History(steering.base.spec)
        self._seeds = np.random.default_rng(seed)
        bound = np.float32(np.inf)
        self.observation_space = gym.spaces.Box(-bound, bound, (steering.width,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (steering.actions,), np.float32)

    def reset(self, **kwargs: Any) -> tuple[Float32, dict[str, Any]]:
        """Begin an episode."""
        if kwargs.get("seed") is not None:
            self._seeds = np.random.default_rng(kwargs["seed"])
        obs, info = self.env.reset(**kwargs)
        self._history.clear()
        self._history.add(obs)
        self.steering.begin(int(self._seeds.integers(2**31)))
        return self.steering.observe(self._history.stacked()), info

    def step(self, action: Float32) -> tuple[Float32, float, bool, bool, dict[str, Any]]:
        """Carry out the plan that `action` leads to."""
        total, won, ended, truncated, info = 0.0, False, False, False, {}
        for one in self.steering.plan(self._history.stacked(), action):
            obs, reward, ended, truncated, info = self.env.step(one)
            self._history.add(obs)
            total, won = total + float(reward), won or bool(info.get("is_success"))
            if ended or truncated:
                break
        seen = self.steering.observe(self._history.stacked())
        return seen, total, bool(ended), bool(truncated), {**info, "is_success": won}


@dataclass(frozen=True)
class Plans:
    """How environments get their plans, in this process or in another.

    Attributes:
        folder: `pretrained_model` of the trained diffusion policy.
        config: the fine-tuning method.
    """

    folder: str
    config: SteeringConfig | TuningConfig

    @property
    def spec(self) -> DiffusionSpec:
        """What the diffusion policy observes."""
        return frozen_actor(self.folder).spec

    def steering(self) -> Steering:
        """Build a steering with a memory of its own; the frozen network is shared."""
        return steering_of(self.config, frozen_actor(self.folder))

    def around(self, env: gym.Env, seed: int) -> PlanEnv:
        """Wrap an environment."""
        return PlanEnv(env, self.steering(), seed)


@lru_cache(maxsize=2)
def frozen_actor(folder: str) -> DiffusionActor:
    """Load a diffusion policy from its `pretrained_model`, once per process."""
    actor = load_actor(Path(folder))
    actor.model.requires_grad_(False)
    return actor
