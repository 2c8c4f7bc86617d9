"""A blend around a learned reward, and the callback that lets it learn between two rollouts."""

from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from embodied_reward.errors import NonFiniteError

from .base import Blend


class BlendedVecEnv(VecEnvWrapper):
    """Pay base + weight x learned reward + bonus, and show every decision to the blend.

    `infos[i]` gains `blend_weight` and `blend_bonus`. The ledger below it books what the reward
    mode pays with weight 1: its law does not depend on the blend.

    Args:
        venv: a `LearnedRewardVecEnv` with flat observations.
        blend: changes between rollouts only (`BlendCallback`).
    """

    def __init__(self, venv: VecEnv, blend: Blend) -> None:
        super().__init__(venv)
        self.blend = blend
        self._obs = self._actions = np.zeros(0, np.float32)

    def reset(self) -> VecEnvObs:
        """Reset all environments; episodes under way are forgotten."""
        obs = self.venv.reset()
        assert isinstance(obs, np.ndarray)
        self._obs = obs.copy()
        self.blend.window.abandon()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Pass the actions on."""
        self._actions = np.array(actions, np.float32)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Step and blend. Raises NonFiniteError before anything can be stored."""
        obs, rewards, dones, infos = self.venv.step_wait()
        assert isinstance(obs, np.ndarray)
        after = obs.astype(np.float32)
        for row in np.flatnonzero(dones):
            after[row] = infos[row]["terminal_observation"]
        bonus = self._bonus(after, dones, infos)
        learned = np.array([info["shaping"] for info in infos])
        mapped = self._mapped(dones, infos) if self.blend.maps else learned
        paid = rewards.astype(np.float64) + self.blend.weight * mapped - learned + bonus
        if not np.isfinite(paid).all():
            row = int(np.argmin(np.isfinite(paid)))
            raise NonFiniteError(
                f"the blended reward of environment {row} is {paid[row]}; it was not stored"
            )
        self._book(after, learned, dones, infos)
        for row, info in enumerate(infos):
            info["blend_weight"], info["blend_bonus"] = self.blend.weight, float(bonus[row])
        self._obs = obs.copy()
        return obs, paid.astype(np.float32), dones, infos

    def _bonus(self, after: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> Any:
        if not self.blend.bonuses:
            return np.zeros(len(dones))
        return self.blend.bonus(self._obs, self._actions, after, _terminated(dones, infos))

    def _mapped(self, dones: np.ndarray, infos: list[dict[str, Any]]) -> Any:
        """Return what the reward mode adds where the blend's potential stands for the model's."""
        phi, phi_next = (
            self.blend.potential(np.array([info[key] for info in infos]))
            for key in ("previous_potential", "potential")
        )
        inner: Any = self.venv  # a `LearnedRewardVecEnv`, which this package may not import
        return inner.mode.added(phi, phi_next, _terminated(dones, infos), inner.gamma, inner.kappa)

    def _book(
        self, after: np.ndarray, learned: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]
    ) -> None:
        self.blend.saw(after)
        for row, info in enumerate(infos):
            base, ended = info["base_reward"], bool(dones[row])
            given = (self._obs[row], self._actions[row], base, float(learned[row]))
            self.blend.window.add(row, (*given, info["previous_potential"]), ended=ended)
            if ended:
                self.blend.ended()


def _terminated(dones: np.ndarray, infos: list[dict[str, Any]]) -> np.ndarray:
    cut = [info.get("TimeLimit.truncated", False) for info in infos]
    return dones & ~np.array(cut)


class BlendCallback(BaseCallback):
    """Let the blend learn where a rollout begins: one rollout is paid by one blend."""

    def __init__(self, blend: Blend) -> None:
        super().__init__()
        self.blend = blend

    def _on_rollout_start(self) -> None:
        for name, value in self.blend.improve(self.model.policy).items():
            self.logger.record(name, value)

    def _on_step(self) -> bool:
        return True
