"""Clone demonstrations with LeRobot's denoising loss; stoppable and resumable bit by bit."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from embodied_reward.errors import CheckpointError, NonFiniteError
from embodied_reward.training.optimizer_state import load_optimizer, save_optimizer

from .actor import DiffusionActor
from .windows import Windows

MAX_GRADIENT = 10.0
WARM_UP = 0.05  # share of the steps over which the step size rises


class Cloning:
    """Gradient steps on a learner whose running average is the actor.

    Args:
        actor: acts and is saved; its weights follow the learner's by an exponential average.
        windows: what is learned.
        steps: gradient steps of the whole run, for the step size's cosine.
        seed: of the windows drawn. LeRobot's loss draws diffusion steps and noise from torch's
            global generator, which the run seeds.
    """

    def __init__(self, actor: DiffusionActor, windows: Windows, *, steps: int, seed: int) -> None:
        self.actor, self._windows, self._steps = actor, windows, steps
        self._config = actor.spec.config
        self._learner = copy.deepcopy(actor.model)
        self._optimizer = torch.optim.Adam(
            self._learner.parameters(), lr=self._config.learning_rate, betas=(0.95, 0.999)
        )
        self._generator = np.random.default_rng(seed)
        self.done = 0
        self.best: tuple[float, float] = (-1.0, 0.0)  # the caller's best score, kept for a resume

    def step(self) -> float:
        """Take one gradient step; returns its loss.

        Raises:
            NonFiniteError: loss or gradient is not finite; nothing was changed.
        """
        self._learner.train()
        loss = self._loss()
        self._optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._learner.parameters(), MAX_GRADIENT)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise NonFiniteError(
                f"the cloning loss is {loss.item()} (gradient norm {norm.item()}) at step "
                f"{self.done}; no parameter was changed"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * step_size(self.done, self._steps)
        self._optimizer.step()
        self.done += 1
        self._average()
        return loss.item()

    def save_state(self, folder: Path) -> None:
        """Write `folder/training_state/`."""
        target = folder / "training_state"
        target.mkdir(parents=True)
        safetensors.torch.save_model(self._learner, str(target / "learner.safetensors"))
        safetensors.torch.save_file(
            {"torch_rng": torch.get_rng_state()}, target / "rng.safetensors"
        )
        save_optimizer(self._optimizer, target)
        state: dict[str, Any] = {"done": self.done, "best": list(self.best)}
        state["generator"] = self._generator.bit_generator.state
        (target / "state.json").write_text(json.dumps(state))

    def load_state(self, folder: Path) -> None:
        """Go on from a checkpoint folder. Raises CheckpointError for another configuration's."""
        source = folder / "training_state"
        weights = folder / "pretrained_model" / "model.safetensors"
        try:
            safetensors.torch.load_model(self.actor.model, str(weights))
            safetensors.torch.load_model(self._learner, str(source / "learner.safetensors"))
            state = json.loads((source / "state.json").read_text())
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"'{folder}' cannot be resumed: {str(error).strip().splitlines()[0]}"
            ) from error
        load_optimizer(self._optimizer, source)
        self._generator.bit_generator.state = state["generator"]
        torch.set_rng_state(safetensors.torch.load_file(source / "rng.safetensors")["torch_rng"])
        self.done, self.best = state["done"], (state["best"][0], state["best"][1])

    def _loss(self) -> Tensor:
        """Return the loss of windows that are drawn anew."""
        rows = self._generator.choice(
            len(self._windows), size=self._config.batch_size, p=self._windows.probability
        )
        return self._learner(self._batch(rows))[0]

    def _batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        batch = self.actor.before(self._windows.batch(rows))
        return {key: value for key, value in batch.items() if isinstance(value, Tensor)}

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self._config.ema_decay, (1 + self.done) / (10 + self.done))
        decay = decay if self._config.ema_decay else 0.0
        pairs = zip(self.actor.model.parameters(), self._learner.parameters(), strict=True)
        for averaged, newest in pairs:
            averaged.lerp_(newest, 1.0 - decay)


def step_size(done: int, steps: int) -> float:
    """Return the factor of the learning rate in [0, 1]: linear warm-up, then a half cosine."""
    warm = max(1, round(WARM_UP * steps))
    if done < warm:
        return (done + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm) / max(1, steps - warm))))
