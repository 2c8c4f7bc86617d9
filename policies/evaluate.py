"""Roll a policy out and count successes: shared by training and `er eval-policy`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from embodied_reward.errors import ConfigError, EnvError
from embodied_reward.math.statistics import wilson


class Acts(Protocol):
    """Anything that chooses actions from the environment's own observations.

    One that remembers (a diffusion policy carries plans out) also has `reset(seed)`, which is
    called before every episode with that episode's seed.
    """

    def predict(self, obs: Any, deterministic: bool = True) -> Any:
        """Return one action in the environment's units."""
        ...


# Called after reset (action None) and after every step: (episode, env, info, ended).
Watch = Callable[[int, gym.Env, dict[str, Any], bool], None]


@dataclass(frozen=True)
class Evaluation:
    """Results of n episodes, one entry per episode.

    Attributes:
        success: whether `info["is_success"]` held at any step.
        returns: undiscounted sums of the environment's own reward.
        lengths: decisions.
        seeds: the reset seeds.
    """

    success: tuple[bool, ...]
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    seeds: tuple[int, ...]

    @property
    def success_rate(self) -> float:
        """Share of successful episodes."""
        return float(np.mean(self.success))

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval of the success rate."""
        return wilson(sum(self.success), len(self.success))

    def summary(self) -> dict[str, float]:
        """Return the numbers under the tags that Stable-Baselines3 logs."""
        low, high = self.interval
        return {
            "eval/success_rate": self.success_rate,
            "eval/success_low": low,
            "eval/success_high": high,
            "eval/mean_reward": float(np.mean(self.returns)),
            "eval/mean_ep_length": float(np.mean(self.lengths)),
        }


def evaluate(
    policy: Acts,
    env: gym.Env,
    *,
    episodes: int,
    seed: int,
    deterministic: bool = True,
    watch: Watch | None = None,
) -> Evaluation:
    """Roll out `episodes` episodes; episode i is reset with `seed + i`.

    The seeds are fixed, so evaluations of two policies meet the same starts.

    Args:
        policy: see `Acts`.
        env: puts `info["is_success"]`; must end its episodes by itself.
        episodes: at least one.
        seed: of the first episode.
        deterministic: the policy's mean action.
        watch: see `Watch`.

    Raises:
        ConfigError: fewer than one episode.
        EnvError: the environment does not report success.
    """
    if episodes < 1:
        raise ConfigError(f"an evaluation needs at least one episode, got {episodes}")
    seeds = tuple(seed + i for i in range(episodes))
    rows = [_episode(policy, env, i, s, deterministic, watch) for i, s in enumerate(seeds)]
    success, returns, lengths = zip(*rows, strict=True)
    return Evaluation(success, returns, lengths, seeds)


def _episode(
    policy: Acts, env: gym.Env, index: int, seed: int, deterministic: bool, watch: Watch | None
) -> tuple[bool, float, int]:
    obs, info = env.reset(seed=seed)
    if reset := getattr(policy, "reset", None):
        reset(seed)
    if "is_success" not in info:
        raise EnvError("the environment puts no info['is_success']; success cannot be counted")
    success, total, length, ended = bool(info["is_success"]), 0.0, 0, False
    if watch:
        watch(index, env, info, False)
    while not ended:
        obs, reward, terminated, truncated, info = env.step(policy.predict(obs, deterministic))
        ended, length = bool(terminated or truncated), length + 1
        success, total = success or bool(info["is_success"]), total + float(reward)
        if watch:
            watch(index, env, info, ended)
    return success, total, length
