"""What an episode truly paid: returns, the telescoped shaping sum, and who said "success".

Over an episode of T decisions, potential-based shaping with scale c must sum up to

    sum_t gamma^t F_t = c (gamma^T m Phi_T - Phi_0),    m = 0 iff the episode was terminated

Whatever else it sums up to changes the optimal policy, so a ledger raises when an invariant mode
misses it by 1e-4. The ledger sees only what was *paid* (reward - base reward) and the potentials,
never how the wrapper computed it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.errors import ShapingError
from embodied_reward.math.statistics import wilson
from embodied_reward.shaping.potential import RewardMode
from embodied_reward.types import Float64

TOLERANCE = 1e-4
HOVER = 0.8
"""An episode that ends with Phi above this, without success, hovered near the goal."""

EPISODE, RUN = "episode_reward_ledger", "run_reward_ledger"
"""Keys of `info` at an episode's end: its own accounts, and the rates over the run so far."""


@dataclass(frozen=True)
class EpisodeLedger:
    """The accounts of one finished episode.

    Attributes:
        length: decisions T.
        base_return: undiscounted sum of the base reward.
        learned_return: undiscounted sum of what the learner was paid.
        shaping_sum: discounted sum of (paid - base).
        telescoped_sum: what that sum must be in an invariant mode; NaN in the others.
        final_potential: Phi_T of the real last observation, NaN where the mode has no potential.
        success: whether the simulator said so at any time; None where it says nothing.
        detected: whether the detector fired at any time; None without a detector.
    """

    length: int
    base_return: float
    learned_return: float
    shaping_sum: float
    telescoped_sum: float
    final_potential: float
    success: bool | None
    detected: bool | None

    @property
    def residual(self) -> float:
        """Return how far the shaping sum is from its telescoped value."""
        return self.shaping_sum - self.telescoped_sum

    @property
    def false_success(self) -> bool | None:
        """Whether the detector fired in an episode without success."""
        return _both(self.detected, None if self.success is None else not self.success)

    @property
    def missed_success(self) -> bool | None:
        """Whether the detector stayed silent in a successful episode."""
        return _both(self.success, None if self.detected is None else not self.detected)

    @property
    def hover(self) -> bool | None:
        """Whether the episode ended near the goal without success."""
        if not np.isfinite(self.final_potential) or self.success is None:
            return None
        return self.final_potential > HOVER and not self.success

    def to_dict(self) -> dict[str, float]:
        """Return every number under its name, for `info` and logs; NaN where it is unknown."""
        known = {
            "length": self.length,
            "base_return": self.base_return,
            "learned_return": self.learned_return,
            "shaping_sum": self.shaping_sum,
            "telescoped_sum": self.telescoped_sum,
            "residual": self.residual,
            "final_potential": self.final_potential,
            "true_success": self.success,
            "detected_success": self.detected,
            "false_success": self.false_success,
            "missed_success": self.missed_success,
            "hover": self.hover,
        }
        return {name: float("nan") if v is None else float(v) for name, v in known.items()}


@dataclass
class Totals:
    """Counts over the episodes of a run.

    Attributes:
        successes: episodes with true success, `missed` of which the detector did not see.
        failures: episodes without, in `false` of which the detector fired.
        judged: episodes with a known final potential, `hovering` of which ended near the goal.
    """

    successes: int = 0
    missed: int = 0
    failures: int = 0
    false: int = 0
    judged: int = 0
    hovering: int = 0

    def add(self, entry: EpisodeLedger) -> None:
        """Count one episode."""
        if entry.hover is not None:
            self.judged, self.hovering = self.judged + 1, self.hovering + entry.hover
        if entry.false_success is not None and entry.missed_success is not None:
            self.successes += bool(entry.success)
            self.failures += not entry.success
            self.missed += entry.missed_success
            self.false += entry.false_success

    def rates(self) -> dict[str, float]:
        """Return rates with Wilson's 95 % intervals; what was never judged is left out."""
        cases = {
            "false_positive_rate": (self.false, self.failures),
            "false_negative_rate": (self.missed, self.successes),
            "hover_rate": (self.hovering, self.judged),
        }
        rows: dict[str, float] = {}
        for name, (count, total) in cases.items():
            if total:
                low, high = wilson(count, total)
                rows |= {name: count / total, f"{name}_low": low, f"{name}_high": high}
        return rows


