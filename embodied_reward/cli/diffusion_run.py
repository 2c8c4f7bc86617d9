"""One run of `er train-policy --policy.type=diffusion`: clones demonstrations, evaluates, saves."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from embodied_reward import config as configs
from embodied_reward.cli.policy_demos import check_rate, successful_episodes
from embodied_reward.cli.policy_env import DEFAULT_SIZE, plain_env
from embodied_reward.cli.progress_bar import progress_bar
from embodied_reward.cli.success_table import success_table
from embodied_reward.data import EpisodeSequence
from embodied_reward.errors import ConfigError
from embodied_reward.policies.callbacks import deferred_interrupt
from embodied_reward.policies.config import DiffusionConfig
from embodied_reward.policies.diffusion.actor import DiffusionActor, create_actor, spec_for
from embodied_reward.policies.diffusion.cloning import Cloning
from embodied_reward.policies.diffusion.windows import (
    Windows,
    build_windows,
    observed_space,
    statistics,
)
from embodied_reward.policies.evaluate import Evaluation, evaluate
from embodied_reward.rewards import load_progress
from embodied_reward.training.checkpoint import latest, point, save_checkpoint
from embodied_reward.training.run import Tracker, save_config
from embodied_reward.types import Episode, Float64

if TYPE_CHECKING:
    from embodied_reward.cli.train_policy import TrainPolicyConfig

SMALLEST = 64  # [px]; LeRobot's ResNet leaves two by two places of such a picture
LOG_EVERY = 50  # gradient steps whose mean loss is one row


class DiffusionRun:
    """Parts and progress of one cloning run.

    Args:
        config: checked configuration; its policy is a `DiffusionConfig`.
        folder: run folder.
    """

    name = "diffusion"

    def __init__(self, config: "TrainPolicyConfig", folder: Path) -> None:
        assert isinstance(config.policy, DiffusionConfig)
        self.config, self.policy, self.folder = config, config.policy, folder
        self._open = contextlib.ExitStack()
        self.history: dict[int, Evaluation] = {}

    def prepare(self) -> int:
        """Build everything and restore the newest checkpoint; returns gradient steps done.

        Raises:
            ConfigError, DatasetError, EnvError, CheckpointError: before any training.
        """
        config, policy = self.config, self.policy
        episodes = self._episodes()
        size = self._size(episodes)
        self.env = plain_env(
            config.env, config.eval.seed, views=policy.views, size=size, pixels=bool(policy.views)
        )
        self._open.callback(self.env.close)
        check_rate(self.env, episodes[0], config.env)
        windows = self._windows(episodes)
        self.cloning = self._cloning(episodes, windows)
        self._count = (len(episodes), len(windows), int((windows.probability == 0).sum()))
        if found := latest(self.folder / "checkpoints") if config.resume else None:
            self.cloning.load_state(found)
        save_config(replace(config, resume=False), self.folder)
        return self.cloning.done

    def opening(self) -> str:
        """Return what is cloned."""
        episodes, windows, dropped = self._count
        size = sum(p.numel() for p in self.actor.model.parameters())
        text = f"cloning {episodes} episodes, {windows} windows, {size:,} parameters"
        return text + (
            f"; {dropped} windows lose progress and count for nothing" if dropped else ""
        )

    def watching(self) -> str:
        """Nobody watches for success while cloning."""
        return ""

    def learn(self) -> None:
        """Train to `config.steps` gradient steps. Raises KeyboardInterrupt after saving."""
        done, total = self.cloning.done, self.config.steps
        self.tracker = Tracker(self.folder, step=done + 1 if done else 0)
        self._open.callback(self.tracker.close)
        with deferred_interrupt() as interrupt, progress_bar() as bar:
            task = bar.add_task(self._title(), total=total, completed=done)
            losses: list[float] = []
            while self.cloning.done < total:
                losses.append(self.cloning.step())
                now = self.cloning.done
                if now % LOG_EVERY == 0 or self._due(now):
                    self.tracker.log(now, {"train/loss": float(np.mean(losses))})
                    losses.clear()
                if self._due(now):
                    self._evaluate_and_save(now)
                bar.update(task, completed=now, description=self._title())
                if interrupt.asked:
                    self._save(now)
                    raise KeyboardInterrupt

    def closing(self) -> str:
        """Return the final table and the next command."""
        if not self.history:
            return f"nothing left to do: the run has its {self.config.steps} gradient steps"
        lines = [success_table(self.history, "steps"), "", "next:"]
        lines.append(f"  er eval-policy --policy.path={self.folder} --videos=3")
        return "\n".join(lines)

    def close(self) -> None:
        """Close the environment and log files."""
        self._open.close()

    @property
    def actor(self) -> DiffusionActor:
        """The policy that acts and is saved."""
        return self.cloning.actor

    def _episodes(self) -> EpisodeSequence:
        """Return what is learned from."""
        episodes = successful_episodes(self.config.dataset)
        if episodes is None:
            raise ConfigError("--policy.type=diffusion clones: give --dataset.root=DEMOS")
        return episodes

    def _cloning(self, episodes: EpisodeSequence, windows: Windows) -> Cloning:
        """Return the learner, before its first step."""
        policy, action = self.policy, self.env.action_space
        assert isinstance(action, spaces.Box)
        seen = observed_space(self._states(), policy.views)
        sizes = {view: episodes.size(view) for view in policy.views}
        spec = spec_for(policy, seen, action, sizes, self._meta())
        actor = create_actor(spec, statistics(windows, action))
        return Cloning(actor, windows, steps=self.config.steps, seed=self.config.seed)

    def _due(self, now: int) -> bool:
        freq = self.config.eval.freq
        return now == self.config.steps or (freq > 0 and now % freq == 0)

    def _title(self) -> str:
        newest = self.history[max(self.history)] if self.history else None
        return self.name + (f", success {newest.success_rate:.0%}" if newest else "")

    def _evaluate_and_save(self, step: int) -> None:
        given = self.config.eval
        result = evaluate(self.actor, self.env, episodes=given.n_episodes, seed=given.seed)
        self.history[step] = result
        self.tracker.log(step, result.summary())
        score = (result.success_rate, -float(np.mean(result.lengths)))
        better = score >= self.cloning.best
        self.cloning.best = max(score, self.cloning.best)
        self._save(step, best=better)

    def _save(self, step: int, *, best: bool = False) -> None:
        def write(folder: Path) -> None:
            target = folder / "pretrained_model"
            target.mkdir(parents=True)
            self.actor.save(target)
            self.cloning.save_state(folder)

        saved = save_checkpoint(self.folder / "checkpoints", step, write)
        if best:
            point(self.folder / "checkpoints", "best", saved.name)

    def _size(self, episodes: EpisodeSequence) -> int | tuple[int, int]:
        views = self.policy.views
        missing = [view for view in views if view not in episodes.views]
        if missing:
            raise ConfigError(
                f"--policy.views names '{missing[0]}', the demonstrations hold "
                f"{list(episodes.views)}"
            )
        sizes = {episodes.size(view) for view in views}
        if len(sizes) > 1:
            raise ConfigError(f"--policy.views must have one size, the demonstrations' are {sizes}")
        if sizes and min(next(iter(sizes))) < SMALLEST:
            raise ConfigError(
                f"--policy.views needs pictures of at least {SMALLEST} px, the demonstrations' are "
                f"{sizes.pop()}: the vision network halves them five times and would see nothing"
            )
        return sizes.pop() if sizes else DEFAULT_SIZE

    def _states(self) -> spaces.Dict:
        space = self.env.observation_space
        assert isinstance(space, spaces.Dict)
        return space

    def _windows(self, episodes: EpisodeSequence) -> Windows:
        action, policy = self.env.action_space, self.policy
        assert isinstance(action, spaces.Box)
        return build_windows(
            episodes,
            self._states(),
            action,
            views=policy.views,
            n_obs_steps=policy.n_obs_steps,
            horizon=policy.horizon,
            n_action_steps=policy.n_action_steps,
            potential=self._potential(),
        )

    def _potential(self) -> Callable[[Episode], Float64] | None:
        if self.policy.weighting == "uniform":
            return None
        reward = load_progress(str(self.config.reward.path))
        return lambda episode: reward.score_episode(episode).potential

    def _meta(self) -> dict[str, Any]:
        return {
            "env": configs.encode(self.config.env),
            "reward": configs.encode(self.config.reward),
            "dataset": self.config.dataset.label(),
            "task": self.env.task_description,
            "seed": self.config.seed,
        }
