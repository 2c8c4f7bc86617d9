"""`--cache.*`: how long features of pictures are remembered, and by whom they can be used."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embodied_reward.errors import ConfigError

if TYPE_CHECKING:
    from embodied_reward.rewards import RewardModel
    from embodied_reward.scoring import ScoringCore


@dataclass(frozen=True)
class CacheConfig:
    """Where features of pictures are kept; they depend on the image encoder, not on the heads."""

    folder: str | None = None
    """folder that keeps features for later runs and other models; default: this run's memory"""
    memory: int = 512
    """memory for the features of one image encoder [MB]"""

    @contextlib.contextmanager
    def shared_by(self, *models: "RewardModel", batch: int = 16) -> "Iterator[ScoringCore]":
        """Let models run their image encoders on one scoring core with this cache.

        It is strict: a feature has the same bits whatever was encoded before or beside it, so that
        runs repeat, resume and share a folder without a trace of who came first.

        Args:
            models: they run by themselves again afterwards.
            batch: pictures of every trunk call.

        Raises:
            ConfigError: a size that cannot be used.
        """
        from embodied_reward.scoring import FeatureCache, ScoringCore

        if self.memory < 1:
            raise ConfigError(f"--cache.memory={self.memory}: give at least 1 MB")
        cache = FeatureCache(capacity_bytes=self.memory << 20, folder=self.folder)
        with ScoringCore(cache=cache, mode="strict", canonical=batch, graphs=False) as core:
            try:
                for model in models:
                    model.use(core)
                yield core
            finally:
                for model in models:
                    model.use(None)