class Ledger:
    """Keep the accounts of the running episodes of b environments.

    Args:
        count: environments b.
        mode: the reward mode.
        gamma: the learner's discount.
        kappa: scale of the potential.
    """

    def __init__(self, count: int, mode: RewardMode, *, gamma: float, kappa: float) -> None:
        self._mode, self._gamma = mode, gamma
        # Every invariant mode adds c (gamma m Phi' - Phi): c is what it charges for Phi = 1.
        self.scale = -float(mode.added(1.0, 0.0, True, gamma, kappa)) if mode.invariant else np.nan
        self.episodes, self.totals = 0, Totals()
        self._first, self._last = np.zeros(count), np.zeros(count)
        self._base, self._paid, self._shaping = np.zeros(count), np.zeros(count), np.zeros(count)
        self._length = np.zeros(count, np.int64)
        self._success: list[bool | None] = [None] * count
        self._detected: list[bool | None] = [None] * count

    def start(self, rows: Sequence[int], phi: Float64, infos: Sequence[Mapping[str, Any]]) -> None:
        """Open the accounts of episodes that begin in `rows` with potentials Float64["r"]."""
        at = list(rows)
        self._first[at] = self._last[at] = phi
        for sums in (self._base, self._paid, self._shaping, self._length):
            sums[at] = 0
        for row, info in zip(at, infos, strict=True):
            self._success[row], self._detected[row] = None, None
            self._note(row, info)

    def step(
        self, base: Float64, paid: Float64, phi: Float64, infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """Book one decision of every environment.

        Args:
            base: Float64["b"], the base reward.
            paid: Float64["b"], what the learner gets.
            phi: Float64["b"], Phi(s') as observed, the real final one at episode ends.
            infos: with `is_success` and, where there is a detector, `detected_success`.
        """
        self._shaping += self._gamma**self._length * (paid - base)
        self._base += base
        self._paid += paid
        self._length += 1
        self._last = np.array(phi, np.float64)
        for row, info in enumerate(infos):
            self._note(row, info)

    def exchange(self, phi: Float64) -> None:
        """Go on with another potential, Float64["b"] of the current states.

        What telescopes is the sum under either potential; the jump between both is booked.
        """
        jump = self._gamma**self._length * self.scale * (self._last - phi)
        if np.isfinite(self.scale):
            self._shaping -= jump
        self._last = np.array(phi, np.float64)

    def close(self, row: int, *, terminated: bool) -> EpisodeLedger:
        """Close the account of an episode that ended. Raises ShapingError if it is wrong."""
        self.episodes += 1
        length = int(self._length[row])
        last = 0.0 if terminated else self._gamma**length * self._last[row]
        known = self._mode.source != "none"
        entry = EpisodeLedger(
            length=length,
            base_return=float(self._base[row]),
            learned_return=float(self._paid[row]),
            shaping_sum=float(self._shaping[row]),
            telescoped_sum=float(self.scale * (last - self._first[row])),
            final_potential=float(self._last[row]) if known else float("nan"),
            success=self._success[row],
            detected=self._detected[row],
        )
        self._check(entry, row, terminated)
        self.totals.add(entry)
        return entry

    def report(self, row: int, *, terminated: bool) -> dict[str, dict[str, float]]:
        """Close an account and return what `info` says of it: `EPISODE` and `RUN`."""
        entry = self.close(row, terminated=terminated)
        return {EPISODE: entry.to_dict(), RUN: self.totals.rates()}

    def _check(self, entry: EpisodeLedger, row: int, terminated: bool) -> None:
        if abs(entry.residual) <= TOLERANCE * max(1.0, self.scale) or np.isnan(self.scale):
            return
        end = "terminated" if terminated else "truncated"
        raise ShapingError(
            f"episode {self.episodes} (environment {row}, {entry.length} decisions, {end}) was "
            f"paid a discounted shaping of {entry.shaping_sum:.6f} where mode "
            f"'{self._mode.name}' must pay {entry.telescoped_sum:.6f}: the reward would change "
            "the optimal policy. Something clips, scales or masks it, or Phi(s) differs between "
            "its uses as next and as current potential"
        )

    def _note(self, row: int, info: Mapping[str, Any]) -> None:
        for key, kept in (("is_success", self._success), ("detected_success", self._detected)):
            if key in info:
                kept[row] = bool(kept[row]) or bool(info[key])


def _both(a: bool | None, b: bool | None) -> bool | None:
    return None if a is None or b is None else a and b
