"""What a saliency map explains."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

PIXELS = 64 * 64 * 64
"""Pixels of one call: every layer's outputs and gradients of them are in memory at once."""


def per_call(height: int, width: int, *, beside: int = 1) -> int:
    """Return how many moments of `beside` pictures each go into one call."""
    return max(1, PIXELS // (height * width * beside))


@dataclass(frozen=True)
class Target:
    """Scores of pictures, and the network that saw the pictures.

    Attributes:
        network: image encoder, in eval mode; sees every picture on its own, and all of them in
            one call per call of `score`. Its layers are the ones that can be named.
        images: float Tensor["n 3 h w"] in [0, 1].
        score: images -> Tensor["k"] with a graph. No two scores may share a picture; a score may
            read several (the cameras of one moment), and every picture gets a map of its own.
    """

    network: nn.Module
    images: Tensor
    score: Callable[[Tensor], Tensor]

    def total(self) -> Tensor:
        """Return the sum of all scores, with a graph that reaches into the network.

        The gradient of the sum is that of each picture's own score. Frozen weights build no
        graph, so the pictures have to.
        """
        return self.score(self.images.detach().clone().requires_grad_(True)).sum()


def gradients(total: Tensor, of: list[Tensor]) -> list[Tensor]:
    """Return d total / d tensor of each; zeros where nothing depends on it."""
    if not total.requires_grad:  # a constant
        return [torch.zeros_like(t) for t in of]
    found = torch.autograd.grad(total, of, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(of, found, strict=True)]
