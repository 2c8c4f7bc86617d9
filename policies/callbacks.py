"""What happens around Stable-Baselines3's loop: logging, evaluation, checkpoints, Ctrl-C."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.common.policies import BasePolicy

from embodied_reward.training.checkpoint import point, save_checkpoint
from embodied_reward.training.run import Tracker

from .checkpoint import Policy, PolicySpec, save_policy
from .evaluate import Acts, Evaluation, evaluate
from .resume import save_training_state


class TrackerWriter(KVWriter):
    """Send what SB3's logger records to `metrics.jsonl` and TensorBoard, under SB3's tags."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Log one row; keys that SB3 keeps out of TensorBoard are left out."""
        row = {
            key: float(value)
            for key, value in sorted(key_values.items())
            if "tensorboard" not in (key_excluded.get(key) or ())
        }
        self._tracker.log(step, row)

    def close(self) -> None:
        """The tracker belongs to the run, which closes it."""


@dataclass
class Interrupt:
    """Whether Ctrl-C (or SIGTERM) was pressed; a second one interrupts at once."""

    asked: bool = False


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Turn the first Ctrl-C into a flag, so that the run stops where its state is consistent."""
    state = Interrupt()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if state.asked:
            raise KeyboardInterrupt
        state.asked = True

    if threading.current_thread() is not threading.main_thread():
        yield state
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handle) for number in watched}
    try:
        yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# (decisions done, newest evaluation) -> shows them.
Report = Callable[[int, Evaluation | None], None]


# (SB3's policy, its description) -> what acts in the evaluation environment.
Acting = Callable[[BasePolicy, PolicySpec], Acts]


class RunCallback(BaseCallback):
    """Evaluate, save and stop between two updates, where the learner's state is consistent.

    Checkpoints are written when a rollout begins: all earlier transitions are stored and all
    their updates done. For SAC a rollout is one decision, for PPO `n_steps`; a PPO rollout
    that Ctrl-C cuts short is dropped.

    Args:
        env: evaluation environment, unwrapped observations.
        spec: describes the policy for its checkpoints.
        folder: run folder.
        tracker: receives the evaluations.
        interrupt: see `deferred_interrupt`.
        eval_freq: decisions between evaluations; 0 evaluates at the start and the end only.
        eval_episodes: episodes per evaluation; 0 never evaluates, where somebody else does.
        eval_seed: of the first episode, the same at every evaluation.
        best: score of the best checkpoint so far, from a resumed run.
        done: decisions done before, in a resumed run.
        rollouts: finished episodes after which the run ends; 0 has no such end.
        eval_rollouts: finished episodes between evaluations, instead of `eval_freq` decisions.
        finished: episodes finished before, in a resumed run.
        report: see `Report`.
        save_freq: decisions between checkpoints besides those of evaluations; 0 makes none.
        acting: see `Acting`; `Policy` by default.
        write_more: adds files to a checkpoint's `pretrained_model`.
    """

    def __init__(
        self,
        env: gym.Env,
        spec: PolicySpec,
        folder: Path,
        tracker: Tracker,
        interrupt: Interrupt,
        *,
        eval_freq: int,
        eval_episodes: int,
        eval_seed: int,
        best: tuple[float, float] = (-1.0, 0.0),
        done: int = 0,
        rollouts: int = 0,
        eval_rollouts: int = 0,
        finished: int = 0,
        report: Report | None = None,
        save_freq: int = 0,
        acting: Acting | None = None,
        write_more: Callable[[Path], None] | None = None,
    ) -> None:
        super().__init__()
        self._acting, self._write_more = acting or Policy, write_more
        self._env, self._spec, self._folder, self._tracker = env, spec, folder, tracker
        self._interrupt, self._report = interrupt, report
        self._freq, self._episodes, self._seed = eval_freq, eval_episodes, eval_seed
        self._most, self._eval_rollouts = rollouts, eval_rollouts
        self._save_freq, self._saved = save_freq, done
        self.best, self._evaluated, self._start = best, done, done
        self.finished = self._finished_before = self._evaluated_finished = finished
        self.history: dict[int, Evaluation] = {}
        self._counts: dict[str, int] = {}

    @property
    def interrupted(self) -> bool:
        """Whether the run was asked to stop."""
        return self._interrupt.asked

    def _on_step(self) -> bool:
        self._log_rewards(self.locals["infos"], self.locals["dones"])
        self._log_episodes(self.locals["infos"])
        self.finished += int(np.sum(self.locals["dones"]))
        if self._report:
            self._report(self.num_timesteps, self._newest())
        under_way = self.num_timesteps - self._start > self.training_env.num_envs
        if self._interrupt.asked and under_way and not getattr(self.training_env, "replays", False):
            self.model.num_timesteps = self._start
            self._stop()
        return not 0 < self._most <= self.finished

    def _on_rollout_start(self) -> None:
        now = self._start = self.model.num_timesteps
        self._counts, self._finished_before = self._count(), self.finished
        if (now == 0 and not self.history) or self._due(now):
            self._evaluate_and_save(now)
            if getattr(self._env, "one_body", False):
                # There is one robot: evaluating has moved it away from where the learner left it.
                self.model._last_obs = self.training_env.reset()  # type: ignore[assignment]
        elif self._save_freq and now // self._save_freq > self._saved // self._save_freq:
            self._save(now)
        if self._interrupt.asked:
            self._stop()

    def _on_training_end(self) -> None:
        self._counts, self._finished_before = self._count(), self.finished
        if self.model.num_timesteps > self._evaluated:
            self._evaluate_and_save(self.model.num_timesteps)

    def _due(self, now: int) -> bool:
        every, count, last = self._freq, now, self._evaluated
        if self._eval_rollouts:
            every, count, last = self._eval_rollouts, self.finished, self._evaluated_finished
        return every > 0 and count // every > last // every

    def _log_rewards(self, infos: list[dict[str, Any]], dones: np.ndarray) -> None:
        if infos and infos[0].get("potential") is not None:
            record = self.logger.record_mean
            record("reward/potential_mean", float(np.mean([i["potential"] for i in infos])))
            record("reward/shaping_mean", float(np.mean([i["shaping"] for i in infos])))
        learned = getattr(self.training_env, "learned_returns", ())
        if np.any(dones) and learned:
            self.logger.record("rollout/ep_rew_learned_mean", float(np.mean(learned)))

    def _log_episodes(self, infos: list[dict[str, Any]]) -> None:
        """Log the accounts of every episode that ended: `shaping/ledger.py` says what they hold."""
        for info in infos:
            if "episode_reward_ledger" in info:
                row = {f"episode/{k}": v for k, v in info["episode_reward_ledger"].items()}
                run = {f"run/{k}": v for k, v in info.get("run_reward_ledger", {}).items()}
                self._tracker.log(self.num_timesteps, row | run)

    def _count(self) -> dict[str, int]:
        ledger = getattr(self.training_env, "ledger", None)
        return vars(ledger.totals).copy() if ledger is not None else {}

    def _evaluate_and_save(self, step: int) -> None:
        self._evaluated, self._evaluated_finished = step, self.finished
        if not self._episodes:
            self._save(step)
            return
        policy = self._acting(self.model.policy, self._spec)
        result = evaluate(
            policy, self._env, episodes=self._episodes, seed=self._seed, watch=self._leave
        )
        self.history[step] = result
        self._tracker.log(step, {**result.summary(), "eval/rollouts": self.finished})
        score = (result.success_rate, -float(np.mean(result.lengths)))
        better = score >= self.best
        self.best = max(score, self.best)
        self._save(step, best=better)
        if self._report:
            self._report(step, result)

    def _leave(self, index: int, env: gym.Env, info: dict[str, Any], ended: bool) -> None:
        """Stop an evaluation on a robot at once: who asks for that does not wait for its end."""
        if self._interrupt.asked and getattr(self._env, "one_body", False):
            self._stop()

    def _save(self, step: int, *, best: bool = False) -> None:
        self._saved = step

        def write(folder: Path) -> None:
            save_policy(self.model, self._spec, folder)
            if self._write_more:
                self._write_more(folder / "pretrained_model")
            # Counted when the rollout began: a rollout that is dropped does not count.
            extra = {
                "best": list(self.best),
                "ledger": self._counts,
                "finished": self._finished_before,
            }
            save_training_state(self.model, folder, extra)
            if (blend := getattr(self.training_env, "blend", None)) is not None:
                blend.save(folder / "training_state")

        saved = save_checkpoint(self._folder / "checkpoints", step, write)
        if best:
            point(self._folder / "checkpoints", "best", saved.name)

    def save_now(self) -> None:
        """Write a checkpoint of what was learned so far."""
        self._save(self.model.num_timesteps)

    def _stop(self) -> None:
        self._save(self.model.num_timesteps)
        raise KeyboardInterrupt

    def _newest(self) -> Evaluation | None:
        return self.history[max(self.history)] if self.history else None
