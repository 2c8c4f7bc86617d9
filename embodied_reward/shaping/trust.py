"""A potential that moves only as far as its reward model is sure: `--reward.blend=uncertainty`.

    Phi'_0 = Phi_0,    Phi'_t = Phi'_{t-1} + w_t (Phi_t - Phi'_{t-1}),    w_t = exp(-U_t / tau)

Ctrl-U (2024) weighs a reward by exp(-U), U the disagreement of two stochastic predictions. To weigh
the shaping reward itself would break its invariance: weighted differences do not telescope. Here
the *step of the potential* is weighted, which is the same first-order effect, and what is held
back at an unsure frame is paid when the model is sure again. U is the reward model's own
`uncertainty`, the standard deviation of the progress: the disagreement of an ensemble's members or
of dopamine's anchors. With U = 0 nothing changes, to the bit.

Optimal policy: kept where the reward mode keeps it. The potential depends on the history, which
stays exact because each value is worked out once, when the state is entered, and the same number is
subtracted on leaving (Devlin and Kudenko 2012).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from embodied_reward.errors import NonFiniteError
from embodied_reward.math.blending import trust
from embodied_reward.shaping.frames import Prefetches, Scorer
from embodied_reward.types import Float64, Scores, UInt8


def trusted(potential: Float64, uncertainty: Float64, temperature: float) -> Float64:
    """Return the weighted potential Float64["t"] of one whole episode.

    Args:
        potential: Float64["t"].
        uncertainty: Float64["t"] >= 0.
        temperature: tau > 0.

    Raises:
        NonFiniteError: a finite potential has no uncertainty.
    """
    potential = np.asarray(potential, np.float64)
    weight = _weights(potential, uncertainty, temperature)
    out, held = potential.copy(), potential[:1]
    for t in range(1, len(out)):
        moved = _step(held, potential[t : t + 1], weight[t : t + 1])
        held = np.where(np.isfinite(moved), moved, held)
        out[t] = moved[0]
    return out


class TrustedScorer:
    """A scorer whose potential moves as far as another's is sure; one value per environment.

    Args:
        scorer: see `Scorer`.
        temperature: tau > 0.
        count: number of environments b.
    """

    def __init__(self, scorer: Scorer, temperature: float, count: int) -> None:
        self.scorer, self.temperature, self.views = scorer, temperature, scorer.views
        self._held: Float64 = np.zeros(count)

    def start(self, rows: Sequence[int], frames: Mapping[str, UInt8]) -> Scores:
        """Begin new episodes in `rows`, whose first potential is taken as it is."""
        scores = self.scorer.start(rows, frames)
        _weights(scores.potential, scores.uncertainty, self.temperature)
        self._held[list(rows)] = scores.potential
        return scores

    def step(self, frames: Mapping[str, UInt8]) -> Scores:
        """Score the current frames of all environments."""
        scores = self.scorer.step(frames)
        weight = _weights(scores.potential, scores.uncertainty, self.temperature)
        moved = _step(self._held, scores.potential, weight)
        self._held = np.where(np.isfinite(moved), moved, self._held)
        return replace(scores, potential=moved)

    def prefetch(self, frames: Mapping[str, UInt8]) -> None:
        """Hand frames on to a scorer that can begin to encode them."""
        if isinstance(self.scorer, Prefetches):
            self.scorer.prefetch(frames)


def _step(held: Float64, potential: Float64, weight: Float64) -> Float64:
    # Not held + w (Phi - held), which rounds where w is 1.
    return np.where(weight == 1.0, potential, held + weight * (potential - held))


def _weights(potential: Float64, uncertainty: Float64, temperature: float) -> Float64:
    if (np.isfinite(potential) & ~np.isfinite(uncertainty)).any():
        raise NonFiniteError(
            "the reward model gives progress without an uncertainty, which "
            "--reward.blend=uncertainty weighs it by; use an ensemble (`er train-reward "
            "--reward_model.type=ensemble`) or another blend"
        )
    return trust(uncertainty, temperature)
