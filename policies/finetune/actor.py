"""A fine-tuned diffusion policy: a frozen network, an agent that steers it, and its files.

pretrained_model/{config.json, model.safetensors}   the agent
pretrained_model/base/                              the diffusion policy, in LeRobot's format
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.policies import BasePolicy

from embodied_reward.types import Float32

from ..diffusion.actor import History
from .steering import Steering

BASE = "base"


class SteeredActor:
    """Acts step by step as `PlanEnv` does plan by plan.

    Args:
        steering: see `Steering`; it belongs to this actor alone.
        network: the agent's SB3 policy on what `steering.observe` returns.
        spec: the agent's `PolicySpec`; its `meta` names the environment.
    """

    def __init__(self, steering: Steering, network: BasePolicy, spec: Any) -> None:
        self.steering, self.network, self.spec = steering, network, spec
        self._history, self._plan = History(steering.base.spec), deque()
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin an episode."""
        self._history.clear()
        self._plan.clear()
        self.steering.begin(seed)

    def predict(self, obs: Mapping[str, Any], deterministic: bool = True) -> Float32:
        """Return the next action Float32["a"] in the environment's units.

        Args:
            obs: the environment's dict.
            deterministic: the agent's mean action instead of a sample.
        """
        self._history.add(obs)
        if not self._plan:
            stack = self._history.stacked()
            seen = self.steering.observe(stack)[None]
            action, _ = self.network.predict(seen, deterministic=deterministic)
            self._plan.extend(self.steering.plan(stack, action[0]))
        return self._plan.popleft()
