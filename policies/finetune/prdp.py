"""`prdp`: differences of log-likelihood are regressed onto differences of reward.

PRDP (Deng et al. 2024, arXiv:2402.08714). Of two plans a and b, with the denoising chains that led
to them,

    L = | D(a) - D(b) - (r_a - r_b) / beta |^2,    D = sum_k log pi(x_k+1 | x_k) / pi_start(...)

whose only minimum is pi ~ pi_start exp(r / beta), the best policy at that price of divergence. A
second loss has the change of every step since the rollout cut to +-clip, and the larger of the two
counts: the regression stays near what acted.

Where a decision is one of many, r is its advantage (GAE): the reward of a plan would hold the value
of the state it began in. Adding a constant to all rewards changes nothing.

Deviations: all pairs of a minibatch instead of two plans of one prompt; they begin in different
states and noise, whose normalisers are taken to be equal (a network that learned the difference
changed nothing on the toy of docs/diffusion.md). The future's divergence is not charged. Only the
actions that are carried out count in the last step (`Chain.log_prob`).

Optimal policy: not kept. It tends to the best policy under a price of divergence, and to the
optimal one only as beta -> 0. Potential-based shaping leaves advantages, and so the minimum, as
they are (with an exact critic).
"""

from typing import Any

import torch
from torch import Tensor

from .dppo import ChainPPO
from .rollout import Rollout


def pair_loss(
    new: Tensor, acted: Tensor, start: Tensor, reward: Tensor, *, beta: float, clip: float
) -> Tensor:
    """Return the proximal loss of all pairs of n chains, times beta^2.

    Args:
        new: log-likelihoods [n k] of the steps, with their gradient.
        acted: the same under the policy that drew the chains, [n k].
        start: the same under the policy that fine-tuning began with, [n k].
        reward: [n]; only differences count.
        beta: rewards per nat.
        clip: largest change from `acted` per step.
    """
    near = acted + (new - acted).clamp(-clip, clip)
    errors = [beta * (log - start).sum(dim=1) - reward for log in (new, near)]
    free, kept = ((e[:, None] - e[None, :]).square() for e in errors)
    count = len(reward)
    return torch.maximum(free, kept).sum() / max(1, count * (count - 1))


class PairRegression(ChainPPO):
    """DPPO's collection and critic, with PRDP's regression in place of the ratio."""

    method: Any

    @property
    def _anchored(self) -> bool:
        return True

    def _scaled(self, advantages: Tensor) -> Tensor:
        # In units of reward, because beta is a price in them.
        return advantages

    def _epoch(self, rollout: Rollout) -> list[dict[str, float]]:
        """Pass over all decisions, in minibatches that hold `pairs` denoising steps."""
        logs, count = [], max(2, self.pairs // self.policy.tuned)
        for rows in torch.randperm(len(rollout.obs)).split(count):
            if len(rows) < 2:
                continue  # nothing to compare it with
            logs.append(self._regress(rollout, rows))
            if self._far(logs):
                break
        return logs

    def _regress(self, rollout: Rollout, rows: Tensor) -> dict[str, float]:
        policy, chains, obs = self.policy, rollout.chains[rows], rollout.obs[rows]
        k = torch.arange(policy.frozen, policy.chain.steps)
        numbers = policy.chain.numbers[k]
        new = policy.log_probs(chains, obs)
        with torch.no_grad():
            start = policy.chain_logs(rollout.starts[rows][:, k], chains)
        acted = rollout.logs[rows]
        loss = self._loss(new * numbers, acted * numbers, start * numbers, rollout.advantages[rows])
        if policy.frozen:
            loss = loss + self._held(rollout, rows, torch.randint(policy.frozen, (len(rows),)))
        value_loss = self._value_loss(rollout, rows)
        self._descend(value_loss * self.vf_coef + (loss if self._learns else 0.0))
        change = (new - acted).detach()
        far = float((change.exp() - 1 - change).mean()) if self._learns else 0.0
        apart = float(((acted - start) * numbers).sum(dim=1).mean())
        logs = {"train/pair_loss": loss.item(), "train/approx_kl": far}
        return logs | {"train/value_loss": value_loss.item(), "train/kl_start": apart}

    def _loss(self, new: Tensor, acted: Tensor, start: Tensor, reward: Tensor) -> Tensor:
        """Return the loss of n chains' log-likelihoods [n k], summed over plans, and rewards."""
        return pair_loss(new, acted, start, reward, beta=self.method.beta, clip=self.method.clip)
