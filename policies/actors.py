"""SAC's actors: the squashed Gaussian, and a bounded correction of a frozen cloned base."""

import copy
import math
from typing import Any

import torch
from stable_baselines3.sac.policies import Actor
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

_LOG_2PI_HALF = 0.5 * math.log(2 * math.pi)


class SquashedActor(Actor):
    """SB3's actor, which draws without building distribution objects.

    Args:
        averaged: whether deterministic actions come from a running average of the weights (Polyak
            and Juditsky 1992), which `follow` keeps; what explores and learns are the weights.
        kwargs: see SB3's `Actor`.
    """

    bound = 1.0

    def __init__(self, *args: Any, averaged: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.average: nn.ModuleList | None = None
        if averaged:
            self.average = copy.deepcopy(self._mean_layers()).requires_grad_(False)

    def _mean_layers(self) -> nn.ModuleList:
        return nn.ModuleList([self.latent_pi, self.mu])

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average by a share of 1 - `decay` towards the weights."""
        if self.average is not None:
            theirs: list[Tensor] = list(self.average.parameters())
            ours: list[Tensor] = list(self._mean_layers().parameters())
            get_ema_multi_avg_fn(decay)(theirs, ours, 0)

    def sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Draw reparametrised actions [b a] in [-1, 1] and the log-density [b] of what was drawn.

        The density of tanh(u) is that of u times 1 / (1 - tanh(u)^2), written as
        2 (log 2 - u - softplus(-2u)), which does not lose precision where tanh saturates.
        """
        mean, log_std, _ = self.get_action_dist_params(obs)
        noise = torch.randn_like(mean)
        u = mean + log_std.exp() * noise
        log_normal = -0.5 * noise.square() - log_std - _LOG_2PI_HALF
        log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
        return self.executed(obs, torch.tanh(u)), (log_normal - log_slope).sum(dim=1)

    def aim(self, obs: Tensor) -> Tensor:
        """Return the mean action [b a], before it is cut to [-1, 1]: what cloning fits."""
        return self.around(obs, torch.tanh(self.get_action_dist_params(obs)[0]))

    def around(self, obs: Tensor, mean: Tensor) -> Tensor:
        """Return what is aimed at where the network says `mean` [b a]."""
        return mean

    def executed(self, obs: Tensor, drawn: Tensor) -> Tensor:
        """Return the action [b a] in [-1, 1] that the environment and the critic are given."""
        return drawn

    def cloned(self) -> nn.Module:
        """Return what behaviour cloning fits."""
        return self._mean_layers()

    def forward(self, obs: Tensor, deterministic: bool = False) -> Tensor:
        """Return actions [b a] in [-1, 1]."""
        if not deterministic:
            return self.sample(obs)[0]
        if self.average is None:
            return self.aim(obs).clamp(-1, 1)
        latent, mean = self.average
        found = mean(latent(self.extract_features(obs, self.features_extractor)))
        return self.around(obs, torch.tanh(found)).clamp(-1, 1)

    def action_log_prob(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """See `sample`; the name that Stable-Baselines3 calls it by."""
        return self.sample(obs)


class ResidualActor(SquashedActor):
    """clip(base(s) + bound * a_res, -1, 1): a squashed Gaussian a_res corrects a frozen base.

    Residual policy learning as in Policy Decorator (Yuan et al. 2024), with the executed action
    as the critic's input: replayed actions and demonstrated ones then need no translation. It
    starts at a residual of zero, so the mean policy is the base exactly. Log-densities are those
    of a_res, in whose units the target entropy is meant.

    Args:
        bound: of the correction, in the action range [-1, 1]; 2 reaches every action from any.
        kwargs: see SB3's `Actor`.
    """

    def __init__(self, *args: Any, bound: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bound = bound
        mean: Any = self.mu
        self.base = nn.Sequential(*copy.deepcopy(self.latent_pi), copy.deepcopy(mean), nn.Tanh())
        self.base.requires_grad_(False)
        nn.init.zeros_(mean.weight)
        nn.init.zeros_(mean.bias)
        self.follow(0.0)

    def base_action(self, obs: Tensor) -> Tensor:
        """Return the base's action [b a] in (-1, 1)."""
        return self.base(self.extract_features(obs, self.features_extractor))

    def around(self, obs: Tensor, mean: Tensor) -> Tensor:
        """Return base plus mean residual [b a], before it is cut to [-1, 1]."""
        return self.base_action(obs) + self.bound * mean

    def executed(self, obs: Tensor, drawn: Tensor) -> Tensor:
        """Return the base's action corrected by residuals [b a], within [-1, 1]."""
        return clip(self.base_action(obs) + self.bound * drawn)

    def cloned(self) -> nn.Module:
        """Return the base."""
        return self.base


class _Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,), (grad,) = ctx.saved_tensors, grads
        outward = ((x > 1) & (grad < 0)) | ((x < -1) & (grad > 0))
        return grad.masked_fill(outward, 0.0)


def clip(x: Tensor) -> Tensor:
    """Cut to [-1, 1]; beyond, only gradients whose descent leads back pass.

    A plain clamp passes none there: an action that the actor has pushed beyond the range could
    not be brought back by the critic.
    """
    return _Clip.apply(x)  # type: ignore[no-any-return]
