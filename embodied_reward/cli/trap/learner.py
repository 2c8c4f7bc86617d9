"""Stable-Baselines3's DQN on `trap/insert` under one reward, and its policy as a table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor

from embodied_reward.cli.trap.conditions import Condition, rewarded
from embodied_reward.cli.trap.lattice import GOAL, LatticeEnv, observe
from embodied_reward.types import Float64, Int64


@dataclass(frozen=True)
class LearnerConfig:
    """How DQN learns; the same for every reward."""

    steps: int = 60_000
    """decisions per run"""
    lr: float = 1e-3
    """learning rate of Adam at the start; it falls linearly to a fiftieth, which averages the
    noise of the attempts out: trying is worth only a few percent more than trying later"""
    hidden: int = 64
    """width of the two hidden layers of Q"""
    batch_size: int = 128
    """transitions per update"""
    train_freq: int = 4
    """decisions between updates"""
    target_interval: int = 400
    """decisions between copies of Q to the target network"""
    exploration_fraction: float = 0.5
    """share of the decisions over which epsilon falls from 1 to its end"""
    exploration_end: float = 0.3
    """epsilon after that"""


def learn(
    condition: Condition,
    potential: Float64,
    config: LearnerConfig,
    *,
    chance: float,
    horizon: int,
    gamma: float,
    seed: int,
    on_steps: Callable[[int], Any] = lambda _: None,
) -> Int64:
    """Train and return the greedy policy Int64["t s"], one action per decision and state.

    Args:
        condition: the reward.
        potential: Float64[31], the learned Phi of every state.
        config: DQN's settings.
        chance: success probability of one attempt.
        horizon: decisions per episode.
        gamma: discount of learner and shaping.
        seed: decides starts, chances, exploration and weights.
        on_steps: called with the number of decisions so far, now and then.
    """
    env = LatticeEnv(potential, chance=chance, horizon=horizon, explore=seed)
    model = DQN(
        "MlpPolicy",
        Monitor(rewarded(env, condition, gamma)),
        learning_rate=lambda left: config.lr * max(left, 0.02),
        gamma=gamma,
        batch_size=config.batch_size,
        train_freq=config.train_freq,
        target_update_interval=config.target_interval,
        learning_starts=min(1000, config.steps // 4),
        buffer_size=config.steps,
        exploration_fraction=config.exploration_fraction,
        exploration_final_eps=config.exploration_end,
        policy_kwargs={"net_arch": [config.hidden, config.hidden]},
        seed=seed,
        device="cpu",
    )
    try:
        model.learn(config.steps, callback=_Heartbeat(on_steps))
    finally:
        env.close()
    return policy_table(model, horizon)


def policy_table(model: DQN, horizon: int) -> Int64:
    """Return the greedy action of every decision and state, Int64["t s"]."""
    steps, states = np.meshgrid(np.arange(horizon), np.arange(GOAL + 1), indexing="ij")
    actions, _ = model.predict(observe(states.ravel(), steps.ravel(), horizon), deterministic=True)
    return actions.reshape(horizon, GOAL + 1)


class _Heartbeat(BaseCallback):
    def __init__(self, on_steps: Callable[[int], Any]) -> None:
        super().__init__()
        self._on_steps = on_steps

    def _on_step(self) -> bool:
        if self.num_timesteps % 500 == 0:
            self._on_steps(self.num_timesteps)
        return True
