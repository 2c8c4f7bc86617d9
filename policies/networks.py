"""Networks that Stable-Baselines3 does not have: standardised input and LayerNorm ensembles."""

import math
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_reward.types import Float32

from .actors import ResidualActor, SquashedActor

SCALE_FLOOR = 0.1  # one demonstration moves little; a smaller scale saturates the inputs


class StandardizedInput(BaseFeaturesExtractor):
    """(obs - mean) / scale with fixed buffers, which are saved with the policy.

    Args:
        observation_space: a flat box [o].
        mean: Float32["o"]; None for zeros.
        scale: Float32["o"], positive; None for ones.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        mean: Float32 | None = None,
        scale: Float32 | None = None,
    ) -> None:
        width = math.prod(observation_space.shape)
        super().__init__(observation_space, width)
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(width) if mean is None else torch.tensor(mean))
        self.register_buffer("scale", torch.ones(width) if scale is None else torch.tensor(scale))

    def forward(self, observations: Tensor) -> Tensor:
        """Standardise [b o]."""
        return (observations.flatten(1) - self.mean) / self.scale


def input_statistics(obs: Float32) -> dict[str, Float32]:
    """Return the mean and the floored standard deviation of observations [n o]."""
    scale = obs.std(axis=0).clip(min=SCALE_FLOOR)
    return {"mean": obs.mean(axis=0).astype("float32"), "scale": scale.astype("float32")}


class EnsembleLinear(nn.Module):
    """n linear layers in one batched product, [n b i] -> [n b o]; initialised as nn.Linear."""

    def __init__(self, n: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(n, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """Apply layer k to x[k], or layer members[k] where members Tensor["m"] are given."""
        if members is None:
            return torch.baddbmm(self.bias, x, self.weight)
        return torch.baddbmm(self.bias[members], x, self.weight[members])


class EnsembleCritic(BaseModel):
    """n Q-networks evaluated together, with LayerNorm after each hidden layer if asked for.

    LayerNorm bounds the Q-values of unseen actions by the norm of the last weights, which is
    what lets a critic learn from few demonstrations (RLPD, Ball et al. 2023).
    """

    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        n_critics: int = 2,
        layer_norm: bool = True,
        **unused: Any,
    ) -> None:
        super().__init__(observation_space, action_space, features_extractor=features_extractor)
        self.n_critics, self.layer_norm = n_critics, layer_norm
        widths = [features_dim + math.prod(action_space.shape), *net_arch, 1]
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.layers = nn.ModuleList(EnsembleLinear(n_critics, i, o) for i, o in pairs)

    def values(self, obs: Tensor, actions: Tensor, members: Tensor | None = None) -> Tensor:
        """Return Q [n b] of observations [b o] and actions [b a] in [-1, 1].

        With `members`, Tensor["m"], only these are evaluated: [m b].
        """
        x = torch.cat([self.extract_features(obs, self.features_extractor), actions], dim=1)
        x = x.expand(self.n_critics if members is None else len(members), *x.shape)
        for layer in list(self.layers)[:-1]:
            x = layer(x, members)
            x = F.relu(F.layer_norm(x, x.shape[-1:]) if self.layer_norm else x)
        return self.layers[-1](x, members).squeeze(-1)

    def forward(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        """Return one [b 1] per critic, as Stable-Baselines3's critics do."""
        return tuple(self.values(obs, actions).unsqueeze(-1))


class LayerNormSACPolicy(SACPolicy):
    """SB3's SAC policy with `EnsembleCritic`, `SquashedActor` and standardised input.

    Args:
        layer_norm: LayerNorm in the critics.
        residual_bound: makes the actor a `ResidualActor` with this bound; 0 does not.
        averaged: see `SquashedActor`.
        kwargs: see `SACPolicy`.
    """

    actor: SquashedActor

    def __init__(
        self,
        *args: Any,
        layer_norm: bool = True,
        residual_bound: float = 0.0,
        averaged: bool = False,
        **kwargs: Any,
    ) -> None:
        self._layer_norm, self._residual_bound = layer_norm, residual_bound
        self._averaged = averaged
        kwargs.setdefault("features_extractor_class", StandardizedInput)
        super().__init__(*args, **kwargs)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """Return an actor of `actors.py` in place of SB3's."""
        kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)
        kwargs["averaged"], bound = self._averaged, self._residual_bound
        actor = ResidualActor(**kwargs, bound=bound) if bound else SquashedActor(**kwargs)
        return actor.to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """Return the ensemble in place of SB3's list of networks."""
        kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)
        return EnsembleCritic(**kwargs, layer_norm=self._layer_norm).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        ours = {
            "layer_norm": self._layer_norm,
            "residual_bound": self._residual_bound,
            "averaged": self._averaged,
        }
        return {**super()._get_constructor_parameters(), **ours}
