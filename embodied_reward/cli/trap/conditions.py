"""The six rewards of the benchmark, for the learner and, in closed form, for exact solutions."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from embodied_reward.cli.trap.mdp import Process, horizon_values, optimal_values
from embodied_reward.shaping import MODES, RewardMode
from embodied_reward.shaping.wrapper import LearnedReward
from embodied_reward.types import Float64, Int64


@dataclass(frozen=True)
class Condition:
    """A reward made of the learned potential.

    Attributes:
        label: for tables and plots.
        mode: name of the library's reward mode.
        pays_success: whether success is paid underneath, where the mode pays it at all
            ("difference_gold" pays 1 for a *learned* potential of 0.95 and more instead).
        timeout_terminal: the mistake: a time-out ends the episode for the learner (no
            bootstrap), while Phi(s') stays in its reward.
    """

    label: str
    mode: str
    pays_success: bool = True
    timeout_terminal: bool = False

    def reward_mode(self) -> RewardMode:
        """Return the mode, reading Phi from `progress()`, which is the learned one here."""
        mode = MODES[self.mode]
        source = "progress" if mode.source == "scorer" else mode.source
        pays = mode.pays_base and self.pays_success
        return dataclasses.replace(mode, source=source, pays_base=pays)


CONDITIONS: dict[str, Condition] = {
    "sparse": Condition("success alone", "success"),
    "absolute": Condition("success + progress", "absolute"),
    "difference": Condition("progress difference", "difference", pays_success=False),
    "difference_gold": Condition("difference + learned gold", "difference_gold"),
    "pbrs": Condition("success + PBRS", "potential"),
    "pbrs_timeout": Condition("PBRS, time-out bug", "potential", timeout_terminal=True),
}


def optimal_policy(condition: Condition, process: Process, horizon: int) -> Int64:
    """Return the policy Int64["t s"] that the reward makes optimal.

    A learner that bootstraps at the time-out has no end of time: its best policy is stationary.
    Where the time-out is terminal, the best action depends on the decisions left.
    """
    rewards = process.rewards(condition.reward_mode(), process.success_pays())
    if condition.timeout_terminal:
        return _greedy(horizon_values(process, rewards, rewards, horizon))[::-1]
    return np.tile(_greedy(optimal_values(process, rewards)), (horizon, 1))


def _greedy(q: Float64) -> Int64:
    return (q >= q.max(axis=-1, keepdims=True) - 1e-9).argmax(axis=-1)


def rewarded(env: gym.Env, condition: Condition, gamma: float) -> gym.Env:
    """Wrap an environment with `progress()` so that it pays the condition's reward."""
    env = LearnedReward(env, condition.reward_mode(), gamma=gamma)
    return _TimeoutIsTerminal(env) if condition.timeout_terminal else env


class _TimeoutIsTerminal(gym.Wrapper):
    """The mistake under test: it stands outside the shaping, which therefore keeps Phi(s')."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated or truncated, False, info
