"""Training episodes of `dopamine`, decoded and cut into states."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from embodied_reward.errors import DatasetError
from embodied_reward.math.hops import state_frames
from embodied_reward.math.segmentation import choose_steps, segment
from embodied_reward.types import Episode, Float64, Int64
from embodied_reward.vision.frames import episode_frames

STATES = 24
"""States into which the median demonstration is cut where no chunk is given."""

SHORTEST_STEP = 3
"""Least frames of a discovered step."""


@dataclass(frozen=True)
class Demo:
    """One decoded training episode.

    Attributes:
        frames: uint8 Tensor["t v h w 3"].
        present: bool Tensor["t v"], False where a camera delivers nothing.
        states: Int64["M+1"], frames of the states s_0..s_M; empty for a failed episode.
        goals: Int64["g"], frames that satisfy the task; the last state is drawn from them.
        task: the task in words.
        variant: which variant of the world it was recorded in.
    """

    frames: Tensor
    present: Tensor
    states: Int64
    goals: Int64
    task: str
    variant: int = 0


def decode_demos(
    episodes: Sequence[Episode],
    *,
    views: Sequence[str],
    size: int,
    chunk: int,
    subtasks: str,
    n_subtasks: int,
) -> list[Demo]:
    """Decode episodes and cut the successful ones into states.

    Args:
        episodes: at least one.
        views: cameras, in the model's order.
        size: side of the pictures [px].
        chunk: frames per state; 0 cuts each task's median demonstration into `STATES`.
        subtasks: `auto`, `annotated`, `discovered` or `none`.
        n_subtasks: steps to discover; 0 chooses per task.

    Raises:
        DatasetError: an episode has none of the views, or no annotation where one is asked for.
    """
    decoded = [episode_frames(e, views, size) for e in episodes]
    ends = [_ending(e) for e in episodes]
    keyframes: list[Int64 | None] = [
        _annotated(e, end, subtasks) for e, end in zip(episodes, ends, strict=True)
    ]
    if subtasks in ("auto", "discovered"):
        _discover(episodes, decoded, ends, keyframes, n_subtasks)
    chunks = {
        t: chunk or auto_chunk([e for e in episodes if e.task == t]) for t in _tasks(episodes)
    }
    return [
        _demo(e, frames, present, keys, chunks[e.task])
        for e, (frames, present), keys in zip(episodes, decoded, keyframes, strict=True)
        # Solved from its first frame on: no progress to learn, and no failure either.
        if keys is not None or e.success is False
    ]


def auto_chunk(episodes: Sequence[Episode], states: int = STATES) -> int:
    """Return the frames per state C that cut the median episode into about `states` states."""
    lengths = [len(e) for e in episodes if e.success is not False]
    return max(1, round(float(np.median(lengths or [1])) / states))


def appearance(frames: Tensor, cells: int = 8) -> Float64:
    """Return coarse pictures of all views as features, uint8["t v h w 3"] -> Float64["t d"]."""
    images = frames.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    coarse = F.adaptive_avg_pool2d(images, cells)
    return coarse.reshape(len(frames), -1).double().numpy()


def _tasks(episodes: Sequence[Episode]) -> list[str]:
    return sorted({e.task for e in episodes})


def _solved(episode: Episode) -> Int64:
    if episode.success is False or episode.success_frames is None:
        return np.empty(0, np.int64)
    return np.flatnonzero(episode.success_frames)


def _ending(episode: Episode) -> int:
    """Return the frame that completes the task; 0 where the episode teaches no progress."""
    if episode.success is False:
        return 0
    solved = _solved(episode)
    # A dataset that marks no frame ends where its demonstrator was content: at the last one.
    return int(solved[0]) if len(solved) else len(episode) - 1


def _annotated(episode: Episode, end: int, subtasks: str) -> Int64 | None:
    if end < 1 or subtasks == "discovered":
        return None
    if subtasks == "none" or episode.keyframes is None:
        if subtasks == "annotated":
            raise DatasetError(
                f"{episode.source} has no sub-task annotation (a `subtask_index` column or "
                "subtask_start_frames in meta/episodes); use --reward_model.subtasks=auto"
            )
        return np.array([0, end], np.int64) if subtasks == "none" else None
    inner = episode.keyframes[episode.keyframes < end]
    return np.append(inner, end) if len(inner) else np.array([0, end], np.int64)


def _discover(
    episodes: Sequence[Episode],
    decoded: Sequence[tuple[Tensor, Tensor]],
    ends: Sequence[int],
    keyframes: list[Int64 | None],
    n_subtasks: int,
) -> None:
    """Fill in the keyframes of episodes that lack them, with one number of steps per task."""
    for task in _tasks(episodes):
        rows = [
            i
            for i, e in enumerate(episodes)
            if e.task == task and ends[i] >= 1 and keyframes[i] is None
        ]
        looks = [appearance(decoded[i][0][: ends[i] + 1]) for i in rows]
        if not rows:
            continue
        most = min(len(x) // SHORTEST_STEP for x in looks)
        steps = min(n_subtasks, most) if n_subtasks else choose_steps(looks, shortest=SHORTEST_STEP)
        for i, look in zip(rows, looks, strict=True):
            bounds = segment(look, max(steps, 1), shortest=min(SHORTEST_STEP, len(look)))[0]
            keyframes[i] = np.append(bounds[:-1], ends[i])


def _demo(
    episode: Episode, frames: Tensor, present: Tensor, keyframes: Int64 | None, chunk: int
) -> Demo:
    none = np.empty(0, np.int64)
    if keyframes is None:
        return Demo(frames, present, none, none, episode.task, episode.variant)
    solved = _solved(episode)
    goals = solved if len(solved) else np.array([len(frames) - 1])
    states = state_frames(keyframes, chunk)
    return Demo(frames, present, states, goals, episode.task, episode.variant)
