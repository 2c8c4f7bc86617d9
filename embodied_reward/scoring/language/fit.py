"""Fine-tune a reader on questions with known answers, for small models and narrow tasks.

Supervised: minus the mean log-probability of the answer, which is what RewardDance does for yes
and no, and captioning for likelihoods. Models of billions of parameters are better trained with
TRL's `SFTTrainer`; save_pretrained's folder is what the scorers read.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.scoring.language.reader import Reader, Turn


def fit_reader(
    reader: Reader,
    turns: Sequence[Turn],
    *,
    steps: int,
    batch: int = 32,
    learning_rate: float = 1e-3,
    generator: np.random.Generator,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train the model in place.

    Args:
        reader: its model is trained whole and left in eval mode.
        turns: questions with answers.
        steps: updates.
        batch: turns of one update.
        learning_rate: of AdamW, after 10 % warm-up falling to 0 as a cosine.
        generator: draws the batches.
        on_step: called with the step and the loss, e.g. for a progress bar.

    Returns:
        The loss of every step.

    Raises:
        ConfigError: no turns, or one without an answer.
        NonFiniteError: a loss that is not finite; the parameters are those before it.
    """
    if not turns or not all(turn.answer for turn in turns):
        raise ConfigError("training needs questions, each with its answer")
    encoded = reader.encode(turns)
    model = reader.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps + 1, pct_start=0.1, cycle_momentum=False
    )
    losses = []
    try:
        for step in range(steps):
            rows = generator.choice(len(turns), min(batch, len(turns)), replace=False)
            loss = -torch.stack(
                [row.mean() for row in reader.encoded_log_probs([encoded[i] for i in rows])]
            ).mean()
            losses.append(_update(loss, step, model, optimizer, schedule))
            if on_step is not None:
                on_step(step, losses[-1])
    finally:
        model.eval()
    return losses


def _update(
    loss: torch.Tensor,
    step: int,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    if not torch.isfinite(loss):
        raise NonFiniteError(f"the loss of step {step} is {loss.item()}: lower the learning rate")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    return float(loss.detach())
