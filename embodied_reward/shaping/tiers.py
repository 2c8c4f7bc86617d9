"""Potentials in a few steps: the zone that the progress has reached instead of its every twitch.

    Phi_t = k_t / K,   k rises as soon as progress >= (k + 1) / K,
                       k falls only when progress < k / K - hysteresis

Sweet Spot Learning (2026, arXiv 2601.22491) pays K zones of increasing reward, K = 4 best; as a
step reward that keeps no optimal policy. As a *potential* any shape is allowed, so here the tier
enters through `shaping_reward` alone. The hysteresis stops chatter at a boundary; it makes the
potential a function of the history, which stays exact because every tier is worked out once, when
the state is entered, and the same number is subtracted on leaving (Devlin and Kudenko 2012).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np

from embodied_reward.errors import ConfigError
from embodied_reward.shaping.frames import Prefetches, Scorer
from embodied_reward.types import Float64, Int64, Scores, UInt8

# Progress of 3/4 computed in floating point must not fall short of the third boundary.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Tiers:
    """K equal tiers of [0, 1].

    Attributes:
        count: K >= 1; 0 and less is refused.
        hysteresis: width of the dead band below a boundary, in units of progress, in [0, 1/K).

    Raises:
        ConfigError: a value out of range.
    """

    count: int
    hysteresis: float = 0.05

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"--reward.tiers must be at least 1, got {self.count}")
        if not 0 <= self.hysteresis < 1 / self.count:
            raise ConfigError(
                f"--reward.hysteresis must be in [0, {1 / self.count:g}), the height of one of "
                f"{self.count} tiers, got {self.hysteresis}"
            )

    def enter(self, progress: Float64) -> Int64:
        """Return tiers 0..K, Int64["b"], of episodes that begin with `progress` Float64["b"]."""
        return np.floor(np.clip(progress, 0, 1) * self.count + ROUNDING).astype(np.int64)

    def step(self, tier: Int64, progress: Float64) -> Int64:
        """Return the tiers after `progress`, from those before it."""
        kept = tier / self.count - self.hysteresis <= progress + ROUNDING
        return np.where(kept, np.maximum(tier, self.enter(progress)), self.enter(progress))

    def trajectory(self, progress: Float64) -> Float64:
        """Return the potential Float64["t"] of one whole episode."""
        out = np.empty(len(progress))
        tier = self.enter(np.asarray(progress[:1], np.float64))
        for t, value in enumerate(np.asarray(progress, np.float64)):
            tier = self.step(tier, value[None])
            out[t] = tier[0] / self.count
        return out


class TieredScorer:
    """A scorer whose potential is the tier of another's; one carried tier per environment.

    Args:
        scorer: see `Scorer`.
        tiers: boundaries.
        count: number of environments b.
    """

    def __init__(self, scorer: Scorer, tiers: Tiers, count: int) -> None:
        self.scorer, self.tiers, self.views = scorer, tiers, scorer.views
        self._tier: Int64 = np.zeros(count, np.int64)

    def start(self, rows: Sequence[int], frames: Mapping[str, UInt8]) -> Scores:
        """Begin new episodes in `rows`."""
        scores = self.scorer.start(rows, frames)
        self._tier[list(rows)] = self.tiers.enter(np.nan_to_num(scores.potential))
        return self._tiered(scores, self._tier[list(rows)])

    def step(self, frames: Mapping[str, UInt8]) -> Scores:
        """Score the current frames of all environments."""
        scores = self.scorer.step(frames)
        after = self.tiers.step(self._tier, np.nan_to_num(scores.potential))
        self._tier = np.where(scores.ok, after, self._tier)
        return self._tiered(scores, self._tier)

    def prefetch(self, frames: Mapping[str, UInt8]) -> None:
        """Hand frames on to a scorer that can begin to encode them."""
        if isinstance(self.scorer, Prefetches):
            self.scorer.prefetch(frames)

    def _tiered(self, scores: Scores, tier: Int64) -> Scores:
        return replace(scores, potential=np.where(scores.ok, tier / self.tiers.count, np.nan))


class TieredProgress(gym.Wrapper):
    """Replace `info["progress"]` (`ProgressInInfo`) by its tier, for the oracle mode."""

    def __init__(self, env: gym.Env, tiers: Tiers) -> None:
        super().__init__(env)
        self.tiers, self._tier = tiers, np.zeros(1, np.int64)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset and enter a tier."""
        obs, info = self.env.reset(**kwargs)
        self._tier = self.tiers.enter(np.array([info["progress"]]))
        return obs, self._tiered(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and move between tiers."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._tier = self.tiers.step(self._tier, np.array([info["progress"]]))
        return obs, reward, terminated, truncated, self._tiered(info)

    def _tiered(self, info: dict[str, Any]) -> dict[str, Any]:
        return {**info, "progress": float(self._tier[0]) / self.tiers.count}
