"""The pure pieces of a scorer: `preprocess -> trunk -> head`, and the card that names them.

The trunk is nearly all the cost and is shared: scorers whose trunks have the same `lane` fill the
same batches and the same cache. The head is small and runs in fp32. Neither does I/O nor keeps
state, so that the engine may batch, cache and retry as it likes.

Scorers whose model reads pictures and text together (`yes` tokens, likelihoods, engines behind
HTTP) have no cacheable trunk: they are `ItemScorer`s.
"""

import abc
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from embodied_reward.scoring.card import ScorerCard
from embodied_reward.scoring.keys import Chosen
from embodied_reward.types import Int64, UInt8


class Trunk(abc.ABC):
    """Encode single images, independently of each other.

    Attributes:
        digest: sha256 of weights and architecture, hex.
        preprocess_id: name of the preprocessing, hex.
        dtype: dtype it computes in, part of the cache key.
        device: where its inputs must lie.
        reads_texts: whether texts are encoded; true for every class that defines `encode_texts`,
            unless it says otherwise.
    """

    digest: str
    preprocess_id: str
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")
    reads_texts: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A text tower that nobody announced would be ignored without a word."""
        super().__init_subclass__(**kwargs)
        if "encode_texts" in vars(cls) and "reads_texts" not in vars(cls):
            cls.reads_texts = True

    @property
    def lane(self) -> str:
        """What two trunks must share to fill one batch: digest, preprocessing, dtype."""
        return f"{self.digest}:{self.preprocess_id}:{self.dtype}:{self.device}"

    @property
    def stale(self) -> bool:
        """Whether the weights are no longer those that `digest` names."""
        return False

    @abc.abstractmethod
    def preprocess(self, frames: Tensor) -> Tensor:
        """Resize (antialiased) and normalise on the frames' device.

        Args:
            frames: uint8 Tensor["n h w 3"] in [0, 255], or float Tensor["n 3 h w"] in [0, 1] of
                the differentiable path.

        Returns:
            Tensor["n ..."] of fixed shape per image.
        """

    @abc.abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Encode preprocessed Tensor["n ..."] to float32 features Tensor["n d"] or ["n p d"]."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode texts to float32 Tensor["m d"]. Raises NotImplementedError without a text tower.

        A text's features must not depend on the other texts.
        """
        raise NotImplementedError(f"{type(self).__name__} has no text tower")


