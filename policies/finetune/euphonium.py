"""`euphonium`: denoising is pushed along a critic's gradient, and the policy learns to follow.

Euphonium (2026; "Steering Video Flow Matching via Process Reward Gradient Guided Stochastic
Dynamics") adds the gradient of a reward to the drift of the sampler and distils it into the
network. Here a step that learns is drawn around

    mean_k + guidance std_k sqrt(n) g / |g|,    g = d Q(s, x^) / d x^,

with x^ the plan that step k expects, over the n numbers of it that are carried out: a pushed step
is `guidance` standard deviations from its mean (root mean square), guidance^2 / 2 nats per number.
Q is a critic of plans, taught every rollout's returns; it pushes with the weights that it had when
the rollout began. The loss is DPPO's for the pushed policy, with the pushes held, and the
divergence of the policy without a push from where it was pushed to, times `distill`. Saved is the
network, which acts without a critic.

Deviations: the gradient is taken at the expected plan, not through the network to the latent, which
costs no pass backwards through it; of two rewards (latent process, outcome) there is the one that
the environment pays, through Q.

Optimal policy: not kept. The push has the same length wherever the critic has a slope at all, so
the policy goes on uphill where it is already right, and a critic that errs is believed.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .dppo import CHUNK
from .judge import JudgedPolicy, JudgedPPO
from .options import EuphoniumConfig
from .rollout import Rollout


class GuidedPolicy(JudgedPolicy):
    """A diffusion policy whose exploration a critic pushes uphill.

    Args:
        args: see `DenoisingPolicy`.
        guidance: see `EuphoniumConfig`.
        kwargs: see `DenoisingPolicy`.
    """

    guiding: Tensor  # Bool: pushing begins with learning

    def __init__(self, *args: Any, guidance: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guidance = guidance
        self.guide = copy.deepcopy(self.critic).requires_grad_(False)
        self.register_buffer("guiding", torch.tensor(False))

    def follow(self) -> None:
        """Push with the critic as it is now, from the next plan on."""
        self.guide.load_state_dict(self.critic.state_dict())
        self.guiding.fill_(True)

    def _pushing(self, obs: Tensor) -> Callable[[Tensor, Tensor], Tensor] | None:
        return (lambda clean, k: self.push(obs, clean, k)) if self.guiding else None

    def push(self, obs: Tensor, clean: Tensor, k: Tensor) -> Tensor:
        """Return what is added to the means [b h a] of steps k [b].

        Args:
            obs: [b o].
            clean: the plans that the steps expect, [b h a].
            k: Int64[b]; steps that do not learn are not pushed.
        """
        with torch.enable_grad():
            plans = clean.detach()[:, self.chain.used].requires_grad_(True)
            (slope,) = torch.autograd.grad(self.guide.score(obs, plans).sum(), plans)
        norm = slope.flatten(1).norm(dim=1)
        size = self.guidance * self.chain.std[k] * slope[0].numel() ** 0.5 * (k >= self.frozen)
        pushed = torch.zeros_like(clean)
        # A slope of exactly 0 (all numbers at their limits) is not pushed.
        scale = torch.where(norm > 0, size / norm.clamp(min=torch.finfo(norm.dtype).tiny), 0.0)
        pushed[:, self.chain.used] = scale[:, None, None] * slope
        return pushed

    def pushed(self, chains: Tensor, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and pushes [b K' h a] of the steps that learn, along chains [b K+1 h a]."""
        k = torch.arange(self.frozen, self.chain.steps, device=obs.device)
        mean, clean = self.predictions(self.learner, chains, obs, k)
        seen, rows = obs.repeat_interleave(len(k), dim=0), k.repeat(len(chains))
        return mean, self.push(seen, clean.flatten(0, 1), rows).view_as(mean)


class GuidedPPO(JudgedPPO):
    """DPPO's update of the pushed policy, and of the one without a push towards it."""

    method: EuphoniumConfig
    policy: GuidedPolicy  # type: ignore[assignment]
    _pushed: tuple[Tensor, Tensor] | None = None  # where the rollout's steps were pushed, by what

    def train(self) -> None:
        """Update once; raises NonFiniteError, with nothing changed, on a bad rollout."""
        super().train()
        if self._learns:
            self.policy.follow()

    @torch.no_grad()
    def _rollout(self) -> Rollout:
        rollout, policy = super()._rollout(), self.policy
        self._pushed = None
        if not policy.guiding:
            return rollout
        parts = zip(rollout.chains.split(CHUNK), rollout.obs.split(CHUNK), strict=True)
        found = [policy.pushed(chains, obs) for chains, obs in parts]
        means, pushes = (torch.cat(part) for part in zip(*found, strict=True))
        self._pushed = means + pushes, pushes
        return rollout._replace(logs=policy.chain_logs(means + pushes, rollout.chains))

    def _acting(self, mean: Tensor, rows: Tensor, k: Tensor) -> Tensor:
        return mean if self._pushed is None else mean + self._pushed[1][rows, k]

    def _anchor(self, rollout: Rollout, rows: Tensor, step: Tensor, mean: Tensor) -> Tensor:
        cost = super()._anchor(rollout, rows, step, mean)
        if self._pushed is None:
            return cost
        goal = self._pushed[0][rows, step - self.policy.frozen]
        apart = self.policy.chain.divergence(mean, goal, step)
        return cost + self.method.distill * apart.mean()
