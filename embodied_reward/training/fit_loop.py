"""The run of a reward model that is fitted in closed form: the run folder of a training, no steps.

Its only checkpoint is number 1. There is nothing to continue: a run either has it or starts anew.
"""

from pathlib import Path

from tqdm import tqdm

from embodied_reward.rewards.base import FittedModel
from embodied_reward.training.checkpoint import latest, point, save_checkpoint
from embodied_reward.training.reward_loop import OptimizationConfig, validation_metrics
from embodied_reward.training.run import Tracker
from embodied_reward.types import Episode


class RewardFitter:
    """Fit one reward model; the counterpart of `RewardTrainer`.

    Args:
        model: a model that is fitted.
        training: episodes to learn from.
        validation: held-out episodes; may be empty.
        config: where the run and validation are set.
        folder: the run folder.
    """

    def __init__(
        self,
        model: FittedModel,
        training: list[Episode],
        validation: list[Episode],
        *,
        config: OptimizationConfig,
        folder: Path,
    ) -> None:
        self.model, self.training, self.validation = model, training, validation
        self.config, self.folder, self.count = config, folder, len(training)
        self.step = 0

    @property
    def checkpoints(self) -> Path:
        """Return the folder of checkpoints."""
        return self.folder / "checkpoints"

    def resume(self) -> bool:
        """Whether the run is complete already; `run` then has nothing to do."""
        self.step = int(latest(self.checkpoints) is not None)
        return bool(self.step)

    def run(self, *, progress: bool = True) -> Path:
        """Fit, draw, write the checkpoint. Returns its folder.

        Raises:
            DatasetError: demonstrations that cannot be used; there is no checkpoint.
        """
        if not self.step:
            self._fit(progress)
        return (self.checkpoints / "best").resolve()

    def _fit(self, progress: bool) -> None:
        bar: tqdm | None = None

        def advance(done: int, total: int) -> None:
            nonlocal bar
            # Only the model knows how much there is to do, and it refuses bad data before.
            bar = bar or tqdm(unit="part", disable=not progress, desc="train-reward")
            bar.total = total
            bar.update(done - bar.n)

        try:
            logs = self.model.fit(self.training, progress=advance)
        finally:
            if bar is not None:
                bar.close()
        self.model.illustrate(self.training, self.folder)
        rows = validation_metrics(self.model, None, self.validation, self.config)
        tracker = Tracker(self.folder, step=1)
        tracker.log(1, {f"fit/{k}": v for k, v in logs.items()})
        tracker.log(1, {f"val/{k}": v for k, v in rows.items()})
        tracker.close()
        if self.validation:
            self.model.calibrate(self.validation)
        folder = save_checkpoint(self.checkpoints, 1, self._write)
        point(self.checkpoints, "best", folder.name)
        self.step = 1

    def _write(self, folder: Path) -> None:
        self.model.save(folder / "pretrained_model")
