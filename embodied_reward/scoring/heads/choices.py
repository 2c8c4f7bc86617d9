"""What people preferred: sets of candidates, as features, with the best of each set."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from embodied_reward.scoring.scorer import Items
from embodied_reward.types import Bool, Int64

TIE = -1
"""No candidate is better than another."""
UNJUDGED = -2
"""Nobody judged this dimension of the set."""


@dataclass(frozen=True)
class Pairs:
    """p comparisons of two items in one dimension.

    Attributes:
        winner: Int64["p"], item.
        loser: Int64["p"], item; of a tie, the other one.
        tie: Bool["p"].
        dim: Int64["p"], column of the judgement.
        row: Int64["p"], number of the set in the data.
    """

    winner: Int64
    loser: Int64
    tie: Bool
    dim: Int64
    row: Int64

    def __len__(self) -> int:
        return len(self.winner)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """g sets of candidates; the items of set i are offsets[i]..offsets[i+1]-1.

    Attributes:
        items: n items with their features; rows of role REFERENCE belong to the comparison.
        offsets: Int64["g+1"].
        best: Int64["g k"], place of the best candidate within its set, TIE or UNJUDGED, for each
            of k dimensions.
        row: Int64["g"], number of the set in the data, the same in every batch.
    """

    items: Items
    offsets: Int64
    best: Int64
    row: Int64 = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Number the sets where nobody did."""
        if self.row is None:
            object.__setattr__(self, "row", np.arange(len(self.best)))

    def __len__(self) -> int:
        return len(self.best)

    def pairs(self) -> Pairs:
        """Return best against each other candidate; of a tie, every candidate with every other.

        The pairs of one set always come in the same order.
        """
        parts = [self._wins(k) for k in range(self.best.shape[1])]
        parts += [self._ties(g, k) for g, k in np.argwhere(self.best == TIE).tolist()]
        columns = np.concatenate(parts, 1)
        return Pairs(columns[0], columns[1], columns[2] > 0, columns[3], columns[4])

    def _wins(self, k: int) -> Int64:
        """Return rows winner, loser, 0, dimension, row of the data, as columns Int64["5 p"]."""
        group = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        winner = (self.offsets[:-1] + self.best[:, k])[group]
        loser = np.arange(len(group))
        kept = (self.best[group, k] >= 0) & (winner != loser)
        zero = np.zeros(int(kept.sum()), np.int64)
        row = self.row[group[kept]]
        return np.stack([winner[kept], loser[kept], zero, zero + k, row])

    def _ties(self, g: int, k: int) -> Int64:
        first, second = np.triu_indices(self.offsets[g + 1] - self.offsets[g], 1)
        same = np.ones(len(first), np.int64)
        low = self.offsets[g]
        return np.stack([low + first, low + second, same, k * same, self.row[g] * same])


def difference(values: Tensor, pairs: Pairs) -> Tensor:
    """Return winner minus loser, Tensor["p"], of Tensor["n k"] in the dimension of each pair."""
    dim = torch.from_numpy(pairs.dim).to(values.device)
    winner = torch.from_numpy(pairs.winner).to(values.device)
    loser = torch.from_numpy(pairs.loser).to(values.device)
    return values[winner, dim] - values[loser, dim]


def ties(pairs: Pairs, like: Tensor) -> Tensor:
    """Return which pairs are ties, Bool Tensor["p"] on the device of `like`."""
    return torch.from_numpy(pairs.tie).to(like.device)
