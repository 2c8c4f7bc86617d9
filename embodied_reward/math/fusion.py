"""Fusion of the three readings of progress (Robo-Dopamine, arXiv:2512.23703, Eq. 5-8)."""

from dataclasses import dataclass

import numpy as np

from embodied_reward.math.hops import apply_hop
from embodied_reward.types import Float64

MODES = ("incremental", "forward", "backward", "mean", "anchored")


@dataclass(frozen=True)
class Anchors:
    """Progress read against fixed anchors.

    Attributes:
        forward: Phi_F = H(s_init, s_t), Float64["n"] in [0, 1].
        backward: Phi_B = 1 + H(s_goal, s_t), Float64["n"] in [0, 1].
        spread: standard deviation of their mean, Float64["n"].
    """

    forward: Float64
    backward: Float64
    spread: Float64

    def at(self, t: int) -> "Anchors":
        """Return entry t alone."""
        return Anchors(*(a[t : t + 1] for a in (self.forward, self.backward, self.spread)))

    @property
    def mean(self) -> Float64:
        """Return (Phi_F + Phi_B) / 2."""
        return (self.forward + self.backward) / 2


def incremental(previous: Float64, hop: Float64) -> Float64:
    """Return Phi_I(t) = apply_hop(Phi*(t-1), H(s_{t-1}, s_t)) in [0, 1] (Eq. 5)."""
    return np.clip(apply_hop(previous, hop), 0.0, 1.0)


def fuse(step: Float64, anchors: Anchors, mode: str) -> Float64:
    """Return the potential of one of `MODES`; `step` is the incremental reading Phi_I(t)."""
    if mode == "mean":
        return (step + anchors.forward + anchors.backward) / 3
    if mode == "anchored":
        return anchors.mean
    return {"incremental": step, "forward": anchors.forward, "backward": anchors.backward}[mode]


def read_modes(hops: Float64, anchors: Anchors) -> dict[str, Float64]:
    """Return every mode's potential along an episode.

    Args:
        hops: Float64["t-1"], H between adjacent frames.
        anchors: readings of all t frames.

    The incremental recursion runs on the fused mean, as published (Phi* in Eq. 5).
    """
    steps: list[Float64] = [np.zeros(1)]
    means = [fused := fuse(steps[0], anchors.at(0), "mean")]
    for t, hop in enumerate(hops, start=1):
        steps.append(incremental(fused, np.array([hop])))
        fused = fuse(steps[-1], anchors.at(t), "mean")
        means.append(fused)
    own = np.concatenate(steps)
    readings = {mode: fuse(own, anchors, mode) for mode in MODES}
    return {**readings, "mean": np.concatenate(means)}
