"""The network of `dopamine`: shared encoder, view fusion, hop heads, success head."""

import torch
from torch import Tensor, nn

from embodied_reward.vision.encoders import Encoder


class HopNetwork(nn.Module):
    """Compare two moments of a task, seen from several cameras.

    One encoding per frame serves every pair, every anchor and both heads. A view that is
    missing or dropped is replaced by a learned token, and so is a dropped reference.

    Args:
        encoder: image encoder shared by all views.
        views: number of cameras v.
        dim: size d of a view's feature and of the fused embedding.
        hidden: width of the heads.
        bins: bins k of the hop heads' two-hot distributions over [-1, 1].
        heads: number m of hop heads on the one trunk.
    """

    def __init__(
        self, encoder: Encoder, *, views: int, dim: int, hidden: int, bins: int, heads: int = 1
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.adapter = nn.Identity() if encoder.dim == dim else nn.Linear(encoder.dim, dim)
        self.view_token = nn.Parameter(torch.zeros(views, dim))
        self.reference_token = nn.Parameter(torch.zeros(2, dim))
        self.fusion = nn.Sequential(nn.Linear(views * dim, dim), nn.LayerNorm(dim), nn.GELU())
        self.hop_heads = nn.ModuleList(_mlp(5 * dim, hidden, bins) for _ in range(heads))
        self.success_head = _mlp(2 * dim, hidden, 1)

    def mask(self, features: Tensor, present: Tensor) -> Tensor:
        """Replace absent views of Tensor["n v d"] by their tokens; `present` is Bool["n v"]."""
        return torch.where(present.unsqueeze(-1), features, self.view_token)

    def fuse(self, features: Tensor) -> Tensor:
        """Fuse Tensor["n v d"] to Tensor["n d"]."""
        return self.fusion(features.flatten(1))

    def hop(self, before: Tensor, after: Tensor, start: Tensor, goal: Tensor) -> Tensor:
        """Return every head's logits Tensor["m p k"] for embeddings Tensor["p d"]."""
        pairs = torch.cat([before, after, after - before, start, goal], -1)
        return torch.stack([head(pairs) for head in self.hop_heads])

    def hop_of_each(self, before: Tensor, after: Tensor, start: Tensor, goal: Tensor) -> Tensor:
        """Return what `hop` does for parts Tensor["#k #p d"] that broadcast, Tensor["m k p bins"].

        The first layer is linear in each part, so one that many pairs share is multiplied once.
        """
        heads = []
        for head in self.hop_heads:
            first, *rest = head  # type: ignore[misc]
            b, a, change, s, g = first.weight.chunk(5, 1)
            moments = before @ (b - change).T + after @ (a + change).T
            hidden = moments + start @ s.T + goal @ g.T + first.bias
            heads.append(nn.Sequential(*rest)(hidden))
        return torch.stack(heads)

    def success(self, frame: Tensor, goal: Tensor) -> Tensor:
        """Return success logits Tensor["n"] for embeddings Tensor["n d"]."""
        return self.success_head(torch.cat([frame, goal], -1)).squeeze(-1)

    def drop_reference(self, reference: Tensor, keep: Tensor, which: int) -> Tensor:
        """Replace references where `keep` is False by the start (0) or goal (1) token."""
        return torch.where(keep.unsqueeze(-1), reference, self.reference_token[which])


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.GELU(),
        nn.Linear(hidden, hidden),
        nn.GELU(),
        nn.Linear(hidden, outputs),
    )
