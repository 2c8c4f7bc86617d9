"""A critic of plans beside the critic of observations, for methods that look into the denoising."""

import torch
from gymnasium import spaces
from torch import Tensor, nn

from ..networks import EnsembleCritic, StandardizedInput
from .dppo import ChainPPO
from .tuned import DenoisingPolicy, mlp

FIT_BATCH = 256  # decisions per gradient step of the judge


class Judge(nn.Module):
    """V(s) and Q(s, plan).

    Args:
        observation_space: the observations [o].
        action_space: the plans that are carried out, as [a] in [-1, 1].
        net_arch: hidden widths of each.
    """

    def __init__(
        self, observation_space: spaces.Box, action_space: spaces.Box, net_arch: list[int]
    ) -> None:
        super().__init__()
        seen = StandardizedInput(observation_space)
        width = seen.features_dim
        self.value = mlp(width, net_arch)
        self.plans = EnsembleCritic(observation_space, action_space, net_arch, seen, width)

    def forward(self, obs: Tensor) -> Tensor:
        """Return V [b 1]."""
        return self.value(obs)

    def score(self, obs: Tensor, plans: Tensor) -> Tensor:
        """Return the members' average Q [b] of observations [b o] and plans [b n a]."""
        return self.plans.values(obs, plans.clamp(-1, 1).flatten(1)).mean(dim=0)

    def loss(self, obs: Tensor, plans: Tensor, returns: Tensor) -> Tensor:
        """Return the members' squared error on returns [b]."""
        values = self.plans.values(obs, plans.clamp(-1, 1).flatten(1))
        return (values - returns).square().mean()


class JudgedPolicy(DenoisingPolicy):
    """A diffusion policy that learns, with a `Judge` as its critic."""

    critic: Judge

    def _new_critic(self, width: int, net_arch: list[int]) -> nn.Module:
        assert isinstance(self.observation_space, spaces.Box)
        assert isinstance(self.action_space, spaces.Box)
        return Judge(self.observation_space, self.action_space, net_arch)


class JudgedPPO(ChainPPO):
    """DPPO that teaches a judge what every rollout returned before it updates the network."""

    policy: JudgedPolicy  # type: ignore[assignment]

    def train(self) -> None:
        """Update once; raises NonFiniteError, with nothing changed, on a bad rollout."""
        self._refuse_bad_numbers()
        self._teach()
        super().train()

    def _teach(self) -> None:
        policy, batch = self.policy, next(self.rollout_buffer.get())
        count = len(batch.observations)
        shape = (count, policy.chain.steps + 1, *policy.actor.noise_shape)
        plans = batch.actions.view(shape)[:, -1, policy.chain.used]
        loss = torch.zeros(())
        for _ in range(self.method.judge_steps):
            rows = torch.randint(count, (min(count, FIT_BATCH),))
            loss = policy.critic.loss(batch.observations[rows], plans[rows], batch.returns[rows])
            self._descend(loss)
        self.logger.record("train/judge_loss", loss.item())
