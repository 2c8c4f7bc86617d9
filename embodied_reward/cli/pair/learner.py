"""`er rollout --mode=learn`: the simulator's trainer, whose decisions an actor elsewhere makes."""

import dataclasses
import signal
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from embodied_reward import config as configs
from embodied_reward.cli.env_config import EnvConfig
from embodied_reward.cli.pair.config import http_config
from embodied_reward.cli.pair.messages import Body, Terms, encode_policy
from embodied_reward.cli.pair.server import Desk, LearnerApp
from embodied_reward.cli.rollout_finetune import RobotPolicyRun, training_config
from embodied_reward.cli.train_policy import TrainPolicyConfig, checked
from embodied_reward.data import EpisodeSequence
from embodied_reward.errors import ConfigError, EnvError, MissingDependencyError
from embodied_reward.policies.experience import Experience
from embodied_reward.policies.received import ReceivedEpisodes, ReceivingSAC, receiving
from embodied_reward.policies.sac import DemoSAC
from embodied_reward.rewards import RewardModel, load_progress
from embodied_reward.training.run import default_output_dir, prepare_output_dir, save_config
from embodied_reward.training.seeding import seed_everything, set_threads

if TYPE_CHECKING:
    from embodied_reward.cli.rollout import RolloutConfig

LINGER = 60.0
"""Seconds that the final policy is offered for to an actor that does not ask for it."""
_POLL = 0.2


