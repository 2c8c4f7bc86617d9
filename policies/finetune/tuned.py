"""A diffusion policy whose weights learn, as Stable-Baselines3 sees it.

SB3's action is the whole denoising chain, so that its rollout buffer holds what the update needs;
the environment gets the plan at the chain's end. Saved is the network alone, in LeRobot's format.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import create_mlp
from torch import Tensor, nn

from embodied_reward.types import Float32

from ..diffusion.actor import DiffusionActor
from .chain import Chain


class DenoisingPolicy(BasePolicy):
    """Denoises plans with a network that learns, from a frozen start.

    Args:
        observation_space: the normalised observations [o] of `DiffusionActor.flat`.
        action_space: the plan, n * a numbers in [-1, 1].
        lr_schedule: SB3's; its first value is the network's step size.
        actor: the diffusion policy that fine-tuning begins with; it stays as it is.
        chain: the sampler's steps.
        tuned: how many of the last steps the learner denoises; the start does the others.
        net_arch: hidden widths of the critic.
        critic_learning_rate: the critic's step size.
        use_sde: SB3 gives it; not used.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        lr_schedule: Any,
        *,
        actor: DiffusionActor,
        chain: Chain,
        tuned: int,
        net_arch: tuple[int, ...],
        critic_learning_rate: float,
        use_sde: bool = False,
    ) -> None:
        # "Squashed" makes SB3 ask this class what the environment gets: `unscale_action`.
        super().__init__(observation_space, action_space, squash_output=True)
        self.actor, self.chain, self.tuned = actor, chain, tuned
        self.learner = copy.deepcopy(actor.model).requires_grad_(True)
        self.start = actor.model
        width = int(np.prod(observation_space.shape))
        self.critic = self._new_critic(width, list(net_arch))
        self.optimizer = torch.optim.Adam(
            [
                {"params": list(self.learner.parameters()), "lr": lr_schedule(1)},
                {"params": list(self.critic.parameters()), "lr": critic_learning_rate},
            ]
        )

    @property
    def frozen(self) -> int:
        """How many of the first steps the start denoises."""
        return self.chain.steps - self.tuned

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return chains [b c], values [b 1] and the chains' log-likelihoods [b] for SB3."""
        chains = self.sample(obs)
        logs = self.log_probs(chains, obs).mean(dim=1)
        return chains.flatten(1), self.predict_values(obs), logs

    def predict_values(self, obs: Tensor) -> Tensor:
        """Return what the critic expects [b 1]; it knows no noise, only the observations."""
        return self.critic(obs)

    def sample(self, obs: Tensor) -> Tensor:
        """Return chains [b K+1 h a] that are drawn anew."""
        networks = [self.start.diffusion.unet] * self.frozen
        networks += [self.learner.diffusion.unet] * self.tuned
        first = torch.randn((len(obs), *self.actor.noise_shape), device=obs.device)
        return self.chain.sample(networks, first, self.condition(obs), self._pushing(obs))

    def _pushing(self, obs: Tensor) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Return what moves the means while exploring; see `Chain.sample`."""
        return None

    def log_probs(self, chains: Tensor, obs: Tensor) -> Tensor:
        """Return log-likelihoods [b K'] of the steps that learn, under the learner."""
        k = torch.arange(self.frozen, self.chain.steps, device=obs.device)
        return self.chain_logs(self.means(self.learner, chains, obs, k), chains)

    def chain_logs(self, means: Tensor, chains: Tensor) -> Tensor:
        """Return log-likelihoods [b K'] of the steps that learn, drawn around means [b K' h a]."""
        k = torch.arange(self.frozen, self.chain.steps, device=chains.device)
        rows, drawn = k.repeat(len(chains)), chains[:, k + 1].flatten(0, 1)
        return self.chain.log_prob(means.flatten(0, 1), drawn, rows).view(len(chains), len(k))

    def means(self, model: Any, chains: Tensor, obs: Tensor, k: Tensor) -> Tensor:
        """Return a model's means [b n h a] of the n steps k, along chains."""
        return self.predictions(model, chains, obs, k)[0]

    def predictions(
        self, model: Any, chains: Tensor, obs: Tensor, k: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return `means`, and the plans that the steps expect, [b n h a] each."""
        x, condition = chains[:, k].flatten(0, 1), self.condition(obs)
        condition = condition.repeat_interleave(len(k), dim=0)
        found = self.chain.predict(model.diffusion.unet, x, k.repeat(len(chains)), condition)
        mean, clean = (part.view(len(chains), len(k), *x.shape[1:]) for part in found)
        return mean, clean

    def _new_critic(self, width: int, net_arch: list[int]) -> nn.Module:
        """Return what maps observations [b o] to values [b 1]; it is not part of what is saved."""
        return mlp(width, net_arch)

    def condition(self, obs: Tensor) -> Tensor:
        """Return LeRobot's conditioning [b c] of flat observations [b o]."""
        return self.actor.condition(obs)

    def unscale_action(self, scaled_action: Float32) -> Float32:
        """Return what the environment carries out of chains [b c]: the plans in [-1, 1]."""
        chains = scaled_action.reshape(len(scaled_action), -1, *self.actor.noise_shape)
        return chains[:, -1, self.chain.used].clip(-1, 1).reshape(len(chains), -1)

    def tuned_actor(self, meta: Mapping[str, Any] | None = None) -> DiffusionActor:
        """Return what acts and is saved: the learner in LeRobot's own deterministic sampling.

        Args:
            meta: see `DiffusionSpec`; that of the start by default.
        """
        spec = self.actor.spec
        spec = spec if meta is None else dataclasses.replace(spec, meta=meta)
        model = copy.deepcopy(self.learner).eval().requires_grad_(False)
        return DiffusionActor(model, self.actor.before, self.actor.after, spec)

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return self.sample(observation).flatten(1)


def mlp(width: int, net_arch: list[int]) -> nn.Module:
    """Return a network [b width] -> [b 1]."""
    return nn.Sequential(*create_mlp(width, 1, net_arch, nn.Mish))


class ChainBuffer(RolloutBuffer):
    """SB3's rollout buffer for actions that are chains.

    Args:
        length: numbers in a chain.
        args: SB3's.
        kwargs: SB3's.
    """

    def __init__(self, *args: Any, length: int, **kwargs: Any) -> None:
        self._length = length
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Forget everything."""
        self.action_dim = self._length
        super().reset()
