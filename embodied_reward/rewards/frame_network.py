"""The network of methods that read progress off single frames seen from several cameras."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodied_reward.vision.encoders import Encoder


class FrameNetwork(nn.Module):
    """Encode every view on its own, fuse the views, tell whether the frame is a success.

    A view that is absent or dropped is replaced by a learned token before fusion.

    Args:
        encoder: image encoder shared by all views.
        views: number of cameras v.
        dim: size d of a view's feature and of the fused embedding.
        hidden: width of the success head; 0 leaves that head out.
    """

    def __init__(self, encoder: Encoder, *, views: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.adapter = nn.Identity() if encoder.dim == dim else nn.Linear(encoder.dim, dim)
        self.view_token = nn.Parameter(torch.zeros(views, dim))
        self.fusion = nn.Sequential(nn.Linear(views * dim, dim), nn.LayerNorm(dim), nn.GELU())
        self.success_head = mlp(dim, hidden, 1) if hidden else None

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        """Fuse Tensor["n v d"] to Tensor["n d"]; views absent from Bool["n v"] become tokens."""
        shown = torch.where(present.unsqueeze(-1), features, self.view_token)
        return self.fusion(shown.flatten(1))

    def success(self, fused: Tensor) -> Tensor:
        """Return success logits Tensor["n"] of fused Tensor["n d"]; NaN without that head."""
        if self.success_head is None:
            return fused.new_full((len(fused),), torch.nan)
        return self.success_head(fused).squeeze(-1)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return a head with one hidden layer."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def keep_views(n: int, views: int, rate: float, generator: torch.Generator) -> Tensor:
    """Draw Bool["n v"]: views kept by view dropout; every row keeps at least one."""
    keep = torch.rand(n, views, generator=generator) >= rate
    keep[torch.arange(n), torch.randint(0, views, (n,), generator=generator)] = True
    return keep


def without(present: Tensor, keep: Tensor) -> Tensor:
    """Drop views of Bool["n v"] but for `keep`, where that does not take the last camera away."""
    left = present & keep
    return torch.where(left.any(1, keepdim=True), left, present)


def balanced_bce(logits: Tensor, target: Tensor, sample: Tensor | None = None) -> Tensor:
    """Return binary cross-entropy in which both classes weigh the same, however rare one is.

    Args:
        logits: Tensor["n"].
        target: Tensor["n"], 0 or 1.
        sample: weights Tensor["n"] of the samples inside their class; None weighs them alike.
    """
    if sample is None:
        positive = target.sum().clamp(min=1)
        negative = (1 - target).sum().clamp(min=1)
        weight = torch.where(target > 0.5, 0.5 / positive, 0.5 / negative)
    else:
        positive = (sample * target).sum().clamp(min=1e-6)
        negative = (sample * (1 - target)).sum().clamp(min=1e-6)
        weight = sample * torch.where(target > 0.5, 0.5 / positive, 0.5 / negative)
    return F.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="sum")
