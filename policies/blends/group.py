"""`group`: base and learned reward on the same scale."""

import numpy as np
from stable_baselines3.common.policies import BasePolicy

from embodied_reward.math.blending import group_weight

from .base import Blend

RATIO = 10.0  # the weight stays within [1 / RATIO, RATIO]


class GroupBlend(Blend):
    """Give the learned reward the spread that the base reward had in the newest episodes.

    w = std(r) / std(F) over all decisions of the window, within [1/10, 10]. It stays where
    it is as long as one of them is constant: no success was seen, say.

    ReFine-RFT standardises each of several rewards within a group of attempts before it adds them
    (`math.blending.group_normalised` is that formula). Here they are scaled and *not* centred:
    a mean subtracted from every decision pays for early or late ends, and changed the optimal
    policy of 193 of 200 random problems (`tests/shaping/test_rescaling.py`).

    Optimal policy: kept where the reward mode keeps it, because w > 0 only scales the potential;
    when w changes, targets jump, as at an exchange of the potential. Not kept in other modes.
    """

    about = "scales the learned reward only: it keeps what the reward mode keeps"

    def _update(self, policy: BasePolicy, rounds: int) -> dict[str, float]:
        seen = self.window.together()
        weight = group_weight(seen.base, seen.learned)
        if np.isfinite(weight):
            self.weight = float(np.clip(weight, 1 / RATIO, RATIO))
        return {"blend/weight": self.weight}
