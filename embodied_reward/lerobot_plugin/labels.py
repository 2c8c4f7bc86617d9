"""What a dataset says of its frames, without decoding a picture: progress, success, time left.

`lerobot-train` hands a model shuffled frames with their numbers; the labels are looked up here.
They are those of `er train-reward`, with one difference: progress between two states of the
step-discretised progress (`math/hops.py`) is interpolated, because any frame can be drawn, while
`er train-reward` draws the states themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embodied_reward.data import open_dataset
from embodied_reward.errors import DatasetError
from embodied_reward.math.hops import state_frames, state_progress
from embodied_reward.rewards.dopamine_demos import auto_chunk
from embodied_reward.rewards.success_batches import goal_frames
from embodied_reward.types import Bool, Episode, Float64, Int64


@dataclass(frozen=True)
class EpisodeFacts:
    """Labels of one episode; every array has one entry per frame.

    Attributes:
        begins: LeRobot's global `index` of its first frame.
        progress: Float64["t"] in [0, 1]; NaN where nobody knows it (failures, undone successes).
        solved: Bool["t"], the frame satisfies the task.
        remaining: Float64["t"], seconds until the first success [s]; NaN for failures.
        task: in words.
        states: number of states M of its discretised progress; 0 for failures.
    """

    begins: int
    progress: Float64
    solved: Bool
    remaining: Float64
    task: str
    states: int

    @property
    def success(self) -> bool:
        """Whether the episode ever satisfies the task."""
        return bool(self.solved.any())


class Facts(Mapping[int, EpisodeFacts]):
    """Labels by LeRobot's `episode_index`.

    Raises:
        DatasetError: no episode is successful.
    """

    def __init__(self, episodes: Mapping[int, EpisodeFacts], where: str) -> None:
        self._episodes = dict(episodes)
        if not any(e.success for e in self._episodes.values()):
            raise DatasetError(
                f"none of the {len(self._episodes)} episodes of '{where}' is successful; progress "
                "is learned from successful demonstrations (collect some with --quality=expert)"
            )

    def __getitem__(self, index: int) -> EpisodeFacts:
        return self._episodes[index]

    def __iter__(self) -> Iterator[int]:
        return iter(self._episodes)

    def __len__(self) -> int:
        return len(self._episodes)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The distinct tasks in words, sorted."""
        return tuple(sorted({e.task for e in self.values()}))

    @property
    def durations(self) -> Float64:
        """Time from start to success of every demonstration that shows progress [s]."""
        starts = np.array([e.remaining[0] for e in self.values() if e.success])
        return starts[starts > 0]


def read_facts(root: Path | str, *, chunk: int = 0, subtasks: str = "auto") -> Facts:
    """Label every frame of a LeRobot dataset; pictures are not decoded.

    Args:
        root: the dataset's folder.
        chunk: frames per state; 0 cuts each task's median demonstration into 24.
        subtasks: `auto` divides progress by the sub-tasks that the dataset marks, `annotated`
            demands such marks, `none` does without.

    Raises:
        DatasetError: it cannot be read, no episode is successful, or marks are missing.
    """
    episodes = open_dataset(root)
    found = list(episodes)
    chunks = {
        task: chunk or auto_chunk([e for e in found if e.task == task]) for task in episodes.tasks
    }
    numbers = [episodes.rows(k) for k in range(len(episodes))]
    return Facts(
        {
            int(rows["episode_index"][0]): _facts(e, rows["index"], chunks[e.task], subtasks)
            for e, rows in zip(found, numbers, strict=True)
        },
        str(root),
    )


def _facts(episode: Episode, index: Int64, chunk: int, subtasks: str) -> EpisodeFacts:
    length = len(episode)
    solved = np.zeros(length, bool)
    goals = goal_frames(episode)
    solved[goals] = True
    progress, remaining, states = np.full(length, np.nan), np.full(length, np.nan), 0
    if len(goals):
        end = int(goals[0])
        remaining = np.where(np.arange(length) <= end, end - np.arange(length), np.nan)
        remaining = np.where(solved, 0.0, remaining) / episode.fps
        progress = np.where(solved, 1.0, np.nan)
        if end:
            at = state_frames(_keyframes(episode, end, subtasks), chunk)
            states = len(at) - 1
            progress[: end + 1] = np.interp(np.arange(end + 1), at, state_progress(len(at)))
            progress[: at[0]] = 0.0
    return EpisodeFacts(int(index[0]), progress, solved, remaining, episode.task, states)


def _keyframes(episode: Episode, end: int, subtasks: str) -> Int64:
    if subtasks == "annotated" and episode.keyframes is None:
        raise DatasetError(
            f"{episode.source} has no sub-task annotation (a `subtask_index` column or "
            "subtask_start_frames in meta/episodes); use --reward_model.config.subtasks=auto"
        )
    marked: Sequence[int] = []
    if subtasks != "none" and episode.keyframes is not None:
        marked = [int(k) for k in episode.keyframes if k < end]
    return np.array([*(marked or [0]), end], np.int64)
