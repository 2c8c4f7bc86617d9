"""`tp_grpo`: every denoising step earns what it changed, instead of a share of the outcome.

TurningPoint-GRPO (2026, arXiv:2602.06422); the formula stands in `turning.py`. It asks what the
plan would have been worth had the noise ended after step t. On a robot that would take another
rollout per step, so a critic Q(s, plan) answers, which learns every rollout's returns before the
update.
The loss is DPPO's, with an advantage per step.

Deviations: Q for the reward; no group of plans from one observation: what each step earns is
centred by the average of that step and scaled by the spread of all, over a whole rollout.

Optimal policy: not kept by proof. An increment is the advantage of a step with the noiseless
completion as its baseline, which is not the expected value of going on with noise, and a critic
that errs is believed. Potential-based shaping leaves Q's differences in one state as they are.
"""

import torch
from torch import Tensor, nn

from .chain import Chain
from .dppo import CHUNK
from .judge import JudgedPPO
from .options import TPGRPOConfig
from .rollout import Rollout
from .turning import step_credit


@torch.no_grad()
def completions(
    chain: Chain, network: nn.Module, chains: Tensor, condition: Tensor, first: int = 0
) -> Tensor:
    """Return the plans that chains would end in if the noise had stopped.

    Args:
        chain: see `Chain`.
        network: of the steps that are completed.
        chains: [n K+1 h a].
        condition: [n c].
        first: the earliest latent to complete.

    Returns:
        [n K+1-first h a]; the last is the plan that was drawn.
    """
    going = chains[:, first : first + 1]  # latents that are completed together, [n j h a]
    for step in range(first, chain.steps):
        flat = going.flatten(0, 1)
        k = torch.full((len(flat),), step, device=flat.device)
        known = condition.repeat_interleave(going.shape[1], dim=0)
        moved = chain.mean(network, flat, k, known).view(going.shape)
        going = torch.cat([moved, chains[:, step + 1 : step + 2]], dim=1)
    return going


class TurningPPO(JudgedPPO):
    """DPPO's update with an advantage per denoising step."""

    method: TPGRPOConfig
    _credit: Tensor

    def _rollout(self) -> Rollout:
        rollout = super()._rollout()
        if not len(rollout.obs):
            return rollout
        scores = self.scores(rollout)
        credit = step_credit(scores) if self.method.turning else scores.diff(dim=1)
        credit = credit - credit.mean(dim=0)
        self._credit = credit / (credit.std() + 1e-8)
        self.logger.record("train/step_credit", float(credit.abs().mean()))
        return rollout

    @torch.no_grad()
    def scores(self, rollout: Rollout) -> Tensor:
        """Return R [n K'+1]: Q of the plan had the noise ended after so many learning steps."""
        policy, found = self.policy, []
        for obs, chains in zip(rollout.obs.split(CHUNK), rollout.chains.split(CHUNK), strict=True):
            plans = completions(
                policy.chain, policy.learner.diffusion.unet, chains, policy.condition(obs),
                policy.frozen,
            )  # fmt: skip
            count = plans.shape[1]
            seen = obs.repeat_interleave(count, dim=0)
            used = plans.flatten(0, 1)[:, policy.chain.used]
            found.append(policy.critic.score(seen, used).view(len(obs), count))
        return torch.cat(found)

    def _advantages(self, rollout: Rollout, rows: Tensor, k: Tensor) -> Tensor:
        return self._credit[rows, k]
