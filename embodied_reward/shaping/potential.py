"""The only formula by which a learned potential may enter a return.

    F(s, s') = kappa * (gamma * m * Phi(s') - Phi(s)),    m = 0 iff s' is terminal

with the learner's own gamma. Then Q'*(s, a) = Q*(s, a) - kappa * Phi(s): every policy keeps its
rank, greedy and soft-optimal ones alike (Ng, Harada and Russell 1999, theorem 1).

One mask for both: Phi(s') is zeroed exactly where the learner cuts the value bootstrap (Grzes
2017). A success that terminates therefore ends with F = -kappa * Phi(s), about -0.95: that is
right, because the discounted sum of F over any terminated episode is -kappa * Phi(s0). At a
truncation the learner still bootstraps, so Phi(s') of the real final observation stays.

The shaped sum must never be normalised, clipped or centred; that breaks the theorem.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from embodied_reward.errors import ConfigError, did_you_mean

GOLD_DELTA = 0.05  # Robo-Dopamine (2025), eq. 14: Phi(s') >= 1 - delta counts as success

type Values = Any  # float, NumPy array or torch tensor; all arguments of one call broadcast


def shaping_reward(
    phi: Values, phi_next: Values, terminated: Values, gamma: float, kappa: float = 1.0
) -> Values:
    """Return kappa * (gamma * (1 - terminated) * phi_next - phi), element by element.

    Args:
        phi: Phi(s), potential of the observation the action was taken in.
        phi_next: Phi(s') of the observation that followed, the real final one at episode ends.
        terminated: true where the learner does not bootstrap from s'; never `done`, which
            also holds truncations.
        gamma: the learner's discount per decision, in (0, 1].
        kappa: positive scale of the potential.

    Returns:
        The shaping reward, in the precision of the potentials.
    """
    alive = 1.0 - terminated * 1.0
    return kappa * (gamma * alive * phi_next - phi)


def _none(phi: Values, phi_next: Values, terminated: Values, gamma: float, kappa: float) -> Values:
    return phi * 0.0


def _absolute(
    phi: Values, phi_next: Values, terminated: Values, gamma: float, kappa: float
) -> Values:
    return kappa * phi_next


def _level(phi: Values, phi_next: Values, terminated: Values, gamma: float, kappa: float) -> Values:
    # At most 0, so that it never pays to put the end off.
    return kappa * (phi_next - 1)


def _difference(
    phi: Values, phi_next: Values, terminated: Values, gamma: float, kappa: float
) -> Values:
    return kappa * (phi_next - phi)


def _difference_gold(
    phi: Values, phi_next: Values, terminated: Values, gamma: float, kappa: float
) -> Values:
    gold = (phi_next >= 1 - GOLD_DELTA) * 1.0
    return kappa * (phi_next - phi) + gold


def _delayed(
    phi: Values, phi_next: Values, terminated: Values, gamma: float, kappa: float
) -> Values:
    # `shaping.delayed.delayed_reward` on r_t = kappa Phi(s_{t+1}): pay, and take back at the next
    # decision. That is the potential kappa Phi / gamma, so this is the one formula once more.
    return shaping_reward(phi, phi_next, terminated, gamma, kappa / gamma)


@dataclass(frozen=True)
class RewardMode:
    """How a potential is added to the base reward.

    Attributes:
        name: what `--reward.mode` takes.
        invariant: whether the optimal policy of the base reward is provably kept.
        source: where Phi comes from: a reward model, the simulator's `progress()`, or nowhere.
        base: the environment's reward underneath: 1 at success, or its own dense reward.
        added: (phi, phi_next, terminated, gamma, kappa) -> what is added to the base reward.
        about: one line for logs.
        pays_base: False where the mode replaces the environment's reward instead of adding to it.
    """

    name: str
    invariant: bool
    source: Literal["none", "scorer", "progress"]
    base: Literal["success", "dense"]
    added: Callable[[Values, Values, Values, float, float], Values]
    about: str
    pays_base: bool = True

    def paid(self, base: Values) -> Values:
        """Return the part of the environment's reward that the learner sees."""
        return base if self.pays_base else base * 0.0

    def total(
        self, base: Values, phi: Values, phi_next: Values, terminated: Values, gamma: float,
        kappa: float = 1.0,
    ) -> Values:  # fmt: skip
        """Return the reward that the learner sees: base + what the mode adds."""
        return self.paid(base) + self.added(phi, phi_next, terminated, gamma, kappa)

    def summary(self, gamma: float, kappa: float) -> str:
        """Return the line that a run prints when it starts."""
        kept = "keeps the optimal policy" if self.invariant else "does NOT keep the optimal policy"
        scale = "" if self.source == "none" else f" (gamma {gamma:g}, kappa {kappa:g})"
        return f"reward '{self.name}': {self.about}{scale}; {kept}"


MODES: dict[str, RewardMode] = {
    mode.name: mode
    for mode in (
        RewardMode(
            "potential", True, "scorer", "success", shaping_reward,
            "success + potential-based shaping by the reward model",
        ),
        RewardMode("success", True, "none", "success", _none, "success alone"),
        RewardMode(
            "absolute", False, "scorer", "success", _absolute,
            "success + the progress of the next frame; pays for loitering near the goal",
        ),
        RewardMode(
            "level", False, "scorer", "success", _level,
            "the progress of the next frame minus 1, in place of the real success",
            pays_base=False,
        ),
        RewardMode(
            "difference", False, "scorer", "success", _difference,
            "success + undiscounted progress difference, kept at the terminal",
        ),
        RewardMode(
            "difference_gold", False, "scorer", "success", _difference_gold,
            "progress difference + 1 wherever Phi(s') >= 0.95, in place of the real success",
            pays_base=False,
        ),
        RewardMode(
            "delayed", True, "scorer", "success", _delayed,
            "success + the progress of the next frame, taken back one decision later",
        ),
        RewardMode(
            "oracle", True, "progress", "success", shaping_reward,
            "success + potential-based shaping by the simulator's true progress (upper bound)",
        ),
        RewardMode("task", True, "none", "dense", _none, "the environment's own dense reward"),
    )
}  # fmt: skip


def mode_named(name: str) -> RewardMode:
    """Look a mode up. Raises ConfigError with the nearest names."""
    if name not in MODES:
        raise ConfigError(f"unknown --reward.mode '{name}'; {did_you_mean(name, MODES)}")
    return MODES[name]
