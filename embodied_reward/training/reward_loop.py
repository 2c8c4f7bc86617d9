"""The training loop of reward models: wiring only, the maths is in the model."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import CheckpointError, ConfigError, DatasetError
from embodied_reward.math.statistics import spearman
from embodied_reward.rewards.base import RewardModel, Weigh, device_of
from embodied_reward.training.checkpoint import latest, point, save_checkpoint
from embodied_reward.training.decorrelation import BatchWeights
from embodied_reward.training.loop import LoopConfig, TrainingLoop, adamw, learning_rate
from embodied_reward.training.optimizer_state import load_optimizer, save_optimizer
from embodied_reward.training.run import Tracker
from embodied_reward.types import Episode

VALIDATION_SEED = 2**31 - 1


@dataclass(frozen=True)
class OptimizationConfig(LoopConfig):
    """How a reward model is optimised."""

    steps: int = 600
    """gradient steps"""
    batch_size: int = 4
    """episodes per batch, or preferences for methods that learn from them; a frame is encoded
    once for all its pairs"""
    val_fraction: float = 0.2
    """share of the episodes held out for validation, at least one if there are two"""
    val_freq: int = 50
    """steps between validations"""
    save_freq: int = 100
    """steps between checkpoints"""


class Batches(Protocol):
    """What a model's `dataset()` returns: batch number `step` is a function of (seed, step)."""

    def batch(self, episodes: int, seed: int, step: int) -> Any: ...  # noqa: D102


class Trainable(Protocol):
    """What the loop needs of a model besides the `RewardModel` contract.

    `loss` returns its parts by name; the best checkpoint has the lowest held-out `selection`, or
    `loss` where there is no such part. Only a model that is `weighable` is ever given `weigh`.
    """

    weighable: ClassVar[bool]

    def dataset(self, episodes: list[Episode]) -> Any: ...  # noqa: D102
    def set_references(self, data: Any) -> None: ...  # noqa: D102
    def loss(  # noqa: D102
        self, batch: Any, *, weigh: Weigh = ...
    ) -> tuple[Tensor, dict[str, float]]: ...


def split_episodes(
    episodes: list[Episode], fraction: float, seed: int
) -> tuple[list[Episode], list[Episode]]:
    """Split into training and validation, keeping at least one success in training.

    Raises:
        DatasetError: no episodes.
    """
    if not episodes:
        raise DatasetError("the dataset has no episodes; record some with `er collect`")
    held = 0 if len(episodes) < 2 or fraction <= 0 else max(1, round(len(episodes) * fraction))
    order = np.random.default_rng(seed).permutation(len(episodes))
    validation = sorted(order[:held])
    training = sorted(order[held:])
    return [episodes[i] for i in training], [episodes[i] for i in validation]


