"""Decisions as an update of the denoising chain sees them, and those that are seen again."""

from typing import NamedTuple

import torch
from torch import Tensor

KEPT = ("obs", "chains", "logs", "advantages", "returns")


class Rollout(NamedTuple):
    """n decisions, as the update sees them.

    Attributes:
        obs: [n o].
        chains: [n K+1 h a].
        logs: [n K'], log-likelihoods of the policy that acted.
        starts: [n K h a], means of the start; empty where nothing asks for them.
        advantages: [n], scaled as the method asks.
        returns: [n], the critic's targets.
    """

    obs: Tensor
    chains: Tensor
    logs: Tensor
    starts: Tensor
    advantages: Tensor
    returns: Tensor

    def at(self, rows: Tensor) -> "Rollout":
        """Return some decisions; `starts` must not have been worked out yet."""
        return self._replace(**{name: getattr(self, name)[rows] for name in KEPT})


class SelectiveBuffer:
    """Decisions that still have something to teach, drawn by the size of their advantage.

    The selective sample buffer of Skywork R1V2 (2025, arXiv:2504.16656): where most decisions turn
    out as expected, an update on them is nearly empty. Those with |A| <= threshold are left out and
    replaced by kept ones, drawn with probability ~ |A| and without repetition.

    Kept is the likelihood under the policy that acted, so that ratios stay true. An advantage is
    one under the critic and the potential of its time: after `max_age` rounds, or as soon as the
    potential has another version, a decision is dropped.

    Optimal policy: selection weighs decisions by |A|, and what is kept is off-policy within the
    clipping of the method, so it keeps what the method keeps only in the limit of small updates.

    Args:
        size: decisions that are kept, the newest.
        max_age: rounds that one is kept for.
        threshold: in units of reward.
    """

    def __init__(self, size: int, max_age: int, threshold: float) -> None:
        self.size, self.max_age, self.threshold = size, max_age, threshold
        self.version = ""
        self._kept: Rollout | None = None
        self._age = torch.zeros(0, dtype=torch.long)

    def __len__(self) -> int:
        return len(self._age)

    def mix(self, fresh: Rollout, version: str) -> Rollout:
        """Return up to as many decisions as are fresh, all with |A| > threshold; keep the fresh.

        Args:
            fresh: advantages in units of reward; `starts` empty.
            version: of the potential that they were paid by.
        """
        self._forget(version)
        chosen = fresh.at(fresh.advantages.abs() > self.threshold)
        count = min(len(self), len(fresh.obs) - len(chosen.obs))
        mixed = chosen
        if count > 0 and self._kept is not None:
            rows = torch.multinomial(self._kept.advantages.abs(), count)
            mixed = joined(chosen, self._kept.at(rows))
        both = chosen if self._kept is None else joined(self._kept, chosen)
        age = torch.cat([self._age, torch.zeros(len(chosen.obs), dtype=torch.long)])
        newest = torch.arange(len(age))[-self.size :]
        self._kept, self._age = both.at(newest), age[newest]
        return mixed

    def _forget(self, version: str) -> None:
        if self._kept is not None:
            self._age = self._age + 1
            young = (self._age <= self.max_age) & (version == self.version)
            self._kept, self._age = self._kept.at(young), self._age[young]
        self.version = version

    # --- checkpoints ---

    def arrays(self) -> dict[str, Tensor]:
        """Return what is kept, for a checkpoint; `version` goes beside it."""
        if self._kept is None:
            return {"age": self._age}
        kept = {name: getattr(self._kept, name).contiguous() for name in KEPT}
        return {**kept, "age": self._age}

    def restore(self, arrays: dict[str, Tensor], version: str) -> None:
        """Take `arrays()` back."""
        self.version, self._age = version, arrays["age"]
        if "obs" in arrays:
            self._kept = Rollout(starts=torch.zeros(0), **{name: arrays[name] for name in KEPT})


def joined(first: Rollout, second: Rollout) -> Rollout:
    """Return the decisions of both; `starts` must not have been worked out yet."""
    pairs = {name: torch.cat([getattr(first, name), getattr(second, name)]) for name in KEPT}
    return first._replace(**pairs)
