r"""Rewards of discovered steps, without gradient steps (Sermanet et al., arXiv:1612.06699).

Features are normalised over all training frames. For step g, with the frames of g as positives and
all others as negatives (equation 1 there), the features are ranked by

    z_i = alpha |mu+_i - mu-_i| - (sigma+_i + sigma-_i),     alpha = 5

and the best n = 32 are kept. The reward of a frame a (equation 2) is

    R_g(a) = exp(-(1/2n) sum_i (a_i - mu+_i)^2 / sigma+_i^2)    in [0, 1]

and the steps after the first, which is where every episode starts, make a potential in [0, 1]:

    Phi(a) = sum_{g>=2} 2^(g-1) R_g(a) / sum_{g>=2} 2^(g-1)

Deviations: equation 2 is printed without the minus and with sigma in place of its square, although
the text calls it a log-probability; here it is one, up to a constant, and mapped to [0, 1] because
sums of steps need bounded terms. sigma+ has a floor, or features that never vary within a step
would decide alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embodied_reward.types import Float32, Float64, Int64

ALPHA = 5.0
"""Weight of the distance between means in the ranking."""
KEPT = 32
"""Features per step."""
LEAST_SIGMA = 1e-3
"""Floor of sigma+, in standard deviations over all training frames."""


@dataclass(frozen=True)
class StepGaussians:
    """The Gaussian of every step over its own features.

    Attributes:
        mean, scale: Float64["d"], of all training frames; features are normalised by them.
        chosen: Int64["g n"], features of each step, the most telling first.
        centre: Float64["g n"], mu+ of these, normalised.
        spread: Float64["g n"], sigma+ of these, normalised and floored.
    """

    mean: Float64
    scale: Float64
    chosen: Int64
    centre: Float64
    spread: Float64

    def rewards(self, features: Float64) -> Float64:
        """Return R_g of every step, Float64["t g"] in [0, 1], of frames Float64["t d"]."""
        columns = self.chosen.ravel()
        x = (np.asarray(features, np.float64)[:, columns] - self.mean[columns]) / self.scale[
            columns
        ]
        off = (x.reshape(len(x), *self.chosen.shape) - self.centre) / self.spread
        return np.exp(-0.5 * np.square(off).mean(-1))

    def potential(self, features: Float64) -> Float64:
        """Return Phi, Float64["t"] in [0, 1], of frames Float64["t d"]."""
        return combine(self.rewards(features))


def fit_steps(
    demos: Sequence[Float32] | Sequence[Float64],
    boundaries: Sequence[Int64],
    *,
    kept: int = KEPT,
    alpha: float = ALPHA,
    least_sigma: float = LEAST_SIGMA,
) -> StepGaussians:
    """Choose features and fit the Gaussians of every step.

    Args:
        demos: features Float64["t d"] of each demonstration.
        boundaries: Int64["g+1"] of each, from 0 to t, as `segmentation.segment` returns them.
        kept: features per step n, at most d.
        alpha: see the module docstring.
        least_sigma: floor of sigma+.

    Raises:
        ValueError: no demonstration, boundaries that do not fit it, or fewer than two steps.
    """
    labels = np.concatenate([_labels(x, b) for x, b in zip(demos, boundaries, strict=True)])
    x = np.concatenate([np.asarray(d, np.float64) for d in demos])
    steps = int(labels.max()) + 1
    if steps < 2 or len({len(b) for b in boundaries}) > 1:
        raise ValueError("every demonstration needs the same number of steps, two at least")
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    x = (x - mean) / scale
    fitted = [_fit(x, labels == g, kept, alpha, least_sigma) for g in range(steps)]
    chosen, centre, spread = (np.stack(part) for part in zip(*fitted, strict=True))
    return StepGaussians(mean, scale, chosen, centre, spread)


def discrimination(positive: Float64, negative: Float64, alpha: float = ALPHA) -> Float64:
    """Return z, Float64["d"], of normalised frames Float64["p d"] and Float64["q d"]."""
    apart = np.abs(positive.mean(0) - negative.mean(0))
    return alpha * apart - (positive.std(0) + negative.std(0))


def combine(rewards: Float64) -> Float64:
    """Return Phi, Float64["t"], of step rewards Float64["t g"], g >= 2."""
    weights = 2.0 ** np.arange(1, rewards.shape[1])
    return rewards[:, 1:] @ weights / weights.sum()


def _fit(
    x: Float64, positive: np.ndarray, kept: int, alpha: float, least_sigma: float
) -> tuple[Int64, Float64, Float64]:
    inside = x[positive]
    z = discrimination(inside, x[~positive], alpha)
    best = np.argsort(-z, kind="stable")[:kept]
    return best, inside[:, best].mean(0), np.maximum(inside[:, best].std(0), least_sigma)


def _labels(features: Float32 | Float64, bounds: Int64) -> Int64:
    lengths = np.diff(bounds)
    if bounds[0] != 0 or bounds[-1] != len(features) or (lengths < 1).any():
        raise ValueError(f"boundaries {list(bounds)} do not cut {len(features)} frames")
    return np.repeat(np.arange(len(lengths)), lengths)
