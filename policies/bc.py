"""Behaviour cloning of Stable-Baselines3 actors: the warm start of RL."""

from collections.abc import Callable

import numpy as np
import torch
from stable_baselines3.common.distributions import DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import Tensor, nn

from embodied_reward.errors import NonFiniteError
from embodied_reward.types import Float32

# tanh never reaches 1: aiming beyond would drive its input, and so the gradients, out of reach.
LARGEST_TARGET = 0.97


type Progress = Callable[[int, float], None]  # (gradient step, loss)


def clone(
    policy: SACPolicy | ActorCriticPolicy,
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
        policy: SB3's SAC or PPO policy; its optimiser states are left alone.
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
    modules = _actor_modules(policy)
    parameters = [p for m in modules for p in m.parameters()]
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
    set_exploration(policy, std)
    with torch.no_grad():
        return (mean_action(policy, x) - y).square().mean().item()


def mean_action(policy: SACPolicy | ActorCriticPolicy, obs: Tensor) -> Tensor:
    """Return the deterministic action [b a] in [-1, 1], differentiably."""
    if isinstance(policy, SACPolicy):
        return torch.tanh(policy.actor.get_action_dist_params(obs)[0])
    distribution = policy.get_distribution(obs)
    assert isinstance(distribution, DiagGaussianDistribution)
    return distribution.distribution.mean


def set_exploration(policy: SACPolicy | ActorCriticPolicy, std: float) -> None:
    """Make the policy's spread `std` in every state."""
    with torch.no_grad():
        if isinstance(policy, SACPolicy):
            head = policy.actor.log_std
            assert isinstance(head, nn.Linear)
            head.weight.zero_()
            head.bias.fill_(float(np.log(std)))
        else:
            policy.log_std.fill_(float(np.log(std)))


def _actor_modules(policy: SACPolicy | ActorCriticPolicy) -> list[nn.Module]:
    if isinstance(policy, SACPolicy):
        actor: Actor = policy.actor
        return [actor.latent_pi, actor.mu]  # type: ignore[list-item]
    return [policy.mlp_extractor.policy_net, policy.action_net]
