"""`preference`: raise the better of two plans over the policy that fine-tuning began with.

D3PO (Yang et al. 2023, arXiv:2311.13231), which is DPO (Rafailov et al. 2023) on the steps of the
denoising chain. Of a better plan w and a worse one l,

    L = -log sigmoid(beta (d_k(w) - d_k(l))) - keep beta d_k(w)
    d_k = log pi(x_k+1 | x_k) - log pi_start(x_k+1 | x_k)

averaged over the steps k that learn: a preference about plans is taken to hold at each of them.

Pairs are plans of rollouts, ranked by what they were worth, as RAPL (Tian et al. 2024,
arXiv:2412.04835) ranks by its learned reward. That is the advantage (GAE): ranked by return, a plan
would be preferred for the state that it began in. Only the order counts, not by how much, except
that pairs closer than a margin are left out.

Deviations: the second term, the likelihood of the better plans. DPO asks for a difference alone and
meets it also by making worse plans unlikely in any direction: without the term the toy of
docs/diffusion.md left both modes on some seeds. All pairs of a minibatch count; they begin in
different states and noise, whose normalisers are taken to be equal. The source's clamp of the ratio
is left out. Only the actions that are carried out count in the last step (`Chain.log_prob`).

Optimal policy: not kept. It tends to the best policy under a price of divergence, by a reward of
which only the order is known. Potential-based shaping leaves advantages, and so the order, as they
are (with an exact critic).
"""

import torch
from torch import Tensor, nn

from .options import PreferenceConfig
from .prdp import PairRegression


def preference_loss(
    new: Tensor, start: Tensor, reward: Tensor, *, beta: float, margin: float, keep: float
) -> Tensor:
    """Return the loss of all ordered pairs of n chains; 0 where there are none.

    Args:
        new: log-likelihoods [n k] of the steps, with their gradient.
        start: the same under the policy that fine-tuning began with, [n k].
        reward: [n]; only the order counts.
        beta: the larger, the sooner a pair is settled.
        margin: pairs that are closer, or equal, are left out.
        keep: weight of the better plans' own likelihood.
    """
    apart = new - start
    gap = reward[:, None] - reward[None, :]
    better, worse = torch.nonzero((gap > 0) & (gap >= margin), as_tuple=True)
    if not len(better):
        return 0.0 * new.sum()
    won = beta * apart[better]
    ordered = nn.functional.logsigmoid(won - beta * apart[worse])
    return -(ordered + keep * won).mean()


class PreferenceOptimisation(PairRegression):
    """PRDP's collection and pairs, with the order of rewards in place of their differences."""

    method: PreferenceConfig

    def _loss(self, new: Tensor, acted: Tensor, start: Tensor, reward: Tensor) -> Tensor:
        method = self.method
        return preference_loss(
            new, start, reward, beta=method.beta, margin=method.margin, keep=method.keep
        )
