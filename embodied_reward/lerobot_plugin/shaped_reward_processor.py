"""`er_shaped_reward`: the learned reward as a step of LeRobot's environment pipeline.

    env -> ... -> time limit -> (gripper penalty) -> er_shaped_reward -> batch axis, device

LeRobot's online environments (`lerobot.rl`) put what an environment returns through a pipeline
and train on the pipeline's reward. This step adds kappa (gamma m Phi(s') - Phi(s)), with Phi(s')
masked exactly where `done` cuts the bootstrap and kept where `truncated` does not. It must stand
after every step that ends episodes. Nothing is computed here: a transition is replayed to
`shaping.wrapper.LearnedReward`, whose ledger raises where a shaped return does not telescope.
"""

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DataProcessorPipeline,
    DeviceProcessorStep,
    ProcessorStep,
    ProcessorStepRegistry,
)
from lerobot.teleoperators.utils import TeleopEvents

from embodied_reward import rewards
from embodied_reward.errors import ConfigError
from embodied_reward.lerobot_plugin.frames import read_pictures
from embodied_reward.rewards import SuccessModel
from embodied_reward.rewards.detector import Detector
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.frames import FramesInInfo
from embodied_reward.shaping.watch import DetectedSuccess, SuccessWatch
from embodied_reward.shaping.wrapper import LearnedReward
from embodied_reward.types import UInt8


@dataclass
@ProcessorStepRegistry.register(name="er_shaped_reward")
class ShapedRewardProcessorStep(ProcessorStep):
    """Add the shaping of one of our reward models to the reward of one environment.

    The first transition after `reset()` gives Phi(s0) and keeps its reward. `info` gains
    `env_reward`, `potential`, `previous_potential`, `shaping`, `learned_success` and, at an
    episode's end, its accounts (`shaping/ledger.py`).

    Attributes:
        pretrained_path: run folder or checkpoint of a reward model.
        gamma: the learner's discount per decision, in (0, 1]; `algorithm.discount` in LeRobot.
        mode: one of `shaping.MODES`; the default keeps the best policy.
        kappa: scale of the potential.
        success_path: a success detector that pays 1 and ends the episode, in place of the
            environment's own reward.
        device: torch device of the models.
    """

    pretrained_path: str = ""
    gamma: float = 0.0
    mode: str = "potential"
    kappa: float = 1.0
    success_path: str | None = None
    device: str = "cpu"
    _env: "_Replay" = field(init=False, repr=False)
    _reward: LearnedReward = field(init=False, repr=False)
    _fresh: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        """Load the models. Raises ConfigError, CheckpointError."""
        if not 0 < self.gamma <= 1:
            raise ConfigError(
                f"er_shaped_reward: gamma={self.gamma:g} must be the learner's own discount, in "
                "(0, 1] (LeRobot's SAC: algorithm.discount, 0.99)"
            )
        mode, model = mode_named(self.mode), None
        if mode.source == "progress":
            raise ConfigError(f"mode '{self.mode}' needs a simulator's progress(), not a model")
        if mode.source == "scorer":
            model = rewards.load_progress(self.pretrained_path, device=self.device)
            _require_streaming(model)
        self._env = _Replay(tuple(model.card.views) if model else ())
        env: gym.Env = self._env
        if self.success_path:
            env = self._detector(self.success_path)
        scorer = StreamScorer(model, 1) if model else None
        self._reward = LearnedReward(env, mode, gamma=self.gamma, kappa=self.kappa, scorer=scorer)

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """Return the transition with the shaped reward. Raises NonFiniteError, ShapingError."""
        self._env.show(transition)
        after: Any = transition.copy()
        if self._fresh:
            self._fresh = False
            _, info = self._reward.reset()
        else:
            _, reward, terminated, truncated, info = self._reward.step(None)
            after[TransitionKey.REWARD] = reward
            after[TransitionKey.DONE] = terminated
            after[TransitionKey.TRUNCATED] = truncated
        info.pop("frames", None)
        after[TransitionKey.INFO] = info
        return after

    def reset(self) -> None:
        """Begin a new episode with the next transition."""
        self._fresh = True

    def get_config(self) -> dict[str, Any]:
        """Return what a saved pipeline needs to make the step again."""
        names = ("pretrained_path", "gamma", "mode", "kappa", "success_path", "device")
        return {name: getattr(self, name) for name in names}

    def transform_features(self, features: Any) -> Any:
        """Return the features; observations and actions stay as they are."""
        return features

    def _detector(self, path: str) -> gym.Env:
        model = rewards.load(path, device=self.device)
        if not isinstance(model, SuccessModel):
            raise ConfigError(
                f"er_shaped_reward: success_path '{path}' holds a '{model.name}'; train a detector "
                "with `er train-reward --reward_model.type=success`"
            )
        # Without a fitted threshold: 0.5 over three frames.
        detector = model.calibration.detector if model.calibration else Detector()
        self._env.views = tuple(dict.fromkeys((*self._env.views, *model.card.views)))
        watch = SuccessWatch(detector, StreamScorer(model, 1), 1)
        return DetectedSuccess(FramesInInfo(self._env), watch)


