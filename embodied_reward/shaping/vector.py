"""The learned reward around a Stable-Baselines3 vector environment."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from embodied_reward.errors import EnvError, NonFiniteError
from embodied_reward.shaping.frames import HELD, Prefetches, Scorer, stack_frames
from embodied_reward.shaping.ledger import Ledger
from embodied_reward.shaping.order import check_order
from embodied_reward.shaping.potential import RewardMode
from embodied_reward.shaping.watch import SuccessWatch
from embodied_reward.shaping.workers import WorkerVecEnv
from embodied_reward.types import Float64

EPISODES = 100  # window of the mean learned return, the same as Stable-Baselines3's own


class LearnedRewardVecEnv(VecEnvWrapper):
    """Replace the rewards of b environments by base + shaping, with one scorer call per step.

    SB3's vector environments reset a finished row by themselves. The frames of the finished
    step come in `infos[i]["frames"]` (`FramesInInfo` put them there before that reset), those
    of the new episode in `reset_infos[i]["frames"]`: the first give Phi(s') of the transition
    that ends, the second give Phi(s) of the one that begins.

    `infos[i]` gains `env_reward` and `base_reward` (before shaping), `potential` = Phi(s') as
    observed (unmasked), `previous_potential` = Phi(s), `shaping` (what was added),
    `learned_success` and, with a watch, `success_score` and `detected_success`; the frames are
    taken out, so that no buffer keeps them. Where an episode ends, `episode_reward_ledger` holds
    its accounts and `run_reward_ledger` the rates so far (`shaping/ledger.py`); a shaping sum
    that does not telescope raises.

    Around a `WorkerVecEnv`, the frames of an environment are handed to the scorer as they arrive,
    to be encoded ahead; rewards are the same.

    Args:
        venv: its environments carry `FramesInInfo` (scorer) or `ProgressInInfo` (oracle mode).
        mode: one of `MODES`.
        gamma: the learner's discount.
        kappa: scale of the potential.
        scorer: for `venv.num_envs` environments, where `mode.source` is "scorer".
        watch: a success detector that is logged beside the true success; it pays nothing.
    """

    learns_reward = True  # for `check_order`

    def __init__(
        self,
        venv: VecEnv,
        mode: RewardMode,
        *,
        gamma: float,
        kappa: float = 1.0,
        scorer: Scorer | None = None,
        watch: SuccessWatch | None = None,
    ) -> None:
        super().__init__(venv)
        if mode.source == "scorer" and scorer is None:
            raise ValueError(f"mode '{mode.name}' needs a scorer")
        self.mode, self.gamma, self.kappa, self.scorer = mode, gamma, kappa, scorer
        self.watch = watch
        self.ledger = Ledger(venv.num_envs, mode, gamma=gamma, kappa=kappa)
        self.learned_returns: deque[float] = deque(maxlen=EPISODES)
        self._phi: Float64 = np.zeros(venv.num_envs)
        self._returns: Float64 = np.zeros(venv.num_envs)
        self._steps, self.potential_version = 0, ""
        if isinstance(venv, WorkerVecEnv):
            venv.on_arrival = self._arrived
        check_order(self)

    def reset(self) -> VecEnvObs:
        """Reset all environments and score their first frames."""
        obs = self.venv.reset()
        rows = range(self.num_envs)
        self._returns[:] = 0.0
        self._phi[:] = self._start(rows)
        self._adopt_reset_infos()
        return obs

    def exchange(self, scorer: Scorer, potential: Float64, version: str) -> None:
        """Pay another reward model's potential from the next step on.

        Args:
            scorer: has already been given the running episodes' frames.
            potential: Float64["b"], what it says of the current states.
            version: its name, put in `infos[i]["potential_version"]`; a replay buffer refuses
                transitions of another version than its own.

        Raises:
            NonFiniteError: a NaN in `potential`; nothing was exchanged.
        """
        phi = self._finite(potential, range(self.num_envs), "at an exchange")
        self.scorer, self._phi = scorer, phi.copy()
        self.ledger.exchange(phi)
        self.potential_version = version

    def step_wait(self) -> VecEnvStepReturn:
        """Step, score and shape. Raises NonFiniteError before anything can be stored."""
        obs, base, dones, infos = self.venv.step_wait()
        self._steps += 1
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        terminated = dones & ~truncated
        phi, success = self._score(infos)
        self._check(obs, base, infos)
        self._watch(infos, success)
        extra = self._extra(phi, terminated)
        rewards = self.mode.paid(base.astype(np.float64)) + extra
        for row, info in enumerate(infos):
            info.pop("frames", None)
            info.pop(HELD, None)
            info["env_reward"] = info["base_reward"] = float(base[row])
            info["potential"], info["previous_potential"] = float(phi[row]), float(self._phi[row])
            info["potential_version"] = self.potential_version
            info["shaping"], info["learned_success"] = float(extra[row]), float(success[row])
        self.ledger.step(base.astype(np.float64), rewards, phi, infos)
        for row in np.flatnonzero(dones):
            infos[row].update(self.ledger.report(row, terminated=bool(terminated[row])))
        self._finish(rewards, dones, phi)
        return obs, rewards.astype(np.float32), dones, infos

    def _arrived(self, infos: Sequence[Mapping[str, Any]]) -> None:
        """Let the frames of environments that are done be encoded while others simulate."""
        watching = self.watch.scorer if self.watch and not self.watch.shared else None
        paying = self.scorer if self.mode.source == "scorer" else None
        for scorer in (paying, watching):
            if isinstance(scorer, Prefetches):
                scorer.prefetch(stack_frames(infos, scorer.views))

    def _extra(self, phi: Float64, terminated: np.ndarray) -> Float64:
        return self.mode.added(self._phi, phi, terminated, self.gamma, self.kappa)

    def _finish(self, rewards: Float64, dones: np.ndarray, phi: Float64) -> None:
        self._returns += rewards
        self._phi = phi.copy()
        ended = np.flatnonzero(dones)
        self.learned_returns.extend(self._returns[ended].tolist())
        self._returns[ended] = 0.0
        if len(ended):
            self._phi[ended] = self._start(ended.tolist())
            self._adopt_reset_infos()

    def _start(self, rows: Sequence[int]) -> Float64:
        infos = [self.venv.reset_infos[row] for row in rows]
        phi, success = self._score_first(rows, infos)
        if self.watch:
            scores, fired = self.watch.start(rows, infos, success)
            for info, score, one in zip(infos, scores, fired, strict=True):
                info["success_score"], info["detected_success"] = float(score), bool(one)
        self.ledger.start(rows, phi, infos)
        return phi

    def _score_first(
        self, rows: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> tuple[Float64, Float64]:
        unknown = np.full(len(infos), np.nan)
        if self.mode.source == "none":
            return np.zeros(len(infos)), unknown
        if self.mode.source == "progress":
            return self._finite(_progress(infos), rows, "at reset"), unknown
        assert self.scorer is not None
        scores = self.scorer.start(list(rows), stack_frames(infos, self.scorer.views))
        return self._finite(scores.potential, rows, "at reset"), scores.success

    def _watch(self, infos: Sequence[dict[str, Any]], success: Float64) -> None:
        if self.watch:
            scores, fired = self.watch.step(infos, success)
            for info, score, one in zip(infos, scores, fired, strict=True):
                info["success_score"], info["detected_success"] = float(score), bool(one)

    def _score(self, infos: Sequence[Mapping[str, Any]]) -> tuple[Float64, Float64]:
        rows, unknown = range(self.num_envs), np.full(self.num_envs, np.nan)
        if self.mode.source == "none":
            return np.zeros(self.num_envs), unknown
        if self.mode.source == "progress":
            return self._finite(_progress(infos), rows, "after the action"), unknown
        assert self.scorer is not None
        scores = self.scorer.step(stack_frames(infos, self.scorer.views))
        return self._finite(scores.potential, rows, "after the action"), scores.success

    def _finite(self, phi: Float64, rows: Sequence[int], when: str) -> Float64:
        for row, value in zip(rows, phi, strict=True):
            if not np.isfinite(value):
                raise NonFiniteError(
                    f"the potential of environment {row} is {value} at vector step {self._steps} "
                    f"{when}; the transition was not stored and nothing was updated"
                )
        return np.asarray(phi, np.float64)

    def _check(self, obs: VecEnvObs, base: np.ndarray, infos: Sequence[Mapping]) -> None:
        parts = obs.values() if isinstance(obs, dict) else [np.asarray(obs)]
        good = np.isfinite(base)
        for part in parts:
            good &= np.isfinite(part).reshape(self.num_envs, -1).all(axis=1)
        for row, info in enumerate(infos):
            final = info.get("terminal_observation")
            if isinstance(final, np.ndarray):
                good[row] &= np.isfinite(final).all()
        if not good.all():
            raise NonFiniteError(
                f"environment {int(np.argmin(good))} returned a non-finite observation or reward "
                f"at vector step {self._steps}; the transition was not stored"
            )

    def _adopt_reset_infos(self) -> None:
        self.reset_infos = [
            {k: v for k, v in info.items() if k != "frames"} for info in self.venv.reset_infos
        ]


def _progress(infos: Sequence[Mapping[str, Any]]) -> Float64:
    missing = [row for row, info in enumerate(infos) if "progress" not in info]
    if missing:
        raise EnvError(f"environment {missing[0]} gives no info['progress']: wrap ProgressInInfo")
    return np.array([info["progress"] for info in infos], np.float64)
