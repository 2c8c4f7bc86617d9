r"""Fusion of the three readings of progress (Robo-Dopamine, arXiv:2512.23703, Eq. 5-11).

An episode is read in three ways, each with a variance from the hop head's distribution:

    incremental  Phi_I(t) = apply_hop(Phi*(t-1), H(s_{t-1}, s_t)),  Phi*(0) = 0      (Eq. 5)
    forward      Phi_F(t) = H(s_init, s_t)                                           (Eq. 6)
    backward     Phi_B(t) = 1 + H(s_goal, s_t)                                       (Eq. 7)

| mode       | Phi*(t)                                                                        |
|------------|--------------------------------------------------------------------------------|
| mean       | (Phi_I + Phi_F + Phi_B) / 3                                            (Eq. 8) |
| median     | the middle one of the three                                                    |
| variance   | the three weighted by their inverse variances                                  |
| gated      | Phi*(t-1) + w/2 (P - Phi*(t-1) + dPhi), P = (Phi_F + Phi_B) / 2,               |
|            | w = exp(-alpha D^2), D = abs(Phi_B - Phi_F) / max(P, floor)         (Eq. 9-11) |
| anchored   | P alone                                                                        |
| weighted   | Phi_F and Phi_B weighted by their inverse variances                            |

In every mode the recursion runs on that mode's own Phi*. `anchored`, `weighted`, `forward` and
`backward` have no recursion: they depend on the current and the first frame only.

Deviation: the published gate divides by P + eps. At Phi near 0 that freezes progress (with
alpha = 20, Phi_F = .05 and Phi_B = .10 give w = .0001); a floor
of 0.5 gave the lowest error (docs/dopamine.md).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embodied_reward.math.hops import apply_hop
from embodied_reward.types import Float64

LEAST_DEVIATION = 0.02
"""No reading counts as more certain than this standard deviation."""


@dataclass(frozen=True)
class Reading:
    """An estimate with its variance, each Float64["n"]."""

    mean: Float64
    variance: Float64

    def take(self, rows: slice) -> "Reading":
        """Return some of the entries."""
        return Reading(self.mean[rows], self.variance[rows])


@dataclass(frozen=True)
class Anchors:
    """Progress read against fixed anchors, means in [0, 1].

    Attributes:
        forward: Phi_F = H(s_init, s_t).
        backward: Phi_B = 1 + H(s_goal, s_t).
    """

    forward: Reading
    backward: Reading

    def take(self, rows: slice) -> "Anchors":
        """Return some of the entries."""
        return Anchors(self.forward.take(rows), self.backward.take(rows))

    @property
    def mean(self) -> Float64:
        """Return (Phi_F + Phi_B) / 2."""
        return (self.forward.mean + self.backward.mean) / 2

    @property
    def variance(self) -> Float64:
        """Return the variance of one anchor's reading plus that between the two."""
        within = (self.forward.variance + self.backward.variance) / 2
        return within + np.square(self.forward.mean - self.backward.mean) / 4


@dataclass(frozen=True)
class Gate:
    """The published consistency gate: its sharpness and the floor of its denominator."""

    alpha: float = 20.0
    floor: float = 0.5


type Combine = Callable[[Reading, Reading, Anchors, Gate], Reading]
"""(incremental reading, Phi*(t-1), anchors, gate) -> Phi*(t)."""


def _mean(step: Reading, before: Reading, anchors: Anchors, gate: Gate) -> Reading:
    return _average([step, anchors.forward, anchors.backward], np.full(3, 1 / 3))


def _median(step: Reading, before: Reading, anchors: Anchors, gate: Gate) -> Reading:
    parts = (step, anchors.forward, anchors.backward)
    means = np.stack([p.mean for p in parts])
    middle = np.argsort(means, axis=0, kind="stable")[1:2]
    variance = np.take_along_axis(np.stack([p.variance for p in parts]), middle, 0)[0]
    return Reading(np.take_along_axis(means, middle, 0)[0], variance)


def _variance(step: Reading, before: Reading, anchors: Anchors, gate: Gate) -> Reading:
    return _inverse_variance([step, anchors.forward, anchors.backward])


