"""Saliency maps as data: shares of one picture that sum to 1, or nothing at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from embodied_reward.types import Bool, Float64

LEAST = 1e-30
"""A map whose sum is not above this says nothing: the score does not depend on the picture."""


@dataclass(frozen=True)
class SaliencyMaps:
    """Maps of n pictures.

    Attributes:
        values: Float64["n h w"], not negative, each picture's sum is 1; NaN where not `ok`.
        ok: Bool["n"]; False where the score does not depend on the picture, or is not finite.
    """

    values: Float64
    ok: Bool

    def __len__(self) -> int:
        return len(self.ok)

    def resized(self, height: int, width: int) -> "SaliencyMaps":
        """Return the maps at another size, bilinear, sums 1 again."""
        found = upsample(torch.from_numpy(self.values), (height, width))
        return shares(torch.where(torch.from_numpy(self.ok)[:, None, None], found, torch.nan))

    def take(self, rows: np.ndarray | slice) -> "SaliencyMaps":
        """Return some of the maps."""
        return SaliencyMaps(self.values[rows], self.ok[rows])


def shares(raw: Tensor) -> SaliencyMaps:
    """Divide raw maps Tensor["n h w"] >= 0 by their sums; what is blind or not finite is NaN."""
    found = exact(raw)
    total = found.sum((1, 2))
    ok = torch.isfinite(found).all(2).all(1) & (total > LEAST)
    values = torch.where(ok, 1 / total, torch.nan)[:, None, None] * found
    return SaliencyMaps(torch.where(ok[:, None, None], values, torch.nan).numpy(), ok.numpy())


def exact(values: Tensor) -> Tensor:
    """Return values without their graph, in float64 on the CPU: not every device has it."""
    return values.detach().cpu().double()


def together(parts: Sequence[SaliencyMaps]) -> SaliencyMaps:
    """Return the maps of all parts, in order."""
    return SaliencyMaps(
        np.concatenate([p.values for p in parts]), np.concatenate([p.ok for p in parts])
    )


def mean_of(parts: Sequence[SaliencyMaps]) -> SaliencyMaps:
    """Return the mean map of each picture over those parts that have one."""
    ok = np.stack([p.ok for p in parts])
    total = np.where(ok[..., None, None], np.stack([p.values for p in parts]), 0.0).sum(0)
    count = ok.sum(0)
    mean = total / np.where(count, count, np.nan)[:, None, None]
    return SaliencyMaps(mean, count > 0)


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize Tensor["n h w"] to Tensor["n H W"], bilinear, pixels as areas."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
