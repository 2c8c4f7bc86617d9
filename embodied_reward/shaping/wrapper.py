"""The learned reward around one Gymnasium environment."""

from typing import Any

import gymnasium as gym
import numpy as np

from embodied_reward.errors import NonFiniteError
from embodied_reward.shaping.frames import Scorer, stack_frames
from embodied_reward.shaping.ledger import Ledger
from embodied_reward.shaping.order import check_order
from embodied_reward.shaping.potential import RewardMode
from embodied_reward.shaping.watch import SuccessWatch
from embodied_reward.types import UInt8


class LearnedReward(gym.Wrapper):
    """Replace the reward by base + shaping, where the potential comes from `scorer`.

    It belongs outside frame-skip and action chunks (gamma counts decisions) and outside
    `Monitor`, so that logged returns stay the task's own.

    Args:
        env: an environment with `frames()` (scorer) or `progress()` (oracle mode).
        mode: one of `MODES`.
        gamma: the learner's discount.
        kappa: scale of the potential.
        scorer: needed where `mode.source` is "scorer"; its row 0 is used.
        watch: a success detector of one environment; it pays nothing.
    """

    learns_reward = True  # for `check_order`

    def __init__(
        self,
        env: gym.Env,
        mode: RewardMode,
        *,
        gamma: float,
        kappa: float = 1.0,
        scorer: Scorer | None = None,
        watch: SuccessWatch | None = None,
    ) -> None:
        super().__init__(env)
        if mode.source == "scorer" and scorer is None:
            raise ValueError(f"mode '{mode.name}' needs a scorer")
        self.mode, self.gamma, self.kappa, self.scorer = mode, gamma, kappa, scorer
        self.watch, self.ledger = watch, Ledger(1, mode, gamma=gamma, kappa=kappa)
        self._phi, self._steps = 0.0, 0
        check_order(self)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset and score the first frame; `info` gains `potential` and `learned_success`."""
        obs, info = self.env.reset(**kwargs)
        self._steps = 0
        self._phi, success = self._score(info, first=True)
        info = {**info, "potential": self._phi, "learned_success": success}
        info |= self._judge(info, success, first=True)
        self.ledger.start([0], np.array([self._phi]), [info])
        return obs, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step; `info` gains what `LearnedRewardVecEnv` documents."""
        obs, base, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        previous, (phi, success) = self._phi, self._score(info, first=False)
        extra = float(self.mode.added(previous, phi, terminated, self.gamma, self.kappa))
        self._phi, reward = phi, float(self.mode.paid(base)) + extra
        info = {
            **info,
            "env_reward": float(base),
            "base_reward": float(base),
            "potential": phi,
            "previous_potential": previous,
            "shaping": extra,
            "learned_success": success,
        }
        info |= self._judge(info, success, first=False)
        self.ledger.step(np.array([float(base)]), np.array([reward]), np.array([phi]), [info])
        if terminated or truncated:
            info |= self.ledger.report(0, terminated=bool(terminated))
        return obs, reward, terminated, truncated, info

    def _judge(self, info: dict[str, Any], success: float, *, first: bool) -> dict[str, Any]:
        if self.watch is None:
            return {}
        infos, known = [{**info, "frames": self._frames(info)}], np.array([success])
        if first:
            score, fired = self.watch.start([0], infos, known)
        else:
            score, fired = self.watch.step(infos, known)
        return {"success_score": float(score[0]), "detected_success": bool(fired[0])}

    def _score(self, info: dict[str, Any], *, first: bool) -> tuple[float, float]:
        if self.mode.source == "none":
            return 0.0, float("nan")
        if self.mode.source == "progress":
            phi, success = float(self.env.get_wrapper_attr("progress")()), float("nan")
        else:
            phi, success = self._score_frames(info, first)
        if not np.isfinite(phi):
            raise NonFiniteError(
                f"the potential is {phi} at step {self._steps} of the episode; nothing was stored"
            )
        return phi, success

    def _score_frames(self, info: dict[str, Any], first: bool) -> tuple[float, float]:
        assert self.scorer is not None
        frames = stack_frames([{"frames": self._frames(info)}], self.scorer.views)
        scores = self.scorer.start([0], frames) if first else self.scorer.step(frames)
        return float(scores.potential[0]), float(scores.success[0])

    def _frames(self, info: dict[str, Any]) -> dict[str, UInt8]:
        """Return the frames of the step; `FramesInInfo` may have moved on since (`hold`)."""
        return info["frames"] if "frames" in info else self.env.get_wrapper_attr("frames")()
