"""What a preference model must beat: looks that have nothing to do with the content."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from embodied_reward.training.scorer_data import Batches
from embodied_reward.training.scorer_loop import shares
from embodied_reward.types import Float64, UInt8


@dataclass
class Looks:
    """Simple statistics, one row per clip: mean brightness, contrast, size of the file."""

    rows: list[tuple[float, float, float]] = field(default_factory=list)

    def add(self, frames: Sequence[UInt8], nbytes: int) -> None:
        """Append the next clip."""
        mean = float(np.mean([f.mean() for f in frames]))
        contrast = float(np.mean([f.std() for f in frames]))
        self.rows.append((mean, contrast, float(nbytes)))


def baseline_rows(
    looks: Looks, training: Batches, validation: Batches
) -> dict[str, dict[str, float]]:
    """Return accuracy of a constant and of every look, whose sign is chosen on training pairs."""
    values = np.array(looks.rows)
    rows = {"constant": _accuracy(np.zeros(len(values)), validation)}
    for column, name in enumerate(("brightness", "contrast", "file bytes")):
        look = values[:, column]
        up = _accuracy(look, training)["accuracy"] >= 0.5
        rows[name] = _accuracy(look if up else -look, validation)
    return rows


def _accuracy(value: Float64, batches: Batches) -> dict[str, float]:
    margins, rows = [], []
    for number, one in enumerate(batches.sets):
        clips = [clip for clip, _ in one.members]
        for best in (b for b in one.best if b >= 0):
            others = [c for i, c in enumerate(clips) if i != best]
            margins += [value[clips[best]] - value[other] for other in others]
            rows += [number] * len(others)
    return shares(torch.tensor(margins), torch.tensor(rows), batches.clips // 2)
