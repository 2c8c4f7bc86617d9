"""Record what an arm does, and score it as it happens."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from embodied_reward.data import EpisodeRecorder, schema
from embodied_reward.data.journal import Journal
from embodied_reward.envs.robots.arm_env import PROGRESS, ArmEnv, Station
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.types import Float64, Scores, UInt8

LEARNED = "learned."
INTERVENTION = "intervention"


@dataclass(frozen=True)
class Moment:
    """What is shown of one step.

    Attributes:
        episode: from 0.
        step: of the episode.
        frames: view -> UInt8["h w 3"].
        scores: of the reward model; empty without one.
        info: the environment's.
    """

    episode: int
    step: int
    frames: Mapping[str, UInt8]
    scores: Mapping[str, float]
    info: Mapping[str, Any]


Show = Callable[[Moment], None]


class LiveScores:
    """Scores of the running episode, under the names in which they are recorded.

    Args:
        scorer: of one environment; None scores nothing.
    """

    def __init__(self, scorer: StreamScorer | None) -> None:
        self._scorer = scorer

    def begin(self, frames: Mapping[str, UInt8]) -> dict[str, float]:
        """Score the first frames of an episode."""
        if self._scorer is None:
            return {}
        return _known(self._scorer.start([0], self._stacked(frames)))

    def step(self, frames: Mapping[str, UInt8]) -> dict[str, float]:
        """Score the next frames."""
        return {} if self._scorer is None else _known(self._scorer.step(self._stacked(frames)))

    def _stacked(self, frames: Mapping[str, UInt8]) -> dict[str, UInt8]:
        assert self._scorer is not None
        return {v: frames[v][None] for v in self._scorer.views if v in frames}


def _known(scores: Scores) -> dict[str, float]:
    """Return the scores that exist: a model without a success head gives none."""
    named = {
        "potential": scores.potential,
        "success": scores.success,
        "uncertainty": scores.uncertainty,
    }
    return {LEARNED + k: float(v[0]) for k, v in named.items() if np.isfinite(v[0])}


class RecordedEnv(gym.Wrapper):
    """Record every episode of an `ArmEnv`, whoever acts.

    An episode is finished when the environment ends it; one that is left earlier (another
    environment takes the arm, the run ends) is kept and marked as unfinished, unless a person
    discarded it.

    Args:
        env: the arm.
        station: its arm and crew.
        recorder: shared by all environments of the run.
        live: scores what is seen.
        show: is told of every step.
        hold_steps: with them a success does not end the episode; so many rows later it ends.
        facts: kept with every episode.
    """

    one_body = True  # see policies/callbacks.py
    env: ArmEnv

    def __init__(
        self,
        env: ArmEnv,
        station: Station,
        recorder: EpisodeRecorder,
        live: LiveScores,
        show: Show,
        *,
        hold_steps: int = 0,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(env)
        self._station, self._recorder, self._live, self._show = station, recorder, live, show
        self._hold_steps, self._facts = hold_steps, dict(facts or {})
        self._journal = Journal(recorder.folder)
        self._rows: list[dict[str, Any]] = []
        self._scores: dict[str, float] = {}
        self._obs: dict[str, Any] = {}
        self._won, self._over, self._episode, self._left = False, True, 0, 0
        self._held: str | None = None

    @property
    def task_description(self) -> str:
        """The task in words."""
        return self.env.task_description

    def frames(self) -> dict[str, UInt8]:
        """Return the cameras' pictures."""
        return self.env.frames()

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Finish what is left, and begin an episode."""
        self.keep()
        self._obs, info = self.env.reset(**kwargs)
        frames = self.env.frames()
        self._scores = self._live.begin(frames)
        self._won, self._over, self._held = bool(info["is_success"]), False, None
        self._left = self._hold_steps
        self._show(Moment(self._episode, 0, frames, self._scores, info))
        return self._obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Let the policy act for one control period."""
        return self._stepped(lambda: self.env.step(action))

    def step_towards(self, wish: Float64) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Let an operator act for one control period."""
        return self._stepped(lambda: self.env.step_towards(wish))

    def _stepped(self, step: Callable[[], Any]) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self._over:  # held after its end, for a detector of success to see it
            return step()
        row = self._seen()
        self._obs, reward, terminated, truncated, info = step()
        won_before, self._won = self._won, self._won or bool(info["is_success"])
        if self._hold_steps:
            self._left -= won_before
            truncated = truncated or (self._won and self._left <= 0)
        self._over, self._held = bool(terminated or truncated), info.get("held")
        outcome = {
            schema.ACTION: info["executed_action"],
            schema.REWARD: float(reward),
            schema.DONE: self._over,
            schema.SUCCESS: bool(info["is_success"]),
            INTERVENTION: bool(info["intervention"]),
        }
        self._rows.append(row | outcome)
        self._journal.add(self._rows[-1])
        frames = self.env.frames()
        self._scores = self._live.step(frames)
        self._show(Moment(self._episode, len(self._rows), frames, self._scores, info))
        if self._over:
            self._station.arm.rest()
            self.keep()
        return self._obs, reward, terminated, truncated, info

    def close(self) -> None:
        """Keep what was recorded; the arm belongs to the run."""
        self.keep()

    def keep(self) -> None:
        """Write the rows of the episode, whether it is finished or not."""
        if not self._rows:
            return
        if not self._station.crew.discarded:  # type: ignore[attr-defined]
            for row in self._rows:
                self._recorder.add(row)
            finished = {} if self._over else {"unfinished": True}
            held = {"held": self._held} if self._held else {}
            self._recorder.save_episode(
                self.task_description,
                **self._facts,
                success=self._won,
                interventions=sum(row[INTERVENTION] for row in self._rows),
                **held,
                **finished,
            )
        self.discard()

    def discard(self) -> None:
        """Forget the rows of the episode."""
        self._episode += bool(self._rows)
        self._rows = []
        self._journal.clear()

    def _seen(self) -> dict[str, Any]:
        row: dict[str, Any] = {schema.IMAGES + v: frame for v, frame in self.env.frames().items()}
        row[schema.STATE] = self._obs["agent_pos"]
        if "environment_state" in self._obs:
            row[schema.ENVIRONMENT_STATE] = self._obs["environment_state"]
        if PROGRESS in self._station.arm.features.truth:
            row[schema.PROGRESS] = np.float32(self.env.progress())
        return row | {key: np.float32(value) for key, value in self._scores.items()}


def recover(recorder: EpisodeRecorder, task: str) -> int:
    """Make an unfinished episode of the rows that a killed run left; returns how many rows."""
    journal = Journal(recorder.folder)
    rows = journal.recover()
    for row in rows:
        recorder.add(row)
    if rows:
        recorder.save_episode(task, unfinished=True, success=False)
    journal.clear()
    return len(rows)