class RewardTrainer(TrainingLoop):
    """Train one reward model; `run()` continues from the newest checkpoint when resuming.

    Args:
        model: a trainable reward model.
        training: episodes to learn from.
        validation: held-out episodes; may be empty.
        config: optimisation settings.
        folder: the run folder.
        seed: every batch is a function of (seed, step).
        weights: learns the weights of every training batch's samples; None weighs all alike.

    Raises:
        ConfigError: weights for a model whose loss is no mean over samples.
    """

    verb = "train-reward"
    advice = "Lower --lr or look for broken frames with `er data inspect`"
    config: OptimizationConfig

    def __init__(
        self,
        model: RewardModel,
        training: list[Episode],
        validation: list[Episode],
        *,
        config: OptimizationConfig,
        folder: Path,
        seed: int,
        weights: BatchWeights | None = None,
    ) -> None:
        super().__init__(config, folder, seed)
        if weights is not None:
            check_weighable(model)
        self.model, self.weights = model, weights
        self.trainable: Trainable = model  # type: ignore[assignment]
        self.data: Batches = self.trainable.dataset(training)
        self.trainable.set_references(self.data)
        self.validation, self.count = validation, len(training)
        self.held_out: Batches | None = model.validation_data(training, validation)
        self.optimizer = adamw(model.parameters(), config)
        self.best: float = math.inf

    def resume(self) -> bool:
        """Restore the newest complete checkpoint; False if there is none."""
        found = latest(self.checkpoints)
        if found is None:
            return False
        state = json.loads((found / "training_state" / "state.json").read_text())
        saved = type(self.model).load(found / "pretrained_model")  # type: ignore[attr-defined]
        try:
            self.model.load_state_dict(saved.state_dict())
        except RuntimeError as error:
            raise CheckpointError(f"'{found}' holds another model: {error}") from error
        load_optimizer(self.optimizer, found / "training_state")
        self.step = state["step"]
        self.best = state["best"] if state["best"] is not None else math.inf
        if self.weights is not None:
            self.weights.load(found / "training_state", device_of(self.model))
        return True

    def run(self, *, progress: bool = True) -> Path:
        """Train to `config.steps`; a checkpoint is written even when interrupted.

        Returns:
            Folder of the best checkpoint (the last one without validation).

        Raises:
            NonFiniteError: a loss or gradient is not finite; the model is left unchanged.
        """
        self.train(progress=progress)
        return (self.checkpoints / "best").resolve()

    def postfix(self) -> dict[str, str]:
        """See the base class."""
        # Without validation the newest checkpoint counts as the best; there is no number to show.
        return {"best": f"{self.best:.3f}"} if math.isfinite(self.best) and self.best >= 0 else {}

    def update(self) -> dict[str, float]:
        """See the base class."""
        self.model.train()
        batch = self.data.batch(self.config.batch_size, self.seed, self.step)
        loss, logs = self._loss(batch)
        rate = learning_rate(self.step, self.config)
        norm = self.descend(loss, self.model.parameters(), rate)
        return {**logs, "grad_norm": norm, "lr": rate}

    def _loss(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        if self.weights is None:
            return self.trainable.loss(batch)
        loss, logs = self.trainable.loss(batch, weigh=self.weights)
        found = {f"decorrelation/{key}": value for key, value in self.weights.logs.items()}
        return loss, logs | found

    def validate(self, tracker: Tracker) -> None:
        """See the base class; keeps the best checkpoint."""
        self.model.eval()
        rows = validation_metrics(self.model, self.held_out, self.validation, self.config)
        tracker.log(self.step, {f"val/{k}": v for k, v in rows.items()})
        # Cross-entropy punishes confidence long before the estimates get worse, so a model may
        # name what it should be chosen by.
        criterion = rows.get("selection", rows.get("loss", float(-self.step)))
        if criterion < self.best:
            self.best = criterion
            self.save(best=True)

    def save(self, *, best: bool = False) -> None:
        """Write a checkpoint; `last` points at it, and `best` too if asked."""
        folder = save_checkpoint(self.checkpoints, self.step, self._write)
        if best or not (self.checkpoints / "best").exists():
            point(self.checkpoints, "best", folder.name)

    def _write(self, folder: Path) -> None:
        state = folder / "training_state"
        state.mkdir()
        self.model.eval()
        if self.validation:
            # A threshold fitted on what the weights were fitted on would promise too much.
            self.model.calibrate(self.validation)
        self.model.save(folder / "pretrained_model")
        save_optimizer(self.optimizer, state)
        if self.weights is not None:
            self.weights.save(state)
        best = self.best if math.isfinite(self.best) else None
        (state / "state.json").write_text(json.dumps({"step": self.step, "best": best}))


def check_weighable(model: RewardModel) -> None:
    """Raise ConfigError for a model whose loss is no mean over samples."""
    if not model.weighable:
        raise ConfigError(
            f"--decorrelation.type needs a reward model whose loss is a mean over frames or pairs "
            f"(dopamine, remaining_time); that of '{model.name}' cannot be weighed"
        )


@torch.no_grad()
def validation_metrics(
    model: RewardModel, held_out: Batches | None, episodes: list[Episode], config: Any
) -> dict[str, float]:
    """Return the held-out loss, and rank correlation with true progress (or time) per episode."""
    rows: dict[str, float] = {}
    if held_out is not None:
        trainable: Trainable = model  # type: ignore[assignment]
        logs = [
            trainable.loss(held_out.batch(config.batch_size, VALIDATION_SEED, k))[1]
            for k in range(4)
        ]
        rows = {key: float(np.mean([entry[key] for entry in logs])) for key in logs[0]}
    if episodes and model.card.progress:
        rows["spearman"] = float(np.mean([_rank_agreement(model, e) for e in episodes]))
    return rows


def _rank_agreement(model: RewardModel, episode: Episode) -> float:
    truth = episode.progress if episode.progress is not None else np.arange(len(episode))
    value = spearman(model.score_episode(episode).potential, truth)
    return 0.0 if not math.isfinite(value) else value
