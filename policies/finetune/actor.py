"""A fine-tuned diffusion policy: a frozen network, an agent that steers it, and its files.

pretrained_model/{config.json, model.safetensors}   the agent
pretrained_model/base/                              the diffusion policy, in LeRobot's format
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from embodied_reward.types import Float32

from ..diffusion.actor import DiffusionActor, DiffusionSpec, History
from ..networks import EnsembleCritic
from .aliased import AliasedPolicy
from .best_of_n import ChoosingPolicy
from .config import FinetuneConfig, NoiseSearchConfig
from .search import search
from .steering import Choosing, Steering

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
            seen = self.steering.observe(stack)
            action = self._action(stack, seen, deterministic)
            self._plan.extend(self.steering.plan(stack, action))
        return self._plan.popleft()

    def _action(self, stack: Mapping[str, Tensor], seen: Float32, deterministic: bool) -> Float32:
        return self.network.predict(seen[None], deterministic=deterministic)[0][0]


class SearchingActor(SteeredActor):
    """Climbs on the critic from the candidates' noise, where `SteeredActor` takes the best.

    Args:
        config: of the search.
        steering: see `SteeredActor`.
        network: likewise.
        spec: likewise.
    """

    steering: Choosing
    network: ChoosingPolicy

    def __init__(
        self, config: NoiseSearchConfig, steering: Choosing, network: ChoosingPolicy, spec: Any
    ) -> None:
        self._config, self._directions = config, torch.Generator()
        super().__init__(steering, network, spec)

    def reset(self, seed: int) -> None:
        """Begin an episode."""
        super().reset(seed)
        self._directions.manual_seed(seed)

    def _action(self, stack: Mapping[str, Tensor], seen: Float32, deterministic: bool) -> Float32:
        if not deterministic:
            return super()._action(stack, seen, deterministic)
        state, critic = torch.from_numpy(seen)[None], self.network.critic
        assert isinstance(critic, EnsembleCritic)

        def score(noise: Tensor) -> Tensor:
            actions = self.steering.denoise(stack, noise)
            return critic.values(state.expand(len(actions), -1), actions).amin(dim=0)

        found = search(
            score,
            self.steering.noise,
            steps=self._config.search_steps,
            rate=self._config.search_rate,
            gradient=self._config.search_gradient,
            generator=self._directions,
        )
        with torch.no_grad():
            return self.steering.denoise(stack, found.noise[None])[0].numpy()


def steered(
    config: FinetuneConfig, steering: Steering, network: BasePolicy, spec: Any
) -> SteeredActor:
    """Return what acts by a fine-tuning method's agent."""
    if isinstance(network, AliasedPolicy):
        network.base = steering.base
    if not isinstance(config, NoiseSearchConfig):
        return SteeredActor(steering, network, spec)
    assert isinstance(steering, Choosing)
    assert isinstance(network, ChoosingPolicy)
    return SearchingActor(config, steering, network, spec)


def diffusion_spec(policy: object) -> DiffusionSpec | None:
    """Return what the diffusion policy in `policy` observes; None where there is none."""
    if isinstance(policy, SteeredActor):
        return policy.steering.base.spec
    return policy.spec if isinstance(policy, DiffusionActor) else None
