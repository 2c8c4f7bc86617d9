"""Preferences into batches of features: who is compared with whom, and what the trunk saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from embodied_reward.scoring.heads import TIE, Choices
from embodied_reward.scoring.heads.pairing import cross_prompt_pairs
from embodied_reward.scoring.preferences import Judgement, Preferences
from embodied_reward.scoring.scorer import Items
from embodied_reward.scoring.status import Role
from embodied_reward.types import Int64
from embodied_reward.vision.encoders import Encoder
from embodied_reward.vision.preprocess import to_input

ENCODE = 256
"""Frames that are encoded at once."""


class FeatureTable:
    """Features of every frame of every clip, worked out before.

    Args:
        features: Tensor["f ..."] of all frames.
        offsets: Int64["clips+1"].
    """

    def __init__(self, features: Tensor, offsets: Int64) -> None:
        self.values, self.offsets = features, offsets

    def rows(self, clips: Int64) -> Int64:
        """Return the frames of these clips, one after the other."""
        spans = [np.arange(self.offsets[c], self.offsets[c + 1]) for c in clips]
        return np.concatenate([np.zeros(0, np.int64), *spans])

    def features(self, rows: Int64) -> Tensor:
        """Return the features of these frames, Tensor["r ..."]."""
        return self.values[torch.from_numpy(rows).to(self.values.device)]


class PictureTable(FeatureTable):
    """Frames of every clip, encoded whenever they are asked for, with gradients.

    Args:
        frames: uint8 Tensor["f size size 3"] of all frames.
        offsets: Int64["clips+1"].
        encoder: the trunk that is being trained.
    """

    def __init__(self, frames: Tensor, offsets: Int64, encoder: Encoder) -> None:
        super().__init__(frames, offsets)
        self.encoder = encoder

    def features(self, rows: Int64) -> Tensor:
        """See the base class; a frame that occurs twice is encoded once."""
        unique, inverse = np.unique(rows, return_inverse=True)
        # Without gradients nothing is kept, so parts bound the memory; with them a part is a batch.
        size = len(unique) if torch.is_grad_enabled() else ENCODE
        slices = [unique[at : at + size] for at in range(0, len(unique), size)]
        parts = [FeatureTable.features(self, piece) for piece in slices]
        device = next(self.encoder.parameters()).device
        encoded = torch.cat(
            [self.encoder(to_input(p.to(device), self.encoder.image_size)) for p in parts]
        )
        return encoded[torch.from_numpy(inverse).to(encoded.device)]


@dataclass(frozen=True)
class CandidateSet:
    """Candidates that are compared, each a clip with the judgement it comes from."""

    members: tuple[tuple[int, Judgement], ...]
    best: tuple[int, ...]
    from_labels: bool = False


def candidate_sets(
    rows: Sequence[Judgement], dims: int, seed: int, *, per_label: int = 16, tie_share: float = 0.25
) -> list[CandidateSet]:
    """Return the comparisons as they are, and pairs across prompts of items with single labels.

    Args:
        rows: judgements.
        dims: number of dimensions that are judged.
        seed: of the pairs.
        per_label: pairs made per labelled item; duplicates are dropped.
        tie_share: share of ties of two passed items among them.
    """
    sets = [CandidateSet(tuple((c, r) for c in r.items), r.best) for r in rows if r.label is None]
    single = [r for r in rows if r.label is not None]
    if not single:
        return sets
    rng = np.random.default_rng(seed)
    labels = [int(r.label or 0) for r in single]
    drawn = cross_prompt_pairs(labels, per_label * len(single), rng, tie_share=tie_share)
    # A tie has no order, so (a, b) and (b, a) are one.
    found = zip(*(column.tolist() for column in drawn), strict=True)
    unique = {(min(a, b), max(a, b)) if tie else (a, b): tie for a, b, tie in found}
    for pair, tie in unique.items():
        members = tuple((single[i].items[0], single[i]) for i in pair)
        sets.append(CandidateSet(members, (TIE if tie else 0,) * dims, from_labels=True))
    return sets


class Batches:
    """Sets over one table; batch number `step` is a function of (seed, step).

    Args:
        table: features.
        sets: candidates and the best of them.
        texts: prompt -> row of `text_features`; empty ignores prompts.
        text_features: Tensor["m d"] or None.
    """

    def __init__(
        self,
        table: FeatureTable,
        sets: Sequence[CandidateSet],
        texts: dict[str, int] | None = None,
        text_features: Tensor | None = None,
    ) -> None:
        self.table, self.sets = table, sets
        self._texts, self._text_features = texts or {}, text_features
        # Many pairs are made from few labels; together they weigh as much as the labels.
        made = np.array([s.from_labels for s in sets])
        labelled = len({m[0] for s in sets if s.from_labels for m in s.members})
        weight = np.where(made, labelled / max(int(made.sum()), 1), 1.0)
        self._weight = weight / weight.sum()

    @property
    def clips(self) -> int:
        """Number of different clips in all sets."""
        return len({clip for s in self.sets for clip, _ in s.members})

    def batch(self, size: int, seed: int, step: int) -> Choices:
        """Draw `size` different sets, or all of them."""
        rng = np.random.default_rng((seed, step))
        count = min(size, len(self.sets))
        return self.choices(rng.choice(len(self.sets), count, replace=False, p=self._weight))

    def everything(self, size: int = 256) -> list[Choices]:
        """Return every set once, in batches of `size`."""
        numbers = np.arange(len(self.sets))
        return [self.choices(numbers[at : at + size]) for at in range(0, len(numbers), size)]

    def singles(self) -> Items:
        """Return every candidate once, each a group of its own."""
        flat = {member[0]: member for s in self.sets for member in s.members}
        return self._items(list(flat.values()), np.arange(len(flat)))

    def choices(self, numbers: Int64) -> Choices:
        """Return the sets with these numbers."""
        sets = [self.sets[i] for i in numbers]
        lengths = [len(s.members) for s in sets]
        return Choices(
            items=self._items(
                [m for s in sets for m in s.members], np.repeat(np.arange(len(sets)), lengths)
            ),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            best=np.array([s.best for s in sets], np.int64),
            row=np.asarray(numbers, np.int64),
        )

    def _items(self, members: Sequence[tuple[int, Judgement]], group: Int64) -> Items:
        spans, roles = [], []
        for clip, row in members:
            own = self.table.rows(np.array([clip]))
            more = self.table.rows(
                np.array([row.reference] if row.reference >= 0 else [], np.int64)
            )
            spans.append(np.concatenate([own, more]))
            roles += [Role.CURRENT] * len(own) + [Role.REFERENCE] * len(more)
        rows = np.concatenate(spans)
        return Items(
            features=self.table.features(rows),
            offsets=np.concatenate([[0], np.cumsum([len(s) for s in spans])]).astype(np.int64),
            time=torch.zeros(len(rows)),
            view=np.zeros(len(rows), np.int64),
            role=np.array(roles, np.int64),
            text_features=self._text_features,
            text=np.array([self._texts.get(row.prompt, -1) for _, row in members], np.int64),
            group=group.astype(np.int64),
            user=np.array([row.user for _, row in members], np.int64),
            keys=tuple(clip.to_bytes(16, "little") for clip, _ in members),
        )


def split_judgements(
    data: Preferences, fraction: float, seed: int
) -> tuple[list[Judgement], list[Judgement], bool]:
    """Split into training and validation so that no clip is in both, where that is possible.

    Returns:
        Training rows, validation rows, and whether they share clips.
    """
    part = _components(data)
    count = int(part.max()) + 1
    rng = np.random.default_rng(seed)
    shared = count < 5
    unit = np.arange(len(data.rows)) if shared else part
    want = fraction * len(data.rows)
    held, size = set[int](), 0
    for number in rng.permutation(int(unit.max()) + 1).tolist():
        members = int((unit == number).sum())
        if size >= want or size + members > 0.5 * len(data.rows):
            continue
        held.add(number)
        size += members
    inside = [int(u) in held for u in unit]
    training = [r for r, i in zip(data.rows, inside, strict=True) if not i]
    return training, [r for r, i in zip(data.rows, inside, strict=True) if i], shared


def _components(data: Preferences) -> Int64:
    """Return a number per judgement, the same for those that a chain of shared clips connects."""
    links = [(i, len(data.rows) + c) for i, r in enumerate(data.rows) for c in r.items]
    a, b = np.array(links).T
    size = len(data.rows) + len(data.clips)
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(size, size))
    part = connected_components(graph, directed=False)[1][: len(data.rows)]
    return np.unique(part, return_inverse=True)[1]
