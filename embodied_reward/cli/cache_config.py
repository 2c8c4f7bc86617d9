"""`--cache.*`: how long features of pictures are remembered, and by whom they can be used."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embodied_reward.scoring import ScoringCore


@dataclass(frozen=True)
class CacheConfig:
    """Where features of pictures are kept; they depend on the image encoder, not on the heads."""

    folder: str | None = None
    """folder that keeps features for later runs and other models; default: this run's memory"""
    memory: int = 512
    """memory for the features of one image encoder [MB]"""

    def open(self, batch: int = 16) -> "ScoringCore":
        """Return a scoring core with this cache; use it as a context manager.

        It is strict: a feature has the same bits whatever was encoded before or beside it, so that
        runs repeat, resume and share a folder without a trace of who came first.

        Args:
            batch: pictures of every trunk call.
        """
        from embodied_reward.scoring import FeatureCache, ScoringCore

        cache = FeatureCache(capacity_bytes=self.memory << 20, folder=self.folder)
        return ScoringCore(cache=cache, mode="strict", canonical=batch)
