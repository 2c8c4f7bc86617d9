"""Losses of our methods on the batches of LeRobot's loader.

The pictures are LeRobot's; labels are looked up by their numbers (`labels.py`). `lerobot-train`
tells a model neither the step nor `--dataset.episodes`, so randomness is drawn from torch's
generator, which LeRobot seeds and restores, and reference pictures are kept as they come by.
"""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import ConfigError
from embodied_reward.lerobot_plugin.batches import (
    Clip,
    Stack,
    clips_of,
    hop_batch,
    success_batch,
    time_batch,
)
from embodied_reward.lerobot_plugin.configuration_er import ErConfig
from embodied_reward.lerobot_plugin.frames import read_pictures
from embodied_reward.lerobot_plugin.labels import Facts, read_facts
from embodied_reward.rewards import (
    DopamineModel,
    RemainingTimeModel,
    RewardModel,
    SuccessModel,
)
from embodied_reward.rewards.dopamine_assembly import BatchSettings
from embodied_reward.vision.frames import stack_views

Loss = tuple[Tensor, dict[str, Any]]


class Learner(abc.ABC):
    """Turns batches of LeRobot's loader into losses of one model.

    Args:
        model: the model that learns.
        config: LeRobot's configuration of it.
        facts: labels of the data set.
    """

    def __init__(self, model: Any, config: ErConfig, facts: Facts) -> None:
        self.model, self.config, self.facts = model, config, facts
        self.deltas = config.observation_delta_indices

    def loss(self, batch: Mapping[str, Any]) -> Loss:
        """Return the loss of one batch, and numbers for the log."""
        pictures = read_pictures(batch, self.model.config.views)
        if not pictures.window or pictures.shape[1] != len(self.deltas):
            raise ConfigError(
                f"training needs {len(self.deltas)} frames per sample, at the offsets "
                f"{self.deltas}; the batch has {pictures.shape[1]}"
            )
        frames, present = stack_views(
            pictures.flat(), self.model.config.views, self.model.image_size
        )
        rng = np.random.default_rng(int(torch.randint(2**62, (1,))))
        clips = clips_of(batch, self.facts, self.deltas)
        found = self.method_batch(Stack(frames, present), clips, rng)
        if found is None:
            # Nothing to learn from; a zero that every parameter takes part in suits all trainers.
            parts = [p.sum() for p in self.model.parameters() if p.requires_grad]
            return torch.stack(parts).sum() * 0.0, {"empty_batch": 1.0}
        loss, logs = self.model.loss(found)
        return loss, {key: value for key, value in logs.items() if key != "loss"}

    @abc.abstractmethod
    def method_batch(self, stack: Stack, clips: list[Clip], rng: np.random.Generator) -> Any:
        """Return what the model's `loss` takes; None where the batch can teach nothing."""

    def publish(self) -> Callable[[], None]:
        """Give the model what scoring needs besides weights; returns what takes it back again."""
        return _nothing


@dataclass(frozen=True)
class Reference:
    """Start and goal of one demonstration, uint8 Tensor["v s s 3"] each."""

    task: str
    start: Tensor
    goal: Tensor


class HopLearner(Learner):
    """Teaches `dopamine`; keeps the first and a solved frame of some demonstrations per task."""

    model: DopamineModel

    def __init__(self, model: DopamineModel, config: ErConfig, facts: Facts) -> None:
        super().__init__(model, config, facts)
        c = model.config
        self.settings = BatchSettings(
            sampler=c.sampler(),
            reference_swap=c.reference_swap,
            mismatch=c.mismatch,
            reverse=c.reverse,
            failure_margin=c.failure_margin,
            heads=c.heads,
        )
        self._seen: dict[int, Reference] = {}
        self._published = 0

    def method_batch(self, stack: Stack, clips: list[Clip], rng: np.random.Generator) -> Any:
        """See the base class."""
        for clip in clips:
            self._keep(stack, clip)
        return hop_batch(stack, clips, self.settings, rng)

    def references(self, count: int) -> tuple[Tensor, Tensor, list[str]]:
        """Return what was kept, as `HopDataset.references` does."""
        kept = sorted(self._seen.values(), key=lambda entry: entry.task)
        start = torch.stack([entry.start for entry in kept])
        return start, torch.stack([entry.goal for entry in kept]), [entry.task for entry in kept]

    def publish(self) -> Callable[[], None]:
        """See the base class."""
        if len(self._seen) == self._published:
            return _nothing
        model, before = self.model, self._published
        old = model.reference_start, model.reference_goal, model.reference_tasks
        model.set_references(self)  # type: ignore[arg-type]
        self._published = len(self._seen)

        def undo() -> None:
            model.reference_start, model.reference_goal, model.reference_tasks = old
            self._published = before

        # Buffers of another size on one process alone would stop distributed training.
        return undo if torch.distributed.is_initialized() else _nothing

    def _keep(self, stack: Stack, clip: Clip) -> None:
        facts = clip.facts
        goals = np.flatnonzero(facts.solved[clip.at])
        mine = [entry for entry in self._seen.values() if entry.task == facts.task]
        full = len(mine) >= self.model.config.references
        if clip.episode in self._seen or full or not facts.states or not len(goals):
            return
        goal = goals[len(goals) // 2]
        self._seen[clip.episode] = Reference(
            facts.task,
            stack.frames[int(clip.rows[0])].clone(),
            stack.frames[int(clip.rows[goal])].clone(),
        )


class TimeLearner(Learner):
    """Teaches `remaining_time`; its horizon is that of all demonstrations of the data set."""

    def __init__(self, model: RemainingTimeModel, config: ErConfig, facts: Facts) -> None:
        super().__init__(model, config, facts)
        if not torch.isfinite(model.horizon):
            model.set_references(self)

    def durations(self) -> np.ndarray:
        """Return the time from start to success of every demonstration [s]."""
        return self.facts.durations

    def method_batch(self, stack: Stack, clips: list[Clip], rng: np.random.Generator) -> Any:
        """See the base class."""
        return time_batch(stack, clips, rng)


class SuccessLearner(Learner):
    """Teaches `success`."""

    def method_batch(self, stack: Stack, clips: list[Clip], rng: np.random.Generator) -> Any:
        """See the base class."""
        return success_batch(stack, clips, self.model.config.task, rng)


LEARNERS: dict[type[RewardModel], type[Learner]] = {
    DopamineModel: HopLearner,
    RemainingTimeModel: TimeLearner,
    SuccessModel: SuccessLearner,
}


def learner_for(model: RewardModel, config: ErConfig, dataset_meta: Any) -> Learner | None:
    """Return the learner of a model; None for a method that `lerobot-train` cannot train.

    Raises:
        ConfigError: `subtasks=discovered`, which needs all pictures before training begins.
        DatasetError: the data set cannot be read, or shows no success.
    """
    kind = LEARNERS.get(type(model))
    if kind is None:
        return None
    chunk, subtasks = 0, "none"
    if isinstance(model, DopamineModel):
        chunk, subtasks = model.config.chunk, model.config.subtasks
        if subtasks == "discovered":
            raise ConfigError(
                "--reward_model.config.subtasks=discovered needs every picture before training "
                "begins: use `er train-reward`, or auto, annotated or none"
            )
    facts = read_facts(Path(dataset_meta.root), chunk=chunk, subtasks=subtasks)
    return kind(model, config, facts)


def _nothing() -> None:
    """Take nothing back."""
