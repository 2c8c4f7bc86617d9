"""Who runs a model's image trunk: the model itself, or a scoring core that others use as well."""

from typing import Protocol

import torch
from torch import Tensor

from embodied_reward.scoring.scorer import Trunk
from embodied_reward.scoring.status import Priority

BATCH = 32  # pictures of one trunk call; on CPUs larger ones leave the cache


class Embedder(Protocol):
    """Pictures in, features out; `scoring.core.ScoringCore` is one."""

    def embed(self, trunk: Trunk, frames: Tensor, *, priority: Priority) -> Tensor:
        """Return features Tensor["n d"] of uint8 Tensor["n h w 3"], on the trunk's device."""
        ...

    def prefetch(self, trunk: Trunk, frames: Tensor) -> None:
        """Begin to encode frames that `embed` will be asked for; does not wait."""
        ...


class Direct:
    """Run the trunk at once, in the caller's thread; remember nothing."""

    @torch.no_grad()
    def embed(self, trunk: Trunk, frames: Tensor, *, priority: Priority) -> Tensor:
        """See `Embedder`."""
        parts = frames.split(BATCH)
        return torch.cat([trunk.forward(trunk.preprocess(p.to(trunk.device))) for p in parts])

    def prefetch(self, trunk: Trunk, frames: Tensor) -> None:
        """Do nothing: there is nobody else who could work on it."""
