"""What `er train-policy` and `er eval-policy` share: the environment around a policy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FlattenObservation, RescaleAction
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.cli.env_config import EnvConfig, make_env
from embodied_reward.policies.finetune.env import Plans
from embodied_reward.rewards import RewardModel
from embodied_reward.rewards.detector import Detector
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.shaping import RewardMode
from embodied_reward.shaping.frames import FramesInInfo, ProgressInInfo, Scorer
from embodied_reward.shaping.tiers import TieredProgress, TieredScorer, Tiers
from embodied_reward.shaping.trust import TrustedScorer
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from embodied_reward.shaping.watch import DetectedSuccess, SuccessWatch
from embodied_reward.shaping.workers import WorkerVecEnv

if TYPE_CHECKING:
    from embodied_reward.envs import VisualEnv

DEFAULT_SIZE = 64

WORKERS = ("serial", "subprocess")
"""Step environments in turn, or each in a process of its own."""


@dataclass(frozen=True)
class Watched:
    """A success detector beside the reward.

    Attributes:
        model: gives the success probabilities.
        detector: threshold and persistence.
        pays: it takes the place of the simulator's success.
        shared: it is the reward model, whose scores serve both.
    """

    model: RewardModel
    detector: Detector
    pays: bool = False
    shared: bool = False

    @property
    def hold(self) -> int:
        """Frames that the detector wants to see after a success ended the episode."""
        return self.detector.persistence - 1

    def watch(self, count: int, scorer: Scorer | None = None) -> SuccessWatch:
        """Return the watch of `count` environments; `scorer` is the reward's, if shared."""
        if self.shared and isinstance(scorer, StreamScorer):
            return SuccessWatch(self.detector, scorer, count, shared=True)
        return SuccessWatch(self.detector, StreamScorer(self.model, count), count)


def plain_env(
    config: EnvConfig,
    seed: int,
    *,
    views: Sequence[str] = (),
    size: int | tuple[int, int] = DEFAULT_SIZE,
    **kwargs: Any,
) -> "VisualEnv":
    """Build the environment alone; nothing is rendered unless somebody asks for frames."""
    return make_env(config, views=views, size=size, seed=seed, **kwargs)


type EnvMaker = Callable[..., Any]
"""Called as `plain_env` is."""


@dataclass(frozen=True, kw_only=True)
class SingleEnv:
    """How one of the learner's environments is made, in this process or in another.

    Attributes:
        config: the `--env.*` group.
        views: cameras; none leaves the choice to the environment.
        size: pixels of the pictures.
        frames: put them into `info`.
        hold: frames that are shown after a success ended the episode.
        progress: put the true progress into `info`.
        tiers: divide that progress.
        detector: pays in place of the simulator's success; for this process only.
        plans: let a decision be a whole plan of a diffusion policy.
        maker: builds the environment alone.
    """

    config: EnvConfig = field(kw_only=False)
    views: tuple[str, ...] = ()
    size: int | tuple[int, int] = DEFAULT_SIZE
    frames: bool = False
    hold: int = 0
    progress: bool = False
    tiers: Tiers | None = None
    detector: Watched | None = None
    plans: Plans | None = None
    maker: EnvMaker = plain_env

    def make(self, seed: int) -> gym.Env:
        """Build the environment."""
        env: gym.Env = self.maker(
            self.config,
            seed,
            views=self.views,
            size=self.size,
            terminate_on_success=self.detector is None,
            pixels=self.plans is not None and bool(self.plans.spec.views),
        )
        if self.plans:
            env = self.plans.around(env, seed)
        if self.progress:
            env = ProgressInInfo(env)
            env = TieredProgress(env, self.tiers) if self.tiers else env
        if self.frames:
            env = FramesInInfo(env, hold=self.hold)
        if self.detector:
            env = DetectedSuccess(env, self.detector.watch(1))
        return Monitor(FlattenObservation(RescaleAction(env, np.float32(-1), np.float32(1))))


def learner_env(
    config: EnvConfig,
    mode: RewardMode,
    *,
    gamma: float,
    kappa: float,
    seed: int,
    tiers: Tiers | None = None,
    count: int = 1,
    scorer: Scorer | None = None,
    size: int | tuple[int, int] = DEFAULT_SIZE,
    watched: Watched | None = None,
    views: Sequence[str] = (),
    workers: str = "serial",
    timeout: float = 60.0,
    temperature: float | None = None,
    plans: Plans | None = None,
    maker: EnvMaker = plain_env,
) -> LearnedRewardVecEnv:
    """Build `count` environments with flat observations, actions in [-1, 1] and the learned reward.

    From inside out: environment, plans of a diffusion policy, progress or frames for the
    reward, a detector that pays, RescaleAction, FlattenObservation, Monitor (so that logged
    returns are the base reward's), vector environment, reward. `views` are rendered; by default
    those that the models know. A diffusion policy that sees pictures adds its own and decides
    on their size. `workers` is one of `WORKERS`; a process that gives no answer within
    `timeout` seconds ends the run. With a `temperature`, the potential moves as far as the
    scorer is sure (`shaping/trust.py`). `maker` builds each environment alone.

    Raises:
        EnvError: an environment cannot be made, or its process died.
    """
    pays = watched is not None and watched.pays
    views = tuple(views or _views(scorer, watched))
    if plans:
        views, size = plans.spec.rendered(views, size)
    single = SingleEnv(
        config,
        views=views,
        size=size,
        frames=mode.source == "scorer" or watched is not None,
        hold=watched.hold if watched else 0,
        progress=mode.source == "progress",
        tiers=tiers,
        detector=watched if pays else None,
        plans=plans,
        maker=maker,
    )
    makers = [partial(single.make, seed + index) for index in range(count)]
    if workers == "subprocess":
        vector = WorkerVecEnv(makers, timeout=timeout, preload=[__name__], name=config.id)
    else:
        vector = DummyVecEnv(makers)
    vector.seed(seed)
    watch = watched.watch(count, scorer) if watched and not pays else None
    if scorer is not None and temperature:
        scorer = TrustedScorer(scorer, temperature, count)
    if scorer is not None and tiers:
        scorer = TieredScorer(scorer, tiers, count)
    return LearnedRewardVecEnv(vector, mode, gamma=gamma, kappa=kappa, scorer=scorer, watch=watch)


def _views(scorer: Scorer | None, watched: Watched | None) -> tuple[str, ...]:
    """Return the views that the models know; none leaves the choice to the environment."""
    known = scorer.views if scorer is not None else ()
    return tuple(dict.fromkeys((*known, *(watched.model.card.views if watched else ()))))
