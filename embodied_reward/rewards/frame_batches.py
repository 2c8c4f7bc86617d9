"""Decoded episodes and training batches of frames; a batch is a function of (seed, step)."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import DatasetError
from embodied_reward.types import Episode, Int64
from embodied_reward.vision.frames import decode_all


@dataclass(frozen=True)
class Video:
    """One decoded training episode.

    Attributes:
        frames: uint8 Tensor["t v h w 3"].
        present: bool Tensor["t v"], which camera shows something.
        end: the first frame that satisfies the task; the last frame of a failure.
        goals: Int64["g"], frames that satisfy the task; empty for a failure.
        fps: frames per second [Hz].
        variant: which variant of the world it was recorded in.
    """

    frames: Tensor
    present: Tensor
    end: int
    goals: Int64
    fps: float
    variant: int = 0

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, kw_only=True)
class FrameBatch:
    """What every method's batch holds.

    Attributes:
        frames: uint8 Tensor["n v h w 3"].
        present: bool Tensor["n v"], which camera shows something.
        success: float32 Tensor["n"], 1 where the frame satisfies the task.
        variant: int64 Tensor["n"], which variant of the world shows in the frame.
        seed: of augmentation and dropout.
    """

    frames: Tensor
    present: Tensor
    success: Tensor
    variant: Tensor
    seed: int


class FrameDataset(abc.ABC):
    """Decoded episodes that serve batches.

    Attributes:
        demos: successful episodes; progress is learned from these.
        failures: failed episodes; nobody knows their progress.

    Raises:
        DatasetError: no episode is successful, or one has none of the views.
    """

    def __init__(self, episodes: Sequence[Episode], *, views: Sequence[str], size: int) -> None:
        decoded = decode_all(episodes, views, size)
        videos = [video_of(e, *pair) for e, pair in zip(episodes, decoded, strict=True)]
        # An episode that is solved from its first frame on shows no progress.
        self.demos = [v for v in videos if len(v.goals) and v.end > 0]
        self.failures = [v for v in videos if not len(v.goals)]
        if not self.demos:
            raise DatasetError(
                f"none of the {len(episodes)} training episodes is successful; progress is learned "
                "from successful demonstrations (collect some with --quality=expert)"
            )

    @abc.abstractmethod
    def batch(self, episodes: int, seed: int, step: int) -> FrameBatch:
        """Return batch number `step` with `episodes` demonstrations, the same every time."""

    def draw(self, episodes: int, rng: np.random.Generator) -> tuple[list[Video], list[Video]]:
        """Draw demonstrations, and one failure for every four of them where there are any."""
        demos = _choose(self.demos, episodes, rng)
        failed = max(1, episodes // 4) if self.failures else 0
        return demos, _choose(self.failures, failed, rng) if failed else []

    def references(self, count: int) -> tuple[Tensor, Tensor]:
        """Return start and goal frames of up to `count` demos, each uint8 Tensor["k v h w 3"]."""
        picks = np.unique(np.linspace(0, len(self.demos) - 1, count).round().astype(int))
        chosen = [self.demos[i] for i in picks]
        goals = [v.frames[v.goals[len(v.goals) // 2]] for v in chosen]
        return torch.stack([v.frames[0] for v in chosen]), torch.stack(goals)


def gather(videos: Sequence[Video], chosen: Sequence[Int64]) -> dict[str, Tensor]:
    """Stack the chosen frames of every video: what every batch holds but for the seed."""
    pairs = list(zip(videos, chosen, strict=True))
    success = np.concatenate([np.isin(at, v.goals) for v, at in pairs])
    variant = np.concatenate([np.full(len(at), v.variant) for v, at in pairs])
    return {
        "frames": torch.cat([v.frames[torch.from_numpy(at)] for v, at in pairs]),
        "present": torch.cat([v.present[torch.from_numpy(at)] for v, at in pairs]),
        "success": torch.from_numpy(success).float(),
        "variant": torch.from_numpy(variant),
    }


def some(frames: Int64, count: int, rng: np.random.Generator) -> Int64:
    """Draw up to `count` of the frames without replacement, in order of time."""
    return np.sort(rng.choice(frames, min(count, len(frames)), replace=False))


def _choose(videos: list[Video], count: int, rng: np.random.Generator) -> list[Video]:
    picks = rng.choice(len(videos), count, replace=len(videos) < count)
    return [videos[i] for i in picks]


def video_of(episode: Episode, frames: Tensor, present: Tensor) -> Video:
    """Return a decoded episode: uint8 Tensor["t v h w 3"] and bool Tensor["t v"]."""
    last = len(frames) - 1
    if episode.success is False:
        none = np.empty(0, np.int64)
        return Video(frames, present, last, none, episode.fps, episode.variant)
    known = episode.success_frames
    solved = np.flatnonzero(known) if known is not None else np.empty(0, np.int64)
    # A dataset that marks no frame ends where its demonstrator was content: at the last one.
    goals = solved if len(solved) else np.array([last])
    return Video(frames, present, int(goals[0]), goals, episode.fps, episode.variant)
