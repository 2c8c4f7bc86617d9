"""What every training loop shares: schedule, guarded steps, progress bar, checkpoint on Ctrl-C."""

import abc
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from embodied_reward.errors import NonFiniteError
from embodied_reward.training.run import Tracker


@dataclass(frozen=True)
class LoopConfig:
    """How a model is optimised."""

    steps: int = 500
    """gradient steps"""
    batch_size: int = 64
    """examples per batch"""
    lr: float = 1e-3
    """peak learning rate of AdamW, after warm-up, before the cosine decay"""
    weight_decay: float = 1e-2
    """decoupled weight decay"""
    warmup: int = 20
    """steps of linear warm-up"""
    grad_clip: float = 1.0
    """largest global gradient norm"""
    val_freq: int = 100
    """steps between validations"""
    save_freq: int = 500
    """steps between checkpoints"""
    log_freq: int = 10
    """steps between rows of metrics.jsonl"""


class TrainingLoop(abc.ABC):
    """Base of the loops; a subclass says what a step, a validation and a checkpoint are.

    Args:
        config: optimisation settings.
        folder: the run folder.
        seed: every batch is a function of (seed, step).
    """

    verb: ClassVar[str]
    advice: ClassVar[str] = "Lower --lr"
    """what to do about a loss that is not finite"""
    optimizer: torch.optim.Optimizer

    def __init__(self, config: LoopConfig, folder: Path, seed: int) -> None:
        self.config, self.folder, self.seed = config, folder, seed
        self.step: int = 0

    @property
    def checkpoints(self) -> Path:
        """Return the folder of checkpoints."""
        return self.folder / "checkpoints"

    def train(self, *, progress: bool = True) -> None:
        """Train to `config.steps`; a checkpoint is written at the end and when interrupted.

        Raises:
            NonFiniteError: a loss or gradient is not finite; the model is left unchanged.
        """
        tracker = Tracker(self.folder, step=self.step + 1)
        bar = tqdm(
            total=self.config.steps, initial=self.step, unit="step", disable=not progress,
            desc=self.verb,
        )  # fmt: skip
        try:
            while self.step < self.config.steps:
                self._one_step(tracker, bar)
        except KeyboardInterrupt:
            self.save()
            raise
        finally:
            tracker.close()
            bar.close()
        self.save()

    def _one_step(self, tracker: Tracker, bar: tqdm) -> None:
        logs = self.update()
        bar.update()
        if self.step % self.config.log_freq == 0:
            tracker.log(self.step, {f"train/{k}": v for k, v in logs.items()})
            bar.set_postfix({"loss": f"{logs['loss']:.3f}", **self.postfix()})
        last = self.step == self.config.steps
        if self.step % self.config.val_freq == 0 or last:
            self.validate(tracker)
        if self.step % self.config.save_freq == 0 and not last:
            self.save()

    @abc.abstractmethod
    def update(self) -> dict[str, float]:
        """Take one gradient step and return its logs, `loss` among them."""

    @abc.abstractmethod
    def validate(self, tracker: Tracker) -> None:
        """Measure the model on held-out data and log it."""

    @abc.abstractmethod
    def save(self) -> object:
        """Write a checkpoint."""

    def postfix(self) -> dict[str, str]:
        """Return what the progress bar shows besides the loss."""
        return {}

    def descend(self, loss: Tensor, parameters: Iterable[nn.Parameter], rate: float) -> float:
        """Take a clipped gradient step at a learning rate; returns the gradient's norm.

        Raises:
            NonFiniteError: nothing was changed.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, self.config.grad_clip)
        if not (bool(torch.isfinite(loss)) and bool(torch.isfinite(norm))):
            raise NonFiniteError(
                f"step {self.step}: loss {float(loss.detach())} with gradient norm {float(norm)}; "
                f"the model was left unchanged. {self.advice}"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.step += 1
        return float(norm)


def learning_rate(step: int, config: LoopConfig, total: int | None = None) -> float:
    """Return the rate of a step: linear warm-up, then cosine decay to a twentieth.

    Args:
        step: from 0.
        config: gives peak, warm-up and, if `total` is None, the number of steps.
        total: steps of the whole schedule.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    steps = config.steps if total is None else total
    done = (step - config.warmup) / max(steps - config.warmup, 1)
    return config.lr * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def adamw(parameters: Iterable[nn.Parameter], config: LoopConfig) -> torch.optim.AdamW:
    """Return AdamW over what is trained of these parameters."""
    trained = [p for p in parameters if p.requires_grad]
    return torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
