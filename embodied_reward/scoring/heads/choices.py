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
        """Return best against each other candidate; of a tie, every candidate with every other."""
        found: list[tuple[int, int, bool, int, int]] = []
        for g in range(len(self)):
            low, high = int(self.offsets[g]), int(self.offsets[g + 1])
            for k, best in enumerate(self.best[g].tolist()):
                row = int(self.row[g])
                if best >= 0:
                    others = (i for i in range(low, high) if i != low + best)
                    found += [(low + best, i, False, k, row) for i in others]
                elif best == TIE:
                    found += [
                        (i, j, True, k, row) for i in range(low, high) for j in range(i + 1, high)
                    ]
        table = np.array(found, np.int64).reshape(-1, 5)
        return Pairs(table[:, 0], table[:, 1], table[:, 2] > 0, table[:, 3], table[:, 4])


def difference(values: Tensor, pairs: Pairs) -> Tensor:
    """Return winner minus loser, Tensor["p"], of Tensor["n k"] in the dimension of each pair."""
    dim = torch.from_numpy(pairs.dim).to(values.device)
    winner = torch.from_numpy(pairs.winner).to(values.device)
    loser = torch.from_numpy(pairs.loser).to(values.device)
    return values[winner, dim] - values[loser, dim]


def ties(pairs: Pairs, like: Tensor) -> Tensor:
    """Return which pairs are ties, Bool Tensor["p"] on the device of `like`."""
    return torch.from_numpy(pairs.tie).to(like.device)