@dataclass(frozen=True, kw_only=True)
class Items:
    """What a head sees of n items: their features instead of their frames; axes as `ScoreRequest`.

    Attributes:
        features: float32 Tensor["f d"] or ["f p d"], one row per frame reference.
        offsets: Int64["n+1"]; item i has rows offsets[i]..offsets[i+1]-1.
        time: float32 Tensor["f"] [s].
        view: Int64["f"].
        role: Int64["f"].
        views: camera names.
        text_features: float32 Tensor["m d"] or None.
        text: Int64["n"], row of `text_features` or -1.
        group: Int64["n"].
        user: Int64["n"].
        keys: content of every item, bytes of length 16, the same wherever the item lies.
        passes: stochastic passes that were asked for.
        seed: of those passes.
    """

    features: Tensor
    offsets: Int64
    time: Tensor
    view: Int64
    role: Int64
    views: tuple[str, ...] = ()
    text_features: Tensor | None = None
    text: Int64
    group: Int64
    user: Int64
    keys: Sequence[bytes]
    passes: int = 0
    seed: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def owner(self) -> Int64:
        """Int64["f"], the item that each row belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def lengths(self) -> Int64:
        """Int64["n"], rows of every item."""
        return np.diff(self.offsets)

    def generator(self, item: int, stream: int = 0) -> np.random.Generator:
        """Return the generator of one item: fixed by its content, the seed and `stream`.

        Neither its place in a batch nor the time matters, so a score's noise is reproducible.
        """
        key = hashlib.blake2b(
            self.keys[item] + self.seed.to_bytes(8, "little") + stream.to_bytes(8, "little"),
            digest_size=16,
        ).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))

    def mean_features(self, rows: np.ndarray | None = None) -> Tensor:
        """Return the mean feature of every item, Tensor["n d"]; NaN for an item without rows.

        Args:
            rows: Bool["f"], which rows count; default all.
        """
        if rows is None and len(self.features) == len(self) == np.count_nonzero(self.lengths):
            return self.features  # one row an item
        keep = np.ones(len(self.features), bool) if rows is None else rows
        owner = torch.from_numpy(self.owner[keep]).to(self.features.device)
        chosen = self.features[torch.from_numpy(keep).to(self.features.device)]
        total = segment_sum(chosen, owner, len(self))
        count = torch.bincount(owner, minlength=len(self)).to(total)
        return total / count.reshape(-1, *[1] * (total.ndim - 1))

    def take(self, items: Sequence[int]) -> Self:
        """Return the chosen items, in that order, as if they had been asked for alone."""
        rows = np.concatenate(
            [np.arange(self.offsets[i], self.offsets[i + 1]) for i in items] or [np.zeros(0, int)]
        ).astype(np.int64)
        chosen = np.asarray(items, np.int64)
        lengths = self.lengths[chosen]
        where = torch.from_numpy(rows).to(self.features.device)
        return replace(
            self,
            features=self.features[where],
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            time=self.time[where],
            view=self.view[rows],
            role=self.role[rows],
            text=self.text[chosen],
            group=self.group[chosen],
            user=self.user[chosen],
            keys=Chosen([(self.keys, int(i)) for i in chosen]),
        )


@dataclass(kw_only=True)
class Output:
    """What a head or an item scorer returns for n items; absent columns are None.

    Attributes:
        score: Tensor["n"]; NaN becomes SCORER_ERROR unless `status` says what it is.
        dims: Tensor["n k"].
        aleatoric: Tensor["n"] >= 0.
        epistemic: Tensor["n"] >= 0.
        per_frame: Tensor["f"].
        per_view: Tensor["n v"].
        status: UInt8["n"] or None for all OK.
        detail: item -> what went wrong.
    """

    score: Tensor
    dims: Tensor | None = None
    aleatoric: Tensor | None = None
    epistemic: Tensor | None = None
    per_frame: Tensor | None = None
    per_view: Tensor | None = None
    status: UInt8 | None = None
    detail: Mapping[int, str] = field(default_factory=dict)


class Head(nn.Module, abc.ABC):
    """Score items from their features, in fp32; subclasses implement `forward(items) -> Output`.

    Attributes:
        groupwise: the score of an item depends on its whole group, which is never split.
        dim_names: names of `Output.dims`.
    """

    groupwise: bool = False
    dim_names: tuple[str, ...] = ()

    @abc.abstractmethod
    def forward(self, items: Items) -> Output:
        """Score n items. Deterministic but for `items.generator`."""


@dataclass(frozen=True)
class Scorer:
    """A trunk with a head, ready for the engine."""

    card: ScorerCard
    trunk: Trunk
    head: Head


@dataclass(frozen=True, kw_only=True)
class RawItems:
    """What an item scorer sees of n items.

    Attributes:
        frames: per item its frames UInt8["h w 3"], in the order of the request.
        texts: per item its text, or None.
        role: per item Int64, a `Role` per frame.
        keys: content of every item, as in `Items`.
        seed: of the request.
        timeout: seconds left [s], for scorers that wait for others; None is no limit.
    """

    frames: tuple[tuple[UInt8, ...], ...]
    texts: tuple[str | None, ...]
    role: tuple[Int64, ...]
    keys: tuple[bytes, ...]
    seed: int = 0
    timeout: float | None = None

    def __len__(self) -> int:
        return len(self.frames)


class ItemScorer(abc.ABC):
    """Score pictures and text together, in one piece.

    Attributes:
        card: what it is.
        max_items: largest number of items of one call.
        external: waits for another process, so that several calls may run at once.
        concurrency: number of such calls.

    Every item scorer has threads of its own and never holds the trunks up.
    """

    card: ScorerCard
    max_items: int = 16
    external: bool = False
    concurrency: int = 4

    @abc.abstractmethod
    def evaluate(self, items: RawItems) -> Output:
        """Score up to `max_items` items; an item's score must not depend on the others."""


def segment_sum(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """Add up the rows of every item, always in the same order.

    Args:
        values: Tensor["f ..."].
        owner: int64 Tensor["f"], the item of every row.
        count: number of items n.

    Returns:
        Tensor["n ..."], 0 for an item without rows. The same bits on every call: `index_add` of
        CUDA adds in the order in which its threads happen to come.
    """
    total = values.new_zeros((count, *values.shape[1:]))
    if values.device.type == "cpu":
        return total.index_add(0, owner, values)
    return total.index_put((owner,), values, accumulate=True)


def digest_of(module: nn.Module, *facts: str) -> str:
    """Return the sha256 of a module's parameters and buffers, and of what else defines it, hex."""
    state = hashlib.sha256()
    for fact in facts:
        state.update(fact.encode() + b"\0")
    for name, value in sorted(module.state_dict().items()):
        data = value.detach().cpu().contiguous()
        state.update(f"{name}{tuple(data.shape)}{data.dtype}".encode())
        state.update(data.flatten().view(torch.uint8).numpy().tobytes() if data.numel() else b"")
    return state.hexdigest()


def joint_digest(trunk: str, head: str) -> str:
    """Return the name of trunk and head together, hex."""
    return hashlib.sha256(f"{trunk}:{head}".encode()).hexdigest()
