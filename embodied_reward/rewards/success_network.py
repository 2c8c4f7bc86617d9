"""The network of `success`: shared encoder, view fusion, a head that compares with the start."""

import torch
from torch import Tensor, nn

from embodied_reward.vision.encoders import Encoder


class SuccessNetwork(nn.Module):
    """Say whether a frame satisfies the task, knowing how its episode began.

    Args:
        encoder: image encoder shared by all views.
        views: number of cameras v.
        dim: size d of a view's feature and of the fused embedding.
        hidden: width of the head.
    """

    def __init__(self, encoder: Encoder, *, views: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.adapter = nn.Identity() if encoder.dim == dim else nn.Linear(encoder.dim, dim)
        self.view_token = nn.Parameter(torch.zeros(views, dim))
        self.start_token = nn.Parameter(torch.zeros(dim))
        self.fusion = nn.Sequential(nn.Linear(views * dim, dim), nn.LayerNorm(dim), nn.GELU())
        self.head = nn.Sequential(nn.Linear(2 * dim, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def fuse(self, features: Tensor, present: Tensor) -> Tensor:
        """Fuse Tensor["n v d"] to Tensor["n d"]; views absent from Bool["n v"] become tokens."""
        shown = torch.where(present.unsqueeze(-1), features, self.view_token)
        return self.fusion(shown.flatten(1))

    def forward(self, now: Tensor, start: Tensor) -> Tensor:
        """Return logits Tensor["n"] of fused frames and their episodes' first frames ["n d"]."""
        return self.head(torch.cat([now, now - start], -1)).squeeze(-1)

    def drop_start(self, start: Tensor, keep: Tensor) -> Tensor:
        """Replace the starts Tensor["n d"] by the token where `keep` Bool["n"] is False."""
        return torch.where(keep.unsqueeze(-1), start, self.start_token)
