"""SAC agents that steer: how they explore before they know anything."""

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from embodied_reward.types import Float32

from ..config import SACConfig
from ..networks import LayerNormSACPolicy
from ..replay import Relabel
from ..sac import DemoSAC, build_sac
from .aliased import AliasedPolicy, AliasedSAC
from .best_of_n import ChoosingPolicy, ChoosingSAC
from .config import (
    BestOfNConfig,
    DSRLConfig,
    DSRLNAConfig,
    FinetuneConfig,
    ResidualConfig,
    SteeringConfig,
)
from .steering import Base

FIRST_RESIDUAL = 0.01  # scale of a residual actor's last weights: it begins as the base policy


class NoiseSAC(DemoSAC):
    """Until learning starts, the noise is normal: the base policy itself fills the buffer."""

    noise_bound = 1.0

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[Float32, Float32]:
        if self.num_timesteps >= learning_starts:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        # Torch's generator, because a resumed run gets that one back.
        noise = torch.randn((n_envs, *(self.action_space.shape or ()))) / self.noise_bound
        action = noise.clamp(-1, 1).numpy()
        return action, action


class ResidualSAC(DemoSAC):
    """Progressive exploration: a plan is corrected with probability min(t / H, 1), else left.

    A plan that is left alone is stored with the action 0, which is what was carried out.
    """

    progressive_steps = 0

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[Float32, Float32]:
        action, _ = super()._sample_action(learning_starts, action_noise, n_envs)
        if self.num_timesteps < self.progressive_steps:
            kept = torch.rand((n_envs, 1)).numpy() < self.num_timesteps / self.progressive_steps
            action = np.where(kept, action, 0.0).astype(np.float32)
        return action, action


def build_agent(
    config: SteeringConfig,
    rl: SACConfig,
    env: VecEnv,
    *,
    relabel: Relabel | None = None,
    seed: int = 0,
    base: Base | None = None,
) -> DemoSAC:
    """Build the agent of a fine-tuning method.

    Args:
        config: the method.
        rl: its agent, the discount worked out.
        env: of `PlanEnv`s, usually inside a `LearnedRewardVecEnv`.
        relabel: see `build_sac`.
        seed: of everything the agent draws.
        base: the frozen diffusion policy, where the agent itself denoises (dsrl_na).
    """
    if isinstance(config, DSRLNAConfig):
        return _aliased(config, rl, env, relabel, seed, base)
    if isinstance(config, BestOfNConfig):
        network = network_of(config)
        return build_sac(
            rl, env, relabel=relabel, seed=seed, algorithm=ChoosingSAC, network=network
        )
    if isinstance(config, DSRLConfig):
        model = build_sac(rl, env, relabel=relabel, seed=seed, algorithm=NoiseSAC)
        assert isinstance(model, NoiseSAC)
        model.noise_bound = config.noise_bound
        return model
    assert isinstance(config, ResidualConfig)
    model = build_sac(rl, env, relabel=relabel, seed=seed, algorithm=ResidualSAC)
    assert isinstance(model, ResidualSAC)
    model.progressive_steps = config.progressive_steps
    last = model.actor.mu
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.mul_(FIRST_RESIDUAL)
        last.bias.zero_()
    model.actor.follow(0.0)
    return model


def _aliased(
    config: DSRLNAConfig,
    rl: SACConfig,
    env: VecEnv,
    relabel: Relabel | None,
    seed: int,
    base: Base | None,
) -> DemoSAC:
    assert base is not None
    network = network_of(config, base.noise_shape)
    model = build_sac(rl, env, relabel=relabel, seed=seed, algorithm=AliasedSAC, network=network)
    assert isinstance(model, AliasedSAC)
    model.distill_steps, model.policy.base = config.distill_steps, base
    return model


def network_of(
    config: FinetuneConfig, noise_shape: tuple[int, int] = (0, 0)
) -> tuple[type[LayerNormSACPolicy], dict[str, Any]]:
    """Return the class of a method's network and what it takes beyond `policy_kwargs`.

    Args:
        config: the method.
        noise_shape: (horizon, action size) of the diffusion policy's noise, for dsrl_na.
    """
    if isinstance(config, DSRLNAConfig):
        bound, steps = config.noise_bound, config.noise_steps
        more = {"noise_shape": noise_shape, "noise_steps": steps, "noise_bound": bound}
        return AliasedPolicy, more
    if isinstance(config, BestOfNConfig):
        return ChoosingPolicy, {"candidates": config.candidates, "tau": config.expectile}
    return LayerNormSACPolicy, {}
