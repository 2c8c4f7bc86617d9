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

GOLD_ABOVE = 0.95  # Robo-Dopamine pays r_gold = 1 where Phi >= 1 - delta, delta = 0.05


@dataclass(frozen=True)
class Condition:
    """A reward made of the learned potential.

    Attributes:
        label: for tables and plots.
        mode: name of the library's reward mode.
        base: what is paid underneath: "success" by the environment, "none", or "gold", 1 where
            the *learned* potential of the next state is at least `GOLD_ABOVE`.
        timeout_terminal: the mistake: a time-out ends the episode for the learner (no
            bootstrap), while Phi(s') stays in its reward.
    """

    label: str
    mode: str
    base: str = "success"
    timeout_terminal: bool = False

    def reward_mode(self) -> RewardMode:
        """Return the mode, reading Phi from `progress()`, which is the learned one here."""
        mode = MODES[self.mode]
        learned = mode.source == "scorer"
        return dataclasses.replace(mode, source="progress") if learned else mode

    def base_rewards(self, process: Process) -> Float64:
        """Return the base reward Float64["n"] of entering each state."""
        paid = {
            "success": process.at_goal,
            "none": np.zeros(len(process.potential)),
            "gold": process.potential >= GOLD_ABOVE,
        }
        return paid[self.base].astype(np.float64)


CONDITIONS: dict[str, Condition] = {
    "sparse": Condition("success alone", "success"),
    "absolute": Condition("success + progress", "absolute"),
    "difference": Condition("progress difference", "difference", base="none"),
    "difference_gold": Condition("difference + learned gold", "difference", base="gold"),
    "pbrs": Condition("success + PBRS", "potential"),
    "pbrs_timeout": Condition("PBRS, time-out bug", "potential", timeout_terminal=True),
}


def optimal_policy(condition: Condition, process: Process, horizon: int) -> Int64:
    """Return the policy Int64["t s"] that the reward makes optimal.

    A learner that bootstraps at the time-out has no end of time: its best policy is stationary.
    Where the time-out is terminal, the best action depends on the decisions left.
    """
    rewards = process.rewards(MODES[condition.mode], condition.base_rewards(process))
    if condition.timeout_terminal:
        return _greedy(horizon_values(process, rewards, rewards, horizon))[::-1]
    return np.tile(_greedy(optimal_values(process, rewards)), (horizon, 1))


def _greedy(q: Float64) -> Int64:
    return (q >= q.max(axis=-1, keepdims=True) - 1e-9).argmax(axis=-1)


def rewarded(env: gym.Env, condition: Condition, gamma: float) -> gym.Env:
    """Wrap an environment with `progress()` so that it pays the condition's reward."""
    if condition.base != "success":
        env = _OtherBase(env, gold=condition.base == "gold")
    env = LearnedReward(env, condition.reward_mode(), gamma=gamma)
    return _TimeoutIsTerminal(env) if condition.timeout_terminal else env


class _OtherBase(gym.Wrapper):
    """Pay nothing, or 1 where the learned potential is high, instead of success."""

    def __init__(self, env: gym.Env, *, gold: bool) -> None:
        super().__init__(env)
        self._gold = gold

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, terminated, truncated, info = self.env.step(action)
        high = self.env.get_wrapper_attr("progress")() >= GOLD_ABOVE
        return obs, float(self._gold and high), terminated, truncated, info


class _TimeoutIsTerminal(gym.Wrapper):
    """The mistake under test: it stands outside the shaping, which therefore keeps Phi(s')."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated or truncated, False, info