def insert_shaped_reward(
    pipeline: DataProcessorPipeline, step: ShapedRewardProcessorStep
) -> DataProcessorPipeline:
    """Return LeRobot's environment pipeline with the step behind all that ends episodes.

    Args:
        pipeline: what `lerobot.rl.gym_manipulator.make_processors` returns first.
        step: not part of another pipeline, because it holds an episode's state.
    """
    steps = list(pipeline.steps)
    last = (AddBatchDimensionProcessorStep, DeviceProcessorStep)
    while steps and isinstance(steps[-1], last):
        steps.pop()
    return DataProcessorPipeline(
        steps=[*steps, step, *pipeline.steps[len(steps) :]],
        name=pipeline.name,
        to_transition=pipeline.to_transition,
        to_output=pipeline.to_output,
    )


class _Replay(gym.Env):
    """An environment that repeats what a transition says."""

    def __init__(self, views: tuple[str, ...]) -> None:
        self.action_space = self.observation_space = gym.spaces.Discrete(1)
        self.views = views
        self._shown: Any = {}

    def show(self, transition: EnvTransition) -> None:
        """Take the transition that `reset` or `step` and `frames` repeat next."""
        self._shown = transition

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        """Return the info of a first transition."""
        return None, self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Return reward, ends and info of a transition."""
        shown = self._shown
        reward, done, truncated = (
            _number(shown.get(key, 0.0))
            for key in (TransitionKey.REWARD, TransitionKey.DONE, TransitionKey.TRUNCATED)
        )
        return None, reward, bool(done), bool(truncated), self._info()

    def frames(self) -> dict[str, UInt8]:
        """Return the pictures, view -> UInt8["h w 3"]."""
        seen = read_pictures(_batched(self._shown[TransitionKey.OBSERVATION]), self.views)
        if seen.shape[0] != 1:
            raise ConfigError(
                f"er_shaped_reward keeps the episode of one environment, got {seen.shape[0]}; "
                "give every environment a pipeline of its own"
            )
        return {view: frames[0] for view, frames in seen.at(0).items()}

    def _info(self) -> dict[str, Any]:
        info = dict(self._shown.get(TransitionKey.INFO) or {})
        if TeleopEvents.SUCCESS in info:  # the operator's success key
            info.setdefault("is_success", bool(info[TeleopEvents.SUCCESS]))
        return info


def _batched(observation: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.unsqueeze(0) if isinstance(value, torch.Tensor) and value.ndim == 3 else value
        for key, value in observation.items()
    }


def _number(value: Any) -> float:
    return float(np.asarray(value).reshape(-1)[0])


def _require_streaming(model: rewards.RewardModel) -> None:
    if not model.card.streaming:
        raise ConfigError(
            f"'{model.name}' scores whole episodes and cannot shape a reward while they run; take "
            "another method, such as dopamine"
        )
