"""Behaviour cloning of Stable-Baselines3 actors: the warm start of RL."""

from collections.abc import Callable

import numpy as np
import torch
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from embodied_reward.errors import NonFiniteError
from embodied_reward.types import Float32

from .networks import LayerNormSACPolicy

# tanh never reaches 1: aiming beyond would drive its input, and so the gradients, out of reach.
LARGEST_TARGET = 0.97


type Progress = Callable[[int, float], None]  # (gradient step, loss)


def clone(
    policy: LayerNormSACPolicy | ActorCriticPolicy,
    obs: Float32,
    actions: Float32,
    *,
    steps: int,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    std: float = 0.15,
    seed: int = 0,
    on_step: Progress | None = None,
) -> float:
    """Fit the policy's mean action to demonstrated ones by least squares.

    The mean is fitted rather than the likelihood, because with few demonstrations the fitted
    spread collapses; the spread is then set to `std`, which RL starts to explore with.

    Args:
        policy: SAC's or SB3's PPO policy; its optimiser states are left alone. Of a residual
            policy the base is fitted, while its residual is zero.
        obs: Float32["n o"].
        actions: Float32["n a"] scaled to [-1, 1].
        steps: gradient steps.
        learning_rate: of Adam, annealed to zero along a half cosine.
        batch_size: rows per step, drawn with replacement.
        std: standard deviation of exploration, in units of the action range [-1, 1].
        seed: of the batches.
        on_step: progress hook.

    Returns:
        The mean squared error over all rows afterwards.

    Raises:
        NonFiniteError: the loss became NaN or infinite.
    """
    module = _cloned(policy)
    parameters = list(module.parameters())
    learned = [p.requires_grad for p in parameters]
    module.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    rng = np.random.default_rng(seed)
    x, y = torch.from_numpy(obs).to(policy.device), torch.from_numpy(actions).to(policy.device)
    y = y.clamp(-LARGEST_TARGET, LARGEST_TARGET)
    for step in range(steps):
        rows = torch.from_numpy(rng.integers(len(x), size=min(batch_size, len(x))))
        loss = (mean_action(policy, x[rows]) - y[rows]).square().mean()
        if not torch.isfinite(loss):
            raise NonFiniteError(f"the cloning loss is {loss.item()} at step {step}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if on_step:
            on_step(step, loss.item())
    for p, before in zip(parameters, learned, strict=True):
        p.requires_grad_(before)
    set_exploration(policy, std)
    if isinstance(policy, LayerNormSACPolicy):
        policy.actor.follow(0.0)
    with torch.no_grad():
        return (mean_action(policy, x) - y).square().mean().item()


def mean_action(policy: LayerNormSACPolicy | ActorCriticPolicy, obs: Tensor) -> Tensor:
    """Return the deterministic action [b a] in [-1, 1], differentiably."""
    if isinstance(policy, LayerNormSACPolicy):
        return policy.actor.aim(obs)
    distribution = policy.get_distribution(obs)
    assert isinstance(distribution, DiagGaussianDistribution)
    return distribution.distribution.mean


def set_exploration(policy: LayerNormSACPolicy | ActorCriticPolicy, std: float) -> None:
    """Make the policy's spread `std` in every state."""
    with torch.no_grad():
        if isinstance(policy, LayerNormSACPolicy):
            head = policy.actor.log_std
            assert isinstance(head, nn.Linear)
            head.weight.zero_()
            head.bias.fill_(float(np.log(std / policy.actor.bound)))
        else:
            policy.log_std.fill_(float(np.log(std)))


def _cloned(policy: LayerNormSACPolicy | ActorCriticPolicy) -> nn.Module:
    if isinstance(policy, LayerNormSACPolicy):
        return policy.actor.cloned()
    return nn.ModuleList([policy.mlp_extractor.policy_net, policy.action_net])
