r"""`goal_distance`: the distance to the goal as a value function (VIP).

The embedding phi is trained such that V(o; g) = -||phi(o) - phi(g)||_2 is the optimal value of
"reach g, every step before costs 1" (VIP, arXiv:2210.00030, equation 5 and the released loss):

    L = (1 - gamma) mean(-V(o_0; g)) + log(1e-8 + mean exp(-(r + gamma V(o'; g) - V(o; g))))
    r = 1[o = g] - 1,    gamma = 0.98

The potential is the distance read on the scale of the training demonstrations
(`goal_model.py`), averaged over their goal frames.

Deviations: the encoder is trained from scratch; half of the goals are frames of solved states,
which may be another demonstration's, half are later frames of the same one as in the source;
transitions of failed episodes join the negatives (shuffled goals, r = -1); the L1 and L2
penalties on phi are left out. Several cameras are fused before the distance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import ConfigError
from embodied_reward.rewards.base import RewardModelConfig
from embodied_reward.rewards.frame_batches import FrameBatch, FrameDataset, Video, gather, some
from embodied_reward.rewards.goal_model import GoalModel, GoalModelConfig, distances
from embodied_reward.types import Episode, Int64


@RewardModelConfig.register_subclass("goal_distance")
@dataclass(frozen=True)
class GoalDistanceConfig(GoalModelConfig):
    """Configuration of `goal_distance`."""

    frames: int = 16
    """transitions per episode and batch"""
    discount: float = 0.98
    """gamma of the value function, per frame"""
    negatives: float = 1.0
    """weight of the term with shuffled goals and failed episodes"""
    goal_swap: float = 0.5
    """chance that a solved state is taken from another demonstration"""

    def __post_init__(self) -> None:
        """Refuse values that cannot be used. Raises ConfigError."""
        super().__post_init__()
        if not 0 < self.discount < 1:
            raise ConfigError(f"--reward_model.discount={self.discount}: need 0 < gamma < 1")


@dataclass(frozen=True, kw_only=True)
class GoalBatch(FrameBatch):
    """Transitions with goals; every index points into the frames.

    Attributes:
        now: int64 Tensor["p"], o.
        after: int64 Tensor["p"], o' one frame later.
        goal: int64 Tensor["p"], g.
        failed: int64 Tensor["2 q"], o and o' of failed episodes.
        wrong: int64 Tensor["p+q"], a shuffled goal for every transition, failed ones last.
    """

    now: Tensor
    after: Tensor
    goal: Tensor
    failed: Tensor
    wrong: Tensor


def vip_loss(
    initial: Tensor, value: Tensor, after: Tensor, reward: Tensor, discount: float
) -> Tensor:
    """Return the VIP loss of the module docstring.

    Args:
        initial: Tensor["m"], V(o_0; g) of the first frames.
        value: Tensor["p"], V(o; g).
        after: Tensor["p"], V(o'; g).
        reward: Tensor["p"], 0 where o is the goal, else -1.
        discount: gamma.
    """
    return -(1 - discount) * initial.mean() + log_mean_exp(-(reward + discount * after - value))


def log_mean_exp(values: Tensor) -> Tensor:
    """Return log(1e-8 + mean(exp(values))) of Tensor["p"] without overflow."""
    mean = values.logsumexp(0) - np.log(len(values))
    return torch.logaddexp(mean, mean.new_tensor(np.log(1e-8)))


class GoalDataset(FrameDataset):
    """Serves transitions of demonstrations with goals, and transitions of failures."""

    def __init__(
        self,
        episodes: Sequence[Episode],
        *,
        views: Sequence[str],
        size: int,
        frames: int,
        goal_swap: float,
    ) -> None:
        super().__init__(episodes, views=views, size=size)
        self.frames, self.goal_swap = frames, goal_swap

    def batch(self, episodes: int, seed: int, step: int) -> GoalBatch:
        """See the base class."""
        rng = np.random.default_rng((seed, step))
        demos, failures = self.draw(episodes, rng)
        clips = _clips(demos + failures, self.frames, rng)
        good, bad = clips[: len(demos)], clips[len(demos) :]
        ends = np.array([clip.at(clip.solved) for clip in good]).ravel()
        goal = np.concatenate([self._goals(clip, ends, rng) for clip in good])
        # Every transition has two goals, a solved state and a later frame.
        now = [np.tile(clip.at(clip.moving), 2) for clip in good]
        after = [np.tile(clip.at(clip.moving + 1), 2) for clip in good]
        failed = [np.stack([c.at(c.moving), c.at(c.moving + 1)]) for c in bad]
        failed = np.concatenate([np.empty((2, 0), np.int64), *failed], axis=1)
        wrong = np.concatenate([rng.permutation(goal), rng.choice(ends, failed.shape[1])])
        stacked = gather(demos + failures, [clip.frames for clip in clips])
        return GoalBatch(
            **stacked,
            seed=int(rng.integers(2**62)),
            now=torch.from_numpy(np.concatenate(now)),
            after=torch.from_numpy(np.concatenate(after)),
            goal=torch.from_numpy(goal),
            failed=torch.from_numpy(failed),
            wrong=torch.from_numpy(wrong),
        )

    def _goals(self, clip: "_Clip", ends: Int64, rng: np.random.Generator) -> Int64:
        """Return a solved goal for every transition, then a later goal for every transition."""
        count = len(clip.moving)
        swapped = rng.random(count) < self.goal_swap
        solved = np.where(swapped, rng.choice(ends, count), clip.at(clip.solved))
        steps = np.append(clip.moving, clip.solved)
        later = rng.integers(np.arange(1, count + 1), count + 1)
        return np.concatenate([solved, clip.at(steps[later])])


class GoalDistanceModel(GoalModel):
    """VIP-style embedding; see the module docstring."""

    name: ClassVar[str] = "goal_distance"
    config_type = GoalDistanceConfig
    config: GoalDistanceConfig

    def dataset(self, episodes: list[Episode]) -> GoalDataset:
        """See the base class."""
        return GoalDataset(
            episodes,
            views=self.config.views,
            size=self.image_size,
            frames=self.config.frames,
            goal_swap=self.config.goal_swap,
        )

    def objective(self, fused: Tensor, batch: GoalBatch) -> tuple[Tensor, dict[str, float]]:
        """Return the VIP loss plus the term with shuffled goals."""
        phi, gamma = self.projection(fused), self.config.discount
        value, after = (_value(phi, index, batch.goal) for index in (batch.now, batch.after))
        loss = vip_loss(value, value, after, -torch.ones_like(value), gamma)
        now, then = torch.cat([torch.stack([batch.now, batch.after]), batch.failed], 1)
        shuffled = 1 - gamma * _value(phi, then, batch.wrong) + _value(phi, now, batch.wrong)
        total = loss + self.config.negatives * log_mean_exp(shuffled)
        logs = {"vip_loss": loss.item(), "start_value": value.mean().item()}
        return total, logs

    def distance(self, embedding: Tensor, goals: Tensor) -> Tensor:
        """Return the mean Euclidean distance to the goals."""
        return distances(embedding, goals).mean(-1)


@dataclass(frozen=True)
class _Clip:
    """Frames of one episode in a batch: `moving` and their successors, and a solved frame."""

    frames: Int64
    moving: Int64
    solved: Int64  # one frame, none in a failure
    offset: int

    def at(self, frames: Int64) -> Int64:
        """Return where the episode's frames stand in the batch."""
        return self.offset + np.searchsorted(self.frames, frames)


def _clips(videos: list[Video], count: int, rng: np.random.Generator) -> list[_Clip]:
    clips, offset = [], 0
    for video in videos:
        moving = some(np.arange(video.end), count, rng)
        solved = rng.choice(video.goals, 1) if len(video.goals) else video.goals
        frames = np.unique(np.concatenate([moving, moving + 1, solved]))
        clips.append(_Clip(frames, moving, solved, offset))
        offset += len(frames)
    return clips


def _value(phi: Tensor, frame: Tensor, goal: Tensor) -> Tensor:
    """Return V = -||phi(frame) - phi(goal)||; the epsilon keeps the gradient finite at 0."""
    return -(phi[frame] - phi[goal]).square().sum(-1).add(1e-8).sqrt()