def _gated(step: Reading, before: Reading, anchors: Anchors, gate: Gate) -> Reading:
    gap = np.abs(anchors.backward.mean - anchors.forward.mean)
    weight = np.exp(-gate.alpha * np.square(gap / np.maximum(anchors.mean, gate.floor)))
    moved = anchors.mean - before.mean + (step.mean - before.mean)
    mean = np.clip(before.mean + weight / 2 * moved, 0.0, 1.0)
    return Reading(mean, (1 - weight / 2) * step.variance + weight / 2 * anchors.variance)


def _anchored(step: Reading, before: Reading, anchors: Anchors, gate: Gate) -> Reading:
    return Reading(anchors.mean, anchors.variance)


def _weighted(step: Reading, before: Reading, anchors: Anchors, gate: Gate) -> Reading:
    return _inverse_variance([anchors.forward, anchors.backward])


COMBINE: dict[str, Combine] = {
    "incremental": lambda step, before, anchors, gate: step,
    "forward": lambda step, before, anchors, gate: anchors.forward,
    "backward": lambda step, before, anchors, gate: anchors.backward,
    "mean": _mean,
    "median": _median,
    "variance": _variance,
    "gated": _gated,
    "anchored": _anchored,
    "weighted": _weighted,
}
MODES = tuple(COMBINE)
MARKOV = ("forward", "backward", "anchored", "weighted")
"""Modes that depend on the current and the first frame only."""


def incremental(before: Reading, hop: Reading) -> Reading:
    """Return Phi_I(t) from Phi*(t-1) and a hop (Eq. 5), its variance to first order."""
    room = np.where(hop.mean >= 0, 1.0 - before.mean, before.mean)
    kept = np.square(1.0 - np.abs(hop.mean))
    variance = kept * before.variance + np.square(room) * hop.variance
    return Reading(np.clip(apply_hop(before.mean, hop.mean), 0.0, 1.0), variance)


def begin(anchors: Anchors, mode: str, gate: Gate) -> Reading:
    """Return Phi*(0) of n episodes: the incremental reading is 0 there by definition."""
    zero = Reading(np.zeros_like(anchors.mean), np.zeros_like(anchors.mean))
    return COMBINE[mode](zero, zero, anchors, gate)


def advance(before: Reading, hop: Reading, anchors: Anchors, mode: str, gate: Gate) -> Reading:
    """Return Phi*(t) of n episodes from Phi*(t-1), the last hop and the anchors at t."""
    return COMBINE[mode](incremental(before, hop), before, anchors, gate)


def read_mode(hops: Reading, anchors: Anchors, mode: str, gate: Gate) -> Reading:
    """Return one mode's potential along an episode.

    Args:
        hops: of length t - 1, H between adjacent frames.
        anchors: readings of all t frames.
        mode: one of `MODES`.
        gate: for the mode `gated`.
    """
    if mode in MARKOV:
        return COMBINE[mode](anchors.forward, anchors.forward, anchors, gate)
    at = [slice(t, t + 1) for t in range(len(hops.mean) + 1)]
    fused = [begin(anchors.take(at[0]), mode, gate)]
    for now, later in zip(at[:-1], at[1:], strict=True):
        fused.append(advance(fused[-1], hops.take(now), anchors.take(later), mode, gate))
    return Reading(*(np.concatenate([getattr(f, k) for f in fused]) for k in ("mean", "variance")))


def read_modes(hops: Reading, anchors: Anchors, gate: Gate | None = None) -> dict[str, Float64]:
    """Return every mode's potential Float64["t"] along an episode; see `read_mode`."""
    gate = gate or Gate()
    return {mode: read_mode(hops, anchors, mode, gate).mean for mode in MODES}


def _inverse_variance(parts: list[Reading]) -> Reading:
    precision = [1 / np.maximum(p.variance, LEAST_DEVIATION**2) for p in parts]
    return _average(parts, np.stack(precision) / np.sum(precision, axis=0))


def _average(parts: list[Reading], weights: Float64) -> Reading:
    """Average with weights that sum to 1 over axis 0.

    The readings come from one network and one frame, so their errors agree rather than
    cancel: the variance is that of fully correlated errors, the most cautious assumption.
    """
    pairs = list(zip(parts, weights, strict=True))
    deviation = sum(w * np.sqrt(p.variance) for p, w in pairs)
    return Reading(np.asarray(sum(w * p.mean for p, w in pairs)), np.square(deviation))
