"""The learned reward around a Gymnasium vector environment, in each of its autoreset modes."""

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from embodied_reward.errors import EnvError, NonFiniteError
from embodied_reward.shaping.frames import Scorer
from embodied_reward.shaping.order import check_order
from embodied_reward.shaping.potential import RewardMode
from embodied_reward.types import Bool, Float64


class LearnedRewardVector(VectorWrapper):
    """`LearnedRewardVecEnv` for `gymnasium.vector`: replace rewards by base + shaping.

    Where the potentials of an episode's last and the next one's first state come from:

    - NEXT_STEP (Gymnasium's default): the last ones are in this step's observation. The step after
      it only resets; its action was ignored, it is no transition, and its reward is 0.
    - SAME_STEP: the last ones are in `infos["final_info"]`, the first ones in `infos`.
    - DISABLED: the last ones are in this step's, the first ones in
      `reset(options={"reset_mask": ...})`.

    `infos` gains `env_reward`, `base_reward`, `potential` = Phi(s') (unmasked),
    `previous_potential` = Phi(s), `shaping` and `learned_success`, each Float64["b"], and
    `transition` Bool["b"], False in the rows that only reset; `frames` are taken out.

    Args:
        env: its environments carry `FramesInInfo` (scorer) or `ProgressInInfo` (oracle mode).
        mode: one of `MODES`.
        gamma: the learner's discount.
        kappa: scale of the potential.
        scorer: for `env.num_envs` environments, where `mode.source` is "scorer".
    """

    learns_reward = True  # for `check_order`

    def __init__(
        self,
        env: VectorEnv,
        mode: RewardMode,
        *,
        gamma: float,
        kappa: float = 1.0,
        scorer: Scorer | None = None,
    ) -> None:
        super().__init__(env)
        if mode.source == "scorer" and scorer is None:
            raise ValueError(f"mode '{mode.name}' needs a scorer")
        self.mode, self.gamma, self.kappa, self.scorer = mode, gamma, kappa, scorer
        self.autoreset = env.metadata.get("autoreset_mode")
        if not isinstance(self.autoreset, AutoresetMode):
            raise EnvError(
                f"{type(env).__name__} does not say in metadata['autoreset_mode'] when it resets; "
                "the last state of an episode cannot be told from the next one's first"
            )
        self._phi: Float64 = np.zeros(env.num_envs)
        self._ended: Bool = np.zeros(env.num_envs, bool)
        self._steps = 0
        check_order(self)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset all environments, or those in `options["reset_mask"]`, and score their frames."""
        everything = np.ones(self.num_envs, bool)
        rows = np.asarray((options or {}).get("reset_mask", everything), bool)
        obs, infos = self.env.reset(seed=seed, options=options)
        self._ended &= ~rows
        self._start(rows, infos)
        return obs, _without_frames(infos)

    def step(self, actions: Any) -> tuple[Any, Float64, Bool, Bool, dict[str, Any]]:
        """Step, score and shape. Raises NonFiniteError before anything can be stored."""
        obs, base, terminated, truncated, infos = self.env.step(actions)
        self._steps += 1
        resets = self._ended & (self.autoreset == AutoresetMode.NEXT_STEP)
        previous, (phi, success) = self._phi.copy(), self._score(self._last_infos(infos))
        extra = self.mode.added(previous, phi, terminated, self.gamma, self.kappa)
        extra = np.where(resets, 0.0, extra)
        rewards = self.mode.paid(np.asarray(base, np.float64)) + extra
        self._check(rewards)
        self._phi, self._ended = phi, terminated | truncated
        self._start(self._ended if self.autoreset == AutoresetMode.SAME_STEP else resets, infos)
        infos = _without_frames(infos) | {
            "env_reward": np.asarray(base, np.float64),
            "base_reward": np.asarray(base, np.float64),
            "potential": np.where(resets, self._phi, phi),
            "previous_potential": previous,
            "shaping": extra,
            "learned_success": success,
            "transition": ~resets,
        }
        return obs, rewards, terminated, truncated, infos

    def _last_infos(self, infos: dict[str, Any]) -> dict[str, Any]:
        """Return `infos` with what belongs to the last state in the rows that were reset."""
        if "final_info" not in infos or self.mode.source == "none":
            return infos
        rows, final = infos["_final_info"], infos["final_info"]
        if self.mode.source == "progress":
            return {"progress": np.where(rows, final["progress"], infos["progress"])}
        frames = {view: infos["frames"][view].copy() for view in self._views(infos)}
        for view, pictures in frames.items():
            pictures[rows] = final["frames"][view][rows]
        return {"frames": frames}

    def _start(self, rows: Bool, infos: dict[str, Any]) -> None:
        if not rows.any() or self.mode.source == "none":
            return
        if self.mode.source == "progress":
            first = _progress(infos)[rows]
        else:
            assert self.scorer is not None
            frames = {view: infos["frames"][view][rows] for view in self._views(infos)}
            first = self.scorer.start(np.flatnonzero(rows).tolist(), frames).potential
        # A copy: what `infos["potential"]` says of the last state must stay.
        self._phi = self._phi.copy()
        self._phi[rows] = first
        self._check(self._phi)

    def _score(self, infos: dict[str, Any]) -> tuple[Float64, Float64]:
        unknown = np.full(self.num_envs, np.nan)
        if self.mode.source == "none":
            return np.zeros(self.num_envs), unknown
        if self.mode.source == "progress":
            return _progress(infos).copy(), unknown
        assert self.scorer is not None
        scores = self.scorer.step({view: infos["frames"][view] for view in self._views(infos)})
        return np.asarray(scores.potential, np.float64), scores.success

    def _views(self, infos: dict[str, Any]) -> tuple[str, ...]:
        assert self.scorer is not None
        missing = [v for v in self.scorer.views if v not in infos.get("frames", {})]
        if missing:
            raise EnvError(
                f"the environments rendered no view {missing}, which the reward model needs; make "
                f"them with views={list(self.scorer.views)} inside FramesInInfo"
            )
        return self.scorer.views

    def _check(self, values: Float64) -> None:
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"the reward or potential of environment {int(np.argmin(np.isfinite(values)))} is "
                f"not finite at vector step {self._steps}; the transition was not stored"
            )


def _progress(infos: dict[str, Any]) -> Float64:
    if "progress" not in infos:
        raise EnvError("the environments give no info['progress']: wrap them in ProgressInInfo")
    return np.asarray(infos["progress"], np.float64)


def _without_frames(infos: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in infos.items() if k not in ("frames", "_frames")}
    if isinstance(kept.get("final_info"), dict):
        kept["final_info"] = _without_frames(kept["final_info"])
    return kept
