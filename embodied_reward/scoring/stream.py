"""Score the frames of vector environments as they come: one batch for all of them and all views."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from embodied_reward.errors import NonFiniteError
from embodied_reward.scoring.status import Priority
from embodied_reward.types import Scores, UInt8


class StreamScorer:
    """Hold the per-environment carry of a streaming reward model.

    Where the model uses a `ScoringCore`, the batch goes ahead of whatever else the core has to do.

    Args:
        model: a `RewardModel` with `card.streaming`.
        count: number of environments b.
    """

    def __init__(self, model, count: int) -> None:  # noqa: ANN001 (rewards lies above scoring)
        self.model = model.eval()
        self.count = count
        self.views: tuple[str, ...] = model.card.views
        self._carry: dict[str, torch.Tensor] | None = None

    @torch.inference_mode()
    def start(self, rows: Sequence[int], frames: Mapping[str, UInt8]) -> Scores:
        """Begin new episodes in `rows`, whose first frames are view -> UInt8["r h w 3"].

        Returns:
            Scores of the first frames, one per row.
        """
        features = self.model.encode(frames, priority=Priority.CONTROL)
        fresh = self.model.start(features)
        if self._carry is None:
            self._carry = {k: v.new_zeros((self.count, *v.shape[1:])) for k, v in fresh.items()}
        self._put(rows, fresh)
        return self._score(rows, features)

    @torch.inference_mode()
    def step(self, frames: Mapping[str, UInt8], rows: Sequence[int] | None = None) -> Scores:
        """Score the current frame of every environment, or of `rows`, view -> UInt8["b h w 3"]."""
        if self._carry is None:
            raise RuntimeError("call start() for every environment before step()")
        chosen = range(self.count) if rows is None else rows
        return self._score(chosen, self.model.encode(frames, priority=Priority.CONTROL))

    def prefetch(self, frames: Mapping[str, UInt8]) -> None:
        """Begin to encode frames view -> UInt8["r h w 3"] that `start` or `step` will be given.

        Does not wait, and changes no score. It needs a core with a cache to be of use.
        """
        if any(view in frames for view in self.views):
            self.model.prefetch(frames)

    def _score(self, rows: Sequence[int], features: torch.Tensor) -> Scores:
        assert self._carry is not None
        index = torch.as_tensor(list(rows), device=features.device)
        scores, after = self.model.score(features, {k: v[index] for k, v in self._carry.items()})
        self._put(rows, after)
        what = "potential" if self.model.card.progress else "success"
        if not np.isfinite(getattr(scores, what)[scores.ok]).all():
            raise NonFiniteError(f"the reward model returned a non-finite {what} for a good frame")
        return scores

    def _put(self, rows: Sequence[int], fresh: Mapping[str, torch.Tensor]) -> None:
        assert self._carry is not None
        index = torch.as_tensor(list(rows))
        for key, value in fresh.items():
            self._carry[key][index.to(value.device)] = value
