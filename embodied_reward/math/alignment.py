r"""Aligning a representation with preferences over videos (RAPL, arXiv:2310.07932).

With the transport distance d(o, o') = <T*, C> of two embedded videos, T* held constant, a person
who finds p closer to an anchor a than n is modelled by Bradley and Terry:

    P(p closer to a than n) = sigmoid((d(a, n) - d(a, p)) / tau),      L = -log P

A pair "p is better than n" is the same with a preferred video as the anchor.
"""

import torch.nn.functional as F
from torch import Tensor

from embodied_reward.math.sinkhorn import cosine_cost, transport


def video_distance(
    x: Tensor,
    y: Tensor,
    epsilon: float,
    *,
    allowed: Tensor | None = None,
    iterations: int = 200,
    tolerance: float = 1e-4,
) -> Tensor:
    """Return <T*, C> of embedded videos with the plan held, Tensor["b"].

    Args:
        x: Tensor["b t d"].
        y: Tensor["b s d"].
        epsilon: strength of the entropy; 0 takes the exact plan, which needs t = s.
        allowed: bool Tensor["b t s"], frames that may be matched (`sinkhorn.band`); None: all.
        iterations: of Sinkhorn, at most.
        tolerance: of the plan's marginals; training needs no more than a rough plan.
    """
    cost = cosine_cost(x, y)
    found = transport(
        cost.detach(), epsilon, allowed=allowed, iterations=iterations, tolerance=tolerance
    )
    return (cost * found.plan).sum((1, 2))


def alignment_loss(
    closer: Tensor, farther: Tensor, temperature: float, same: Tensor | None = None
) -> Tensor:
    """Return the mean of -log P over triplets.

    Args:
        closer: Tensor["b"], d(a, p).
        farther: Tensor["b"], d(a, n).
        temperature: tau > 0.
        same: bool Tensor["b"], triplets answered "neither", whose target is P = 1/2; None has none.
    """
    logit = (farther - closer) / temperature
    target = logit.new_ones(logit.shape)
    if same is not None:
        target = target - same.to(target) / 2
    return F.binary_cross_entropy_with_logits(logit, target)


def triplet_accuracy(closer: Tensor, farther: Tensor, same: Tensor | None = None) -> float:
    """Return the share of judged triplets that the distances order rightly; NaN without any.

    Equal distances count half; triplets answered "neither" are left out.
    """
    judged = slice(None) if same is None else ~same
    lead = (farther - closer).detach()[judged]
    return float(((lead.sign() + 1) / 2).double().mean())
