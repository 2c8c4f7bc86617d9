"""Fine-tuning on a robot: `er train-policy`'s own run, on one arm that it shares with nobody."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from embodied_reward.cli.env_config import EnvConfig
from embodied_reward.cli.policy_demos import ROBOT
from embodied_reward.cli.policy_env import EnvMaker
from embodied_reward.cli.policy_run import PolicyRun
from embodied_reward.cli.train_policy import TrainPolicyConfig
from embodied_reward.data import EpisodeSequence
from embodied_reward.errors import ConfigError
from embodied_reward.policies.checkpoint import (
    PolicySpec,
    load_policy,
    load_weights,
    pretrained_folder,
)
from embodied_reward.policies.config import PolicyConfig, SACConfig
from embodied_reward.policies.demos import Transitions
from embodied_reward.policies.episodic import between_episodes
from embodied_reward.policies.sac import DemoSAC
from embodied_reward.rewards import RewardModel
from embodied_reward.shaping import RewardMode

if TYPE_CHECKING:
    from embodied_reward.cli.rollout import RolloutConfig
    from embodied_reward.cli.rollout_run import Session


_STILL = 0.01  # of a motor's range: less is no motion


class RobotPolicyRun(PolicyRun):
    """`PolicyRun` of a robot's policy, whose updates come between episodes.

    Attributes:
        start: the policy that it starts from, in place of a clone.
        motors: those that an action moves.
    """

    start: str | None = None
    motors: tuple[str, ...] = ()

    def _spec(self) -> PolicySpec:
        spec = super()._spec()
        rate = float(self.eval_env.metadata["render_fps"])
        moves = {"motors": list(self.motors), "rate_hz": rate}
        return dataclasses.replace(spec, meta={**spec.meta, **moves})

    def _build(self, demos: Transitions | None, *, cloning: bool) -> BaseAlgorithm:
        start = self.start if cloning else None  # a resumed run restores its own weights
        model = super()._build(demos, cloning=cloning and start is None)
        assert isinstance(model, DemoSAC)
        if start:
            load_weights(model.policy, pretrained_folder(Path(start)))
            model.warm_start = True
        return self._between_episodes(model)

    def _between_episodes(self, model: DemoSAC) -> DemoSAC:
        return between_episodes(model)


class ArmPolicyRun(RobotPolicyRun):
    """`RobotPolicyRun` whose environments are one arm.

    Args:
        config: of the training.
        mode: the reward mode.
        session: robot, crew and recorder.
    """

    def __init__(self, config: TrainPolicyConfig, mode: RewardMode, session: "Session") -> None:
        super().__init__(config, mode, session.folder, env_maker(session))
        self._session, self.start = session, session.config.policy.path
        self.save_freq = session.config.save_freq
        self.motors = session.moved

    def _transitions(
        self, episodes: EpisodeSequence, reward: RewardModel | None
    ) -> Transitions | None:
        unmoved = self._unmoved(episodes)
        if unmoved:
            print(
                f"warning: the demonstrations never move {unmoved}, which the policy may; leave "
                "them out with --motors=..., here and when recording"
            )
        return super()._transitions(episodes, reward)

    def _unmoved(self, episodes: EpisodeSequence) -> list[str]:
        """Return the motors that an action moves and no demonstration does."""
        states = [e.state for e in episodes if e.state is not None]
        if not states:
            return []
        limits, pose = self._session.arm.limits, np.concatenate(states)
        still = np.ptp(pose, axis=0) < _STILL * (limits.high - limits.low)
        return [m for m in self.motors if still[limits.motors.index(m)]]

    def closing(self) -> str:
        """Return the final table and the next command."""
        table, _, _ = super().closing().partition("\n\nnext:")
        words = f"--config_path={self.folder}/config.yaml --mode=evaluate"
        words += f" --policy.path={self.folder} --episodes=20"
        return f"{table}\n\nnext:\n  er rollout {words} --output_dir={self.folder}_evaluated"


def env_maker(session: "Session") -> EnvMaker:
    """Return what makes a session's environments for a trainer."""

    def make(env: EnvConfig, seed: int, **kwargs: Any) -> Any:
        # A robot gives the pictures of all its cameras, in their own size.
        return session.env(seed=seed, terminate_on_success=kwargs.get("terminate_on_success", True))

    return make


def training_config(config: "RolloutConfig") -> TrainPolicyConfig:
    """Return what `er train-policy` would be told."""
    return TrainPolicyConfig(
        env=EnvConfig(id=f"{ROBOT}{config.robot.type}", horizon=config.horizon),
        policy=learner_of(config),
        reward=config.reward,
        success=config.success,
        dataset=config.dataset,
        eval=dataclasses.replace(config.eval),
        cache=config.cache,
        steps=config.steps,
        seed=config.seed,
        threads=config.threads,
        output_dir=config.output_dir,
        resume=config.resume,
    )


def learner_of(config: "RolloutConfig") -> PolicyConfig:
    """Return the learner's settings: those of the policy that it starts from, where there is one.

    Raises:
        ConfigError: that policy is of another kind, or other settings were given for its networks.
    """
    if not config.policy.path:
        return config.learner
    saved = load_policy(config.policy.path).spec.config
    if not isinstance(saved, SACConfig):
        raise ConfigError(
            f"'{config.policy.path}' is a policy of type '{saved.type}'; a robot fine-tunes sac"
        )
    return saved if config.learner == SACConfig() else config.learner
