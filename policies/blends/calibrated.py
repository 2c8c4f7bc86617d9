"""`calibrated`: progress is worth what it turned out to be worth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression
from stable_baselines3.common.policies import BasePolicy

from embodied_reward.policies.demos import Transitions
from embodied_reward.types import Float64

from .base import Blend
from .config import BlendConfig
from .episodes import returns

BINS = 20  # of progress, on [0, 1]
LOGGED = {"low": 0.25, "middle": 0.5, "high": 0.75, "end": 1.0}


class CalibratedBlend(Blend):
    """Replace the potential Phi by the return that followed it, g(Phi).

    g is the non-decreasing curve (isotonic regression) through the discounted base return after
    every decision of the newest episodes, averaged within `BINS` bins of Phi; between them it is
    linear. Demonstrations count as `prior` episodes. Before anything is known g(Phi) = Phi.

    The best potential is the optimal value (Ng, Harada and Russell 1999, section 4). Progress is on
    another scale: it stands high where a policy fails in a way that looks nearly right. Where it
    tells nothing about success, g becomes flat and shapes nothing.

    Optimal policy: kept where the reward mode keeps it, because a function of the potential is a
    potential; when g changes, targets jump, as at an exchange of the potential. Not kept in other
    modes.

    Args:
        demos: transitions with their potential; None for none.
        config, count, gamma, seed: see `Blend`.
    """

    about = "a curve of the potential: it keeps what the reward mode keeps"
    maps = True

    def __init__(
        self, config: BlendConfig, *, demos: Transitions | None = None, **shared: Any
    ) -> None:
        super().__init__(config, **shared)
        self._shown = _shown(demos, self.gamma, self.config.prior) if demos else _nothing()
        self._knots: Float64 = np.array([0.0, 1.0])
        self._values: Float64 = self._knots.copy()
        self._fit()

    def potential(self, phi: Any) -> Float64:
        """Return g of potentials of any shape."""
        return np.interp(phi, self._knots, self._values)

    def _update(self, policy: BasePolicy, rounds: int) -> dict[str, float]:
        self._fit()
        return {f"blend/value_{name}": float(self.potential(x)) for name, x in LOGGED.items()}

    def _fit(self) -> None:
        own = [
            (e.potential, returns(e.base, self.gamma), np.ones(len(e)))
            for e in self.window.episodes
        ]
        phi, values, weights = map(np.concatenate, zip(self._shown, *own, strict=True))
        if len(phi):
            self._knots, self._values = monotone(phi, values, weights)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the episodes and the curve, for a checkpoint."""
        return {**super().arrays(), "knots": self._knots, "values": self._values}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take `arrays()` back."""
        self._knots, self._values = arrays["knots"].copy(), arrays["values"].copy()
        super().restore(arrays)


def monotone(phi: Float64, values: Float64, weights: Float64) -> tuple[Float64, Float64]:
    """Return knots and values of the non-decreasing curve through weighted points.

    Args:
        phi: Float64["n"] in [0, 1].
        values: Float64["n"].
        weights: Float64["n"] > 0.
    """
    at = np.minimum((phi * BINS).astype(np.int64), BINS - 1)
    total = np.bincount(at, weights, BINS)
    filled = total > 0
    means = [np.bincount(at, weights * x, BINS)[filled] / total[filled] for x in (phi, values)]
    return means[0], isotonic_regression(means[1], weights=total[filled]).x


def _shown(demos: Transitions, gamma: float, prior: float) -> tuple[Float64, Float64, Float64]:
    """Return potential, later return and weight of every demonstrated state."""
    after, episodes = np.zeros(len(demos)), np.unique(demos.episode)
    for one in episodes:
        rows = demos.episode == one
        after[rows] = returns(demos.base_reward[rows].astype(np.float64), gamma)
    return demos.potential, after, np.full(len(demos), prior / len(episodes))


def _nothing() -> tuple[Float64, Float64, Float64]:
    return np.zeros(0), np.zeros(0), np.zeros(0)
