"""The training loop of preference heads: wiring only, the maths is in the heads."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from embodied_reward.errors import CheckpointError, ConfigError
from embodied_reward.math.statistics import wilson
from embodied_reward.scoring.heads import Choices, PreferenceHead
from embodied_reward.scoring.registry import load_scorer, make_scorer, save_scorer
from embodied_reward.scoring.scorer import Scorer, Trunk
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.training.checkpoint import latest, save_checkpoint
from embodied_reward.training.loop import LoopConfig, TrainingLoop, adamw, learning_rate
from embodied_reward.training.optimizer_state import load_optimizer, save_optimizer
from embodied_reward.training.run import Tracker
from embodied_reward.training.scorer_data import Batches
from embodied_reward.vision.encoders import Encoder


@dataclass(frozen=True)
class ScorerOptimization(LoopConfig):
    """How a preference head is optimised."""

    batch_size: int = 64
    """comparisons per batch"""
    val_freq: int = 100
    """steps between validations; they never choose a checkpoint"""


class ScorerTrainer(TrainingLoop):
    """Train one head, and its trunk if asked; the last step's weights are the result.

    Args:
        name: of the scorer.
        trunk: gives the trunk with its present weights.
        head: the head.
        training: batches to learn from.
        validation: held-out batches; may be None.
        config: optimisation settings.
        folder: the run folder.
        seed: every batch is a function of (seed, step).
        encoder: the trunk's encoder if it learns too.
        extra: facts for the scorer's card.
        licence: of the weights.
    """

    verb = "train-scorer"
    config: ScorerOptimization

    def __init__(
        self,
        name: str,
        trunk: Callable[[], Trunk],
        head: PreferenceHead,
        training: Batches,
        validation: Batches | None,
        *,
        config: ScorerOptimization,
        folder: Path,
        seed: int,
        encoder: Encoder | None = None,
        extra: dict | None = None,
        licence: str = "",
    ) -> None:
        super().__init__(config, folder, seed)
        self.name, self.trunk, self.head, self.encoder = name, trunk, head, encoder
        self.training, self.validation = training, validation
        self.extra, self.licence = extra or {}, licence
        self.modules = nn.ModuleList([head] if encoder is None else [head, encoder])
        self.optimizer = adamw(self.modules.parameters(), config)

    def resume(self) -> bool:
        """Restore the newest complete checkpoint; False if there is none."""
        found = latest(self.checkpoints)
        if found is None:
            return False
        self.step = json.loads((found / "training_state" / "state.json").read_text())["step"]
        if self.head.reviews and self.step > self.config.steps // 2:
            raise ConfigError(
                "this run was interrupted after its vote, which a checkpoint does not hold; "
                "start it again with another --output_dir"
            )
        saved = load_scorer(found / "pretrained_model")
        assert isinstance(saved, Scorer)
        try:
            self.head.load_state_dict(saved.head.state_dict())
            if self.encoder is not None and isinstance(saved.trunk, EncoderTrunk):
                self.encoder.load_state_dict(saved.trunk.encoder.state_dict())
        except RuntimeError as error:
            raise CheckpointError(f"'{found}' holds another model: {error}") from error
        load_optimizer(self.optimizer, found / "training_state")
        return True

    def run(self, *, progress: bool = True) -> Path:
        """Train to `config.steps`; a checkpoint is written even when interrupted.

        Returns:
            Folder of the last checkpoint.

        Raises:
            NonFiniteError: a loss or gradient is not finite; the model is left unchanged.
        """
        self.train(progress=progress)
        return (self.checkpoints / "last").resolve()

    def scorer(self) -> Scorer:
        """Return the scorer as it stands, in eval mode, with its normaliser fitted."""
        self.modules.eval()
        with torch.no_grad():
            self.head.fit_output(self.training.singles())
        return make_scorer(
            self.name,
            self.trunk(),
            self.head,
            licence=self.licence,
            extra=self.extra,
        )

    def save(self) -> Path:
        """Write a checkpoint; `last` points at it."""
        return save_checkpoint(self.checkpoints, self.step, self._write)

    def update(self) -> dict[str, float]:
        """See the base class; halfway, heads that review look at all data first."""
        if self.head.reviews and self.step == self.config.steps // 2:
            self.modules.eval()
            self.head.review(self.training.everything())
            self.optimizer = adamw(self.modules.parameters(), self.config)
        self.modules.train()
        choices = self.training.batch(self.config.batch_size, self.seed, self.step)
        loss, logs = self.head.loss(_at(choices, self.step))
        norm = self.descend(loss, self.modules.parameters(), self._rate())
        return {**logs, "grad_norm": norm}

    def validate(self, tracker: Tracker) -> None:
        """See the base class."""
        if self.validation is not None:
            rows = judge(self.head.eval(), self.validation)
            tracker.log(self.step, {f"val/{k}": v for k, v in rows.items()})

    def _rate(self) -> float:
        """Return the step's learning rate; the schedule runs twice where there is a review."""
        total, step = self.config.steps, self.step
        if self.head.reviews:
            half = max(total // 2, 1)
            total, step = (half, step) if step < half else (max(total - half, 1), step - half)
        return learning_rate(step, self.config, total)

    def _write(self, folder: Path) -> None:
        state = folder / "training_state"
        state.mkdir()
        save_scorer(self.scorer(), folder / "pretrained_model")
        save_optimizer(self.optimizer, state)
        (state / "state.json").write_text(json.dumps({"step": self.step}))


@torch.no_grad()
def judge(head: PreferenceHead, batches: Batches) -> dict[str, float]:
    """Return how often the head prefers what people preferred.

    `accuracy` is the share of decided pairs whose margin is positive, a margin of 0 counting half
    (for pairs made from pass/fail labels it estimates the AUC); `low` and `high` its 95 % Wilson
    interval, which counts no more pairs than there are distinct pairs of clips; `top1` the share
    of sets whose best candidate beats all others.
    """
    margins, rows, losses = [], [], []
    for choices in batches.everything():
        pairs = choices.pairs()
        losses.append(head.loss(choices)[1]["loss"])
        kept = torch.from_numpy(~pairs.tie)
        margins.append(head.margins(choices, pairs).cpu()[kept])
        rows.append(torch.from_numpy(pairs.row)[kept])
    found = shares(torch.cat(margins), torch.cat(rows), batches.clips // 2)
    return {"loss": sum(losses) / len(losses), **found}


def shares(margins: Tensor, rows: Tensor, independent: int) -> dict[str, float]:
    """Return accuracy, its interval and top-1 of margins Tensor["p"] that belong to sets ["p"].

    Pairs that share clips say less than they count, so at most `independent` of them count.
    """
    if not len(margins):
        return {"accuracy": math.nan, "low": math.nan, "high": math.nan, "top1": math.nan}
    right = (margins > 0).float() + 0.5 * (margins == 0).float()
    count = max(min(len(right), independent), 1)
    low, high = wilson(round(float(right.mean()) * count), count)
    number = rows.unique(return_inverse=True)[1]
    worst = torch.ones(int(number.max()) + 1).scatter_reduce(0, number, right, "amin")
    top1 = float((worst == 1).float().mean())
    return {"accuracy": float(right.mean()), "low": low, "high": high, "top1": top1}


def _at(choices: Choices, step: int) -> Choices:
    """Give the batch's stochastic passes the step as their seed."""
    return replace(choices, items=replace(choices.items, seed=step))
