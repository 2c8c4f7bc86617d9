"""`rwr`: clone the policy's own plans, the better ones more often.

Reward-weighted regression (Peters and Schaal 2007) with the denoising loss, as the baselines DRWR
and DAWR of DPPO (Ren et al. 2024, arXiv:2409.00588, appendix) use it:

    w = min(exp((R - mean) / (std * temperature)), max_weight)
    L = sum w |eps - eps_theta|^2 / sum w

over the newest plans. With R the return of a decision this is RWR, with its advantage AWR (Peng et
al. 2019, arXiv:1910.00177), and with the reward of the plan alone, under a potential mode,
progress-weighted self-imitation: kappa * (gamma Phi(s') - Phi(s)) is the progress that it made.

A share of every minibatch is demonstrations, where there are some: own plans are only as wide as
the policy that made them, and imitating them over and over narrows it.

Deviations: plans are drawn with probability ~ w instead of weighting the loss, which has the same
mean and spends no step on plans of weight 0. Of the own plans only the actions that are carried
out count, because no reward speaks for the others. Where all plans were worth the same nothing is
learned.

Optimal policy: not kept. One round tends to pi * exp(R / temperature), so risky plans with a high
luckiest return are preferred where the outcome is random; repeated, it ends on the best plan that
was seen. Potential-based shaping subtracts Phi(s) from a return, which changes the weights between
states but not those of plans from one state.
"""

from typing import Any

import torch
from torch import Tensor

from .plan_options import RWRConfig
from .plans import Demonstrations, PlanPPO, Plans, denoising_errors


def reward_weights(scores: Tensor, temperature: float, max_weight: float) -> Tensor:
    """Return probabilities [n], of sum 1, for scores [n] that are not all the same.

    Args:
        scores: only their order and distances in standard deviations count.
        temperature: standard deviations per e-fold.
        max_weight: largest weight where that of an average score is 1.
    """
    scaled = (scores - scores.mean()) / scores.std(correction=0).clamp_min(1e-8) / temperature
    weights = scaled.exp().clamp(max=max_weight)
    return weights / weights.sum()


class RewardWeighted(PlanPPO):
    """Draws plans by their weights and demonstrations evenly, and clones both.

    Args:
        demos: see `Demonstrations`; None has no anchor.
        kwargs: see `PlanPPO`.
    """

    method: RWRConfig

    def __init__(self, *args: Any, demos: Demonstrations | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.demos = demos

    def _step(self, kept: Plans) -> dict[str, float]:
        weights = reward_weights(kept.scores, self.method.temperature, self.method.max_weight)
        anchors = round(self.method.demo_fraction * self.pairs) if self.demos else 0
        own = torch.multinomial(weights, max(1, self.pairs - anchors), replacement=True)
        used = self.policy.chain.used
        errors = self._errors(kept.obs[own], kept.plans[own])[:, used].flatten(1).mean(dim=1)
        if self.demos is not None and anchors:
            rows = torch.randint(len(self.demos.obs), (anchors,))
            both = self._errors(self.demos.obs[rows], self.demos.plans[rows])
            held = (both * self.demos.known[rows]).flatten(1).mean(dim=1)
            errors = torch.cat([errors, held])
        loss = errors.mean()
        self._descend(loss)
        share = 1 / (weights.square().sum() * len(weights))
        return {"train/loss": loss.item(), "train/effective_share": share.item()}

    def _errors(self, obs: Tensor, plans: Tensor) -> Tensor:
        policy = self.policy
        noise, times = self._drawn(plans)
        return denoising_errors(policy.learner, plans, policy.condition(obs), noise, times)
