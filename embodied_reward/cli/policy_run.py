"""One run of `er train-policy`: builds the parts, lets them learn, sums up."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from embodied_reward import config as configs
from embodied_reward.cli.policy_blend import blend_line, blend_of, scored, temperature
from embodied_reward.cli.policy_demos import check_rate, successful_episodes
from embodied_reward.cli.policy_env import DEFAULT_SIZE, EnvMaker, learner_env, plain_env
from embodied_reward.cli.policy_finetune import finetuning_of
from embodied_reward.cli.policy_watch import watched
from embodied_reward.cli.progress_bar import progress_bar
from embodied_reward.cli.success_table import success_table
from embodied_reward.data import EpisodeSequence
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.policies.blends.env import BlendCallback, BlendedVecEnv
from embodied_reward.policies.callbacks import RunCallback, TrackerWriter, deferred_interrupt
from embodied_reward.policies.checkpoint import Policy, PolicySpec, spec_of
from embodied_reward.policies.config import PolicyConfig, PPOConfig, SACConfig
from embodied_reward.policies.demos import Transitions, transitions
from embodied_reward.policies.evaluate import Acts, Evaluation
from embodied_reward.policies.ppo import build_ppo
from embodied_reward.policies.resume import load_training_state
from embodied_reward.policies.sac import DemoSAC, build_sac
from embodied_reward.rewards import RewardModel, load_progress
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.shaping import RewardMode
from embodied_reward.shaping.diagnose import potential_warnings
from embodied_reward.shaping.ledger import Totals
from embodied_reward.shaping.tiers import Tiers
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from embodied_reward.training.checkpoint import latest
from embodied_reward.training.decorrelation import BatchWeights
from embodied_reward.training.run import Tracker, save_config
from embodied_reward.types import Episode, Float64

if TYPE_CHECKING:
    from embodied_reward.cli.train_policy import TrainPolicyConfig


class PolicyRun:
    """Parts and progress of one training run.

    Args:
        config: checked configuration; the base reward follows from the mode.
        mode: the reward mode.
        folder: run folder.
        make: builds environments in place of `plain_env`, as on a robot.
    """

    model: BaseAlgorithm
    callback: RunCallback
    demos: Transitions | None  # the demonstrations, where a dataset was given
    policy: PolicyConfig  # with its gamma worked out, where a discount rate was given
    save_freq = 0  # see `RunCallback`

    def __init__(
        self,
        config: "TrainPolicyConfig",
        mode: RewardMode,
        folder: Path,
        make: EnvMaker = plain_env,
    ) -> None:
        env = dataclasses.replace(config.env, reward=mode.base)
        self.config, self.mode, self.folder = dataclasses.replace(config, env=env), mode, folder
        self._make = make
        self._open = contextlib.ExitStack()
        self._best, self._finished = (-1.0, 0.0), 0
        reward = config.reward
        self._tiers = Tiers(reward.tiers, reward.hysteresis) if reward.tiers else None
        self._trajectories: list[Float64] = []
        self._finetuning = finetuning_of(config)

    def prepare(self) -> int:
        """Build everything and restore the newest checkpoint; returns decisions already done.

        Raises:
            ConfigError, DatasetError, EnvError, CheckpointError: before any training.
        """
        config, found = self.config, self._checkpoint()
        reward = load_progress(config.reward.path) if self.mode.source == "scorer" else None  # type: ignore[arg-type]
        if reward is not None and not reward.card.streaming:
            raise ConfigError(
                f"'{config.reward.path}' scores whole episodes only; it cannot shape online"
            )
        self.watched = watched(config, reward)
        self._share(reward)
        cameras = self._finetuning.cameras() if self._finetuning else {}
        self.eval_env = self._make(config.env, config.eval.seed, **cameras)
        self._open.callback(self.eval_env.close)
        if reward is not None and not reward.task:
            # A model of several tasks reads frames against the goals of this environment's task.
            reward.task = self.eval_env.task_description
        self.policy = self._learner(float(self.eval_env.metadata["render_fps"]))
        self._episodes = episodes = successful_episodes(config.dataset)
        self.demos = demos = self._transitions(episodes, reward) if episodes else None
        done = int(found.name) if found else 0
        self.env = self._environment(reward, episodes, _scene_seed(config.seed, done))
        self._open.callback(self.env.close)
        self.blend = blend_of(config, self.policy.gamma, self.env, demos)
        self.model = self._build(demos, cloning=found is None)
        if found:
            state = load_training_state(self.model, found)
            self._best = tuple(state["best"])  # type: ignore[assignment]
            self._finished = state.get("finished", 0)
            if isinstance(self.env, LearnedRewardVecEnv):
                self.env.ledger.totals = Totals(**state.get("ledger", {}))
            self.env.seed(_scene_seed(config.seed, done))
            if self.blend:
                self.blend.load(found / "training_state")
        save_config(dataclasses.replace(config, resume=False), self.folder)
        return done

    def _environment(
        self, reward: RewardModel | None, episodes: EpisodeSequence | None, seed: int
    ) -> VecEnv:
        config = self.config
        return learner_env(
            config.env,
            self.mode,
            gamma=self.policy.gamma,
            kappa=config.reward.kappa,
            tiers=self._tiers,
            seed=seed,
            count=config.n_envs,
            scorer=StreamScorer(reward, config.n_envs) if reward else None,
            size=_picture_size(reward or (self.watched and self.watched.model), episodes),
            watched=self.watched,
            views=config.reward.views,
            workers=config.workers,
            plans=self._finetuning.plans if self._finetuning else None,
            timeout=config.worker_timeout,
            temperature=temperature(config),
            maker=self._make,
        )

    def _share(self, reward: RewardModel | None) -> None:
        """Let all reward models run their image encoders on one core, which closes last."""
        models = [m for m in (reward, self.watched and self.watched.model) if m is not None]
        if models:
            # With worker processes, pictures come from one or two environments at a time.
            views = len(self.config.reward.views or models[0].card.views)
            most = 2 if self.config.workers == "subprocess" else 16
            together = min(most, self.config.n_envs)
            sharing = self.config.cache.shared_by(*models, batch=views * together)
            self._open.enter_context(sharing)

    def opening(self) -> str:
        """Return what the policy learns from, and what about the potential may slow it down."""
        gamma, kappa = self.policy.gamma, self.config.reward.kappa
        lines = potential_warnings(self._trajectories, gamma=gamma, kappa=kappa)
        told = [*blend_line(self.config), *(f"warning: {x}" for x in lines)]
        return "\n".join([self.mode.summary(gamma, kappa), *told])

    def learn(self) -> None:
        """Train to `config.steps` decisions. Raises KeyboardInterrupt after saving."""
        config, done = self.config, self.model.num_timesteps
        tracker = Tracker(self.folder, step=done + 1 if done else 0)
        self._open.callback(tracker.close)
        self.model.set_logger(Logger(None, [TrackerWriter(tracker)]))
        with deferred_interrupt() as interrupt, progress_bar() as bar:
            task = bar.add_task(self._title(None), total=config.steps, completed=done)

            def report(step: int, newest: Evaluation | None) -> None:
                bar.update(task, completed=step, description=self._title(newest))

            self.callback = RunCallback(
                self.eval_env,
                self._spec(),
                self.folder,
                tracker,
                interrupt,
                eval_freq=config.eval.freq,
                eval_episodes=config.eval.n_episodes,
                eval_seed=config.eval.seed,
                best=self._best,
                done=done,
                rollouts=config.rollouts,
                eval_rollouts=config.eval.rollouts,
                finished=self._finished,
                report=report,
                save_freq=self.save_freq,
                acting=self._finetuning.acting if self._finetuning else None,
                write_more=self._finetuning.write_more if self._finetuning else None,
            )
            left = 0 if 0 < config.rollouts <= self._finished else config.steps - done
            callbacks = [BlendCallback(self.blend)] if self.blend else []
            if left > 0:
                # SB3 counts episodes for SAC and rollouts for PPO.
                every = 1 if isinstance(self.policy, PPOConfig) else 4
                self.model.learn(
                    left,
                    [*callbacks, self.callback],
                    log_interval=every,
                    reset_num_timesteps=not done,
                )

    def acting(self) -> Acts:
        """Return what acts in the environment with the present parameters."""
        spec = self._spec()
        make = self._finetuning.acting if self._finetuning else Policy
        return make(self.model.policy, spec)

    def closing(self) -> str:
        """Return the final table and the next command."""
        history = self.callback.history
        if not history:
            return f"nothing left to do: the run has its {self.model.num_timesteps} decisions"
        lines = [success_table(history, "decisions")]
        reward = f" --reward.path={self.config.reward.path}" if self.config.reward.path else ""
        lines += ["", "next:", f"  er eval-policy --policy.path={self.folder}{reward} --videos=3"]
        return "\n".join(lines)

    def watching(self) -> str:
        """Return the line that says who watches for success, empty where nobody does."""
        if self.watched is None:
            return ""
        fitted = self.watched.model.card.extra.get("calibration")
        rule = self.watched.detector
        told = f"success >= {rule.threshold:.4g} for {rule.persistence} frames"
        told += "" if fitted else " (not calibrated)"
        if self.watched.pays:
            return (
                f"base reward: 1 when the detector says {told}. This is NOT the simulator's truth; "
                "episode/true_success and eval/ still are"
            )
        return f"watching, paying nothing: {told}"

    def close(self) -> None:
        """Close environments and log files."""
        self._open.close()

    def _title(self, newest: Evaluation | None) -> str:
        success = f", success {newest.success_rate:.0%}" if newest else ""
        method = self.config.finetune.type if self._finetuning else self.config.policy.type
        return f"{method} {self.mode.name}{success}"

    def _checkpoint(self) -> Path | None:
        return latest(self.folder / "checkpoints") if self.config.resume else None

    def _spec(self) -> PolicySpec:
        config, env = self.config, self.eval_env
        meta = {
            "env": configs.encode(config.env),
            "reward": configs.encode(config.reward),
            "dataset": config.dataset.label(),
            "task": env.task_description,
            "seed": config.seed,
        }
        if self._finetuning:
            meta |= self._finetuning.meta()
            seen = spaces.Dict({"steering": self.env.observation_space})
            return spec_of(self.policy, (seen, self.env.action_space), meta)  # type: ignore[arg-type]
        return spec_of(self.policy, (env.observation_space, env.action_space), meta)  # type: ignore[arg-type]

    def _learner(self, rate: float) -> PolicyConfig:
        """Return the agent's configuration, its discount per decision worked out."""
        return (
            self._finetuning.agent(rate) if self._finetuning else self.config.policy.at_rate(rate)
        )

    def _build(self, demos: Transitions | None, *, cloning: bool) -> BaseAlgorithm:
        policy, seed = self.policy, self.config.seed
        env = BlendedVecEnv(self.env, self.blend) if self.blend else self.env
        if self._finetuning:
            shown = (self._episodes, self.eval_env) if self._episodes else None
            model = self._finetuning.build(
                policy, env, relabel=self._relabel, seed=seed, demos=shown
            )
        elif isinstance(policy, PPOConfig):
            model = build_ppo(policy, env, demos=demos, seed=seed, cloning=cloning)
        else:
            assert isinstance(policy, SACConfig)
            model = self._build_sac(policy, env, demos, cloning=cloning)
        if isinstance(model, DemoSAC) and self.blend and self.blend.bonuses:
            model.replay_buffer.bonus = self.blend.bonus
        return model

    def _build_sac(
        self, policy: SACConfig, env: VecEnv, demos: Transitions | None, *, cloning: bool
    ) -> DemoSAC:
        return build_sac(
            policy,
            env,
            demos=demos,
            # The demonstrations hold success, not the environment's dense reward.
            replay_demos=self.mode.base == "success",
            relabel=self._relabel,
            seed=self.config.seed,
            cloning=cloning,
            sample_weights=self._sample_weights(demos),
        )

    def _sample_weights(self, demos: Transitions | None) -> BatchWeights | None:
        """Return what weighs transitions by variant: the environments' numbers, or data sets."""
        config = self.config.decorrelation
        if not config.on:
            return None
        recorded = 1 if demos is None else int(demos.variant.max()) + 1
        count = max(recorded, self._variants())
        return BatchWeights(config, variants=count, seed=self.config.seed)

    def _variants(self) -> int:
        """Return how many variants the environments draw from; 1 where nothing varies."""
        varied = self.config.env.variation
        if not varied.levels or varied.variant >= 0:
            return 1
        if varied.variants < 1 and self.config.decorrelation.type == "sgfd":
            raise ConfigError(
                "--decorrelation.type=sgfd needs a known number of training variants: set "
                "--env.variation.variants=N, or use --decorrelation.type=stablenet"
            )
        return max(varied.variants, 1)

    def _relabel(self, base: Any, phi: Any, phi_next: Any, terminated: Any) -> Any:
        gamma, kappa = self.policy.gamma, self.config.reward.kappa
        weight = self.blend.weight if self.blend else 1.0
        if self.blend and self.blend.maps:
            phi, phi_next = self.blend.potential(phi), self.blend.potential(phi_next)
        added = self.mode.added(phi, phi_next, terminated, gamma, kappa)
        return self.mode.paid(base) + weight * added

    def _transitions(
        self, episodes: EpisodeSequence, reward: RewardModel | None
    ) -> Transitions | None:
        check_rate(self.eval_env, episodes[0], self.config.env)
        if self._finetuning:
            return None  # its agent decides once per plan, and takes demonstrations as windows
        observation, action = self.eval_env.observation_space, self.eval_env.action_space
        return transitions(episodes, observation, action, self._potential(reward))  # type: ignore[arg-type]

    def _potential(self, reward: RewardModel | None) -> Callable[[Episode], Float64] | None:
        if self.mode.source == "none":
            return None

        def potential(episode: Episode) -> Float64:
            phi = scored(self.config, reward, episode) if reward else _true_progress(episode)
            phi = self._tiers.trajectory(phi) if self._tiers else phi
            self._trajectories.append(phi)
            return phi

        return potential


def _picture_size(
    reward: RewardModel | None, episodes: EpisodeSequence | None
) -> int | tuple[int, int]:
    """Return the demonstrations' picture size, so that one scene looks the same in both."""
    if reward is None:
        return DEFAULT_SIZE
    view = reward.card.views[0]
    if episodes is not None and view in episodes.views:
        return episodes.size(view)
    return reward.card.image_size, reward.card.image_size


def _true_progress(episode: Episode) -> Float64:
    if episode.progress is None:
        raise DatasetError(
            f"{episode.source} holds no true progress, which --reward.mode=oracle needs"
        )
    return np.asarray(episode.progress, np.float64)


def _scene_seed(seed: int, done: int) -> int:
    """Return the seed of the environments: another one where a run is resumed."""
    return seed if done == 0 else int(np.random.SeedSequence([seed, done]).generate_state(1)[0])