class Described(gym.Env):
    """An actor's robot, as far as a learner knows it; it does not move.

    Args:
        body: its description.
    """

    def __init__(self, body: Body) -> None:
        spaces: dict[str, gym.Space] = {
            key: gym.spaces.Box(-np.inf, np.inf, (count,), np.float32)
            for key, count in body.observation.items()
        }
        self.observation_space = gym.spaces.Dict(spaces)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (len(body.motors),), np.float32)
        self.metadata = {"render_modes": [], "render_fps": body.rate}
        self.task_description = body.task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Refuse: the robot is elsewhere."""
        raise EnvError("the robot is the actor's")

    def step(self, action: Any) -> Any:
        """Refuse: the robot is elsewhere."""
        raise EnvError("the robot is the actor's")


class LearnerRun(RobotPolicyRun):
    """`RobotPolicyRun` that learns from what it is sent, and offers its policy.

    Args:
        config: of the rollout.
        training: what `er train-policy` would be told.
        folder: run folder.
        desk: shared with the server; it has met an actor.
    """

    def __init__(
        self, config: "RolloutConfig", training: TrainPolicyConfig, folder: Path, desk: Desk
    ) -> None:
        assert desk.body is not None
        self._desk, self._body, self._rollout = desk, desk.body, config
        self._boot, self._count, self.final = uuid.uuid4().hex[:8], 0, False
        mode = checked(training)
        # The actor evaluates: it has the robot.
        training = dataclasses.replace(
            training, eval=dataclasses.replace(training.eval, n_episodes=0, freq=0)
        )

        def make(env: EnvConfig, seed: int, **kwargs: Any) -> gym.Env:
            return Described(self._body)

        super().__init__(training, mode, folder, make)
        self.start, self.save_freq = config.policy.path, config.save_freq
        self.motors = self._body.motors

    def offer(self) -> None:
        """Publish the policy as it is now."""
        self._count += 1
        version = f"{self._boot}-{self._count}"
        decisions, episodes = self.model.num_timesteps, self._learned()
        self._desk.publish(
            encode_policy(self.model.policy, version, decisions, episodes, final=self.final),
            version,
        )

    def terms(self) -> Terms:
        """Return what an actor must know."""
        assert self._desk.inbox is not None
        reward = self.config.reward
        return Terms(
            spec=self._spec(),
            gamma=self.policy.gamma,
            mode=self.mode.name,
            kappa=reward.kappa,
            tiers=reward.tiers,
            hysteresis=reward.hysteresis,
            steps=self.config.steps,
            decisions=self._desk.inbox.decisions,
            episodes=len(self._desk.inbox),
        )

    def closing(self) -> str:
        """Return what was learned from, and where it is."""
        return (
            f"learned from {self.model.num_timesteps} decisions of {self._learned()} episodes: "
            f"{self.folder}/checkpoints/last"
        )

    def _learned(self) -> int:
        return int(self.model._episode_num)

    def _environment(
        self, reward: RewardModel | None, episodes: EpisodeSequence | None, seed: int
    ) -> VecEnv:
        return ReceivedEpisodes(**self._body.sizes, wait=self._next)

    def _next(self) -> Experience:
        assert self._desk.inbox is not None
        return self._desk.inbox.wait(self._learned(), lambda: self.callback.interrupted)

    def _between_episodes(self, model: DemoSAC) -> DemoSAC:
        assert isinstance(self.env, ReceivedEpisodes)
        return receiving(model, self.env, self._updated)

    def _updated(self, model: ReceivingSAC) -> None:
        self.offer()


def learn(config: "RolloutConfig") -> int:
    """Serve, learn until the run has its decisions, and let the actor take the last policy."""
    server_class = _server_class()
    folder = prepare_output_dir(_folder(config), resume=config.resume)
    set_threads(config.threads)
    seed_everything(config.seed)
    reward = load_progress(config.reward.path) if config.reward.path else None
    desk = Desk(folder, reward.card.weights_sha256 if reward else "")
    save_config(dataclasses.replace(config, resume=False), folder)
    http = http_config(config.pair)
    with server_class(http, lambda: LearnerApp(desk, http)) as server:
        print(f"learner: {server.url}, {'token' if http.token else 'no token'}", flush=True)
        if not _meet(desk):
            return 130
        return _learn(config, folder, desk)


def _learn(config: "RolloutConfig", folder: Path, desk: Desk) -> int:
    assert desk.body is not None
    training = training_config(config)
    env = dataclasses.replace(
        training.env, id=f"robot/{desk.body.robot}", horizon=desk.body.horizon
    )
    run = LearnerRun(config, dataclasses.replace(training, env=env), folder, desk)
    try:
        done = run.prepare()
        save_config(dataclasses.replace(config, resume=False), folder)
        print(run.opening())
        if done:
            print(f"resuming at decision {done}")
        run.offer()
        desk.terms = run.terms
        print("ready", flush=True)
        run.learn()
        run.final = True
        run.offer()
        desk.fetched.wait(LINGER)
    except KeyboardInterrupt:
        if hasattr(run, "callback"):
            run.callback.save_now()  # raised while no update is under way
        print(f"\nstopped; continue with\n  er rollout --output_dir={folder} --resume=true")
        return 130
    finally:
        run.close()
    print(run.closing())
    return 0


def _meet(desk: Desk) -> bool:
    """Wait for an actor; returns False where the run was stopped before."""
    stopped = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        while not desk.met.wait(_POLL):
            if stopped.is_set():
                return False
    except KeyboardInterrupt:
        return False
    finally:
        signal.signal(signal.SIGTERM, before)
    return True


def check_learner(config: "RolloutConfig") -> None:
    """Raise ConfigError for what a learner cannot do, before it listens."""
    checked(training_config(config))
    if config.reward.blend != "fixed":
        raise ConfigError("an actor/learner pair takes --reward.blend=fixed only")
    if config.success.path:
        raise ConfigError("--success.path belongs to the actor, who sees the pictures")
    http_config(config.pair)


def _folder(config: "RolloutConfig") -> Path:
    if config.output_dir:
        return Path(config.output_dir)
    if config.resume:
        raise ConfigError("--resume=true needs --output_dir=RUN, the folder of the run to continue")
    return default_output_dir("rollout", f"learn_{configs.encode(config.robot)['type']}")


def _server_class() -> Any:
    try:
        from embodied_reward.scoring.transport.listen import AppServer
    except ImportError as error:
        raise MissingDependencyError(
            f"--mode=learn needs the package '{error.name}': pip install 'embodied-reward[serve]'"
        ) from error
    return AppServer
