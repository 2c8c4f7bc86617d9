"""Small finite decision processes, solved exactly: optimal values, and what a policy attains.

Axes: s state, a action, n next state, t decision. A process is its transition probabilities
Float64["s a n"]; state `goal` is absorbing and worth nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.shaping import RewardMode
from embodied_reward.types import Bool, Float64, Int64


@dataclass(frozen=True)
class Process:
    """A finite process with one absorbing goal.

    Attributes:
        chances: Float64["s a n"], probability of the next state.
        goal: the terminal state, where every episode of success ends.
        potential: Float64["s"], Phi of every state as a model would read it (goal included).
        gamma: the learner's discount.
    """

    chances: Float64
    goal: int
    potential: Float64
    gamma: float

    @property
    def at_goal(self) -> Bool:
        """Return Bool["s"], true for the goal alone."""
        return np.arange(len(self.potential)) == self.goal

    def success_pays(self, amount: float = 1.0) -> Float64:
        """Return the base reward Float64["n"] that pays `amount` for entering the goal."""
        return np.where(self.at_goal, amount, 0.0).astype(np.float64)

    def rewards(self, mode: RewardMode, base: Float64, terminated: Bool | None = None) -> Float64:
        """Return the learner's reward Float64["s a n"] under one of the library's modes.

        Args:
            mode: how the potential is added.
            base: Float64["n"], the base reward of entering each state.
            terminated: Bool["n"], where the learner cuts the bootstrap; default: at the goal.
        """
        cut = self.at_goal if terminated is None else terminated
        phi = self.potential
        added = mode.total(base[None, :], phi[:, None], phi[None, :], cut[None, :], self.gamma)
        return np.broadcast_to(added[:, None, :], self.chances.shape)


def action_values(process: Process, rewards: Float64, values: Float64) -> Float64:
    """Return Q Float64["s a"] = E[r + gamma V(s')], with V = 0 at the goal."""
    alive = np.where(process.at_goal, 0.0, values)
    return np.einsum("san,san->sa", process.chances, rewards + process.gamma * alive)


def optimal_values(process: Process, rewards: Float64) -> Float64:
    """Return the optimal Q Float64["s a"] of the infinite horizon, by policy iteration."""
    states = np.arange(len(process.chances))
    policy = np.zeros(len(states), np.int64)
    while True:
        onward = process.gamma * process.chances[states, policy] * ~process.at_goal
        gained = np.sum(process.chances[states, policy] * rewards[states, policy], axis=1)
        gained = np.where(process.at_goal, 0.0, gained)
        values: Any = np.linalg.solve(np.eye(len(states)) - onward, gained)
        q = action_values(process, rewards, values)
        better = q.max(axis=1) > q[states, policy] + 1e-12
        if not better.any():
            return q
        policy = np.where(better, q.argmax(axis=1), policy)


def horizon_values(process: Process, rewards: Float64, last: Float64, steps: int) -> Float64:
    """Return the optimal Q Float64["t s a"] with 1, 2, ..., `steps` decisions left.

    The end of time is terminal (V = 0); `last` are the rewards of the last decision.
    """
    table = [action_values(process, last, np.zeros(len(process.potential)))]
    for _ in range(steps - 1):
        table.append(action_values(process, rewards, table[-1].max(axis=1)))
    return np.stack(table)


@dataclass(frozen=True)
class Outcome:
    """What a policy attains within the horizon, exactly.

    Attributes:
        success: probability of the goal.
        hover: probability of ending with a potential above the hover threshold, not at the goal.
        value: expected discounted sum of the success signal, gamma^t at the t-th decision.
    """

    success: float
    hover: float
    value: float


def evaluate(process: Process, policy: Int64, start: Float64, hover_above: float) -> Outcome:
    """Follow a policy Int64["t s"] from the start distribution Float64["s"] to the horizon."""
    states, there, value = np.arange(len(start)), start, 0.0
    for t, actions in enumerate(policy):
        after = np.where(process.at_goal, 0.0, there) @ process.chances[states, actions]
        value += process.gamma**t * after[process.goal]
        there = after + np.where(process.at_goal, there, 0.0)
    success = float(there[process.goal])
    hovering = (process.potential > hover_above) & ~process.at_goal
    return Outcome(success, float(there[hovering].sum()), float(value))
