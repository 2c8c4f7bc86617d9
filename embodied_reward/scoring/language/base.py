"""What the scorers with a model of their own share: check items, ask, save."""

import abc
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from embodied_reward.files import replacing
from embodied_reward.scoring.language.reader import Reader
from embodied_reward.scoring.scorer import ItemScorer, Output, RawItems, ScorerCard, joint_digest
from embodied_reward.scoring.status import Role, Status
from embodied_reward.types import UInt8

REFERENCES = (Role.REFERENCE, Role.GOAL, Role.START, Role.BEFORE)
MODEL_FOLDER = "model"


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """What every language scorer can be told."""

    name: str = ""
    """by which requests ask for it; default: the name of the folder"""
    model: str = MODEL_FOLDER
    """folder of save_pretrained (relative to the scorer's folder) or hub id"""
    revision: str | None = None
    """commit of the hub model; pin it for reproducible scores"""
    batch: int = 8
    """items of one pass"""
    licence: str = ""
    """licence of the weights, for the scorer's card"""


class LanguageScorer(ItemScorer):
    """An `ItemScorer` with a `Reader` of its own.

    Args:
        reader: the model.
        config: of the scorer's own class.
    """

    type: str
    source: str
    dim_names: tuple[str, ...]
    score_range: tuple[float, float] = (float("-inf"), float("inf"))

    def __init__(self, reader: Reader, config: LanguageConfig) -> None:
        self.reader, self.config, self.max_items = reader, config, config.batch
        facts = json.dumps(asdict(config), sort_keys=True)
        digest = reader.digest
        self.card = ScorerCard(
            name=config.name or self.type,
            type=self.type,
            weights_sha256=joint_digest(digest, facts),
            trunk_sha256=digest,
            dim_names=self.dim_names,
            score_range=self.score_range,
            licence=config.licence,
            source=self.source,
        )

    @abc.abstractmethod
    def missing(self, frames: Sequence[UInt8], role: Sequence[int], text: str | None) -> str:
        """Say what an item lacks; empty if it can be scored."""

    @abc.abstractmethod
    def ask(self, items: RawItems) -> Output:
        """Score items that lack nothing."""

    @torch.inference_mode()
    def evaluate(self, items: RawItems) -> Output:
        """See the base class. Items that lack something are BAD_INPUT, the others are asked."""
        facts = zip(items.frames, items.role, items.texts, strict=True)
        lacks = [self.missing(f, r.tolist(), t) for f, r, t in facts]
        good = [i for i, why in enumerate(lacks) if not why]
        n, k = len(items), len(self.dim_names)
        whole = Output(
            score=torch.full((n,), torch.nan),
            dims=torch.full((n, k), torch.nan),
            status=np.where([bool(w) for w in lacks], Status.BAD_INPUT, Status.OK).astype(np.uint8),
            detail={i: why for i, why in enumerate(lacks) if why},
        )
        return _put(whole, good, self.ask(_chosen(items, good))) if good else whole

    def save(self, folder: Path | str) -> None:
        """Write `config.json` and the model to a folder that `read_item_scorer` reads."""
        folder = Path(folder)
        self.reader.save(folder / MODEL_FOLDER)
        tree = {**asdict(self.config), "model": MODEL_FOLDER, "revision": None}
        tree = {"type": self.type, **tree, "model_sha256": self.card.trunk_sha256}
        with replacing(folder / "config.json") as temporary:
            temporary.write_text(json.dumps(tree, indent=2))


def split_roles(
    frames: Sequence[UInt8], role: Sequence[int]
) -> tuple[tuple[UInt8, ...], tuple[UInt8, ...]]:
    """Return the reference frames and the candidate's own."""
    pairs = list(zip(frames, role, strict=True))
    return (
        tuple(f for f, r in pairs if r in REFERENCES),
        tuple(f for f, r in pairs if r not in REFERENCES),
    )


def filled(template: str, text: str | None) -> str:
    """Put an item's text into a prompt; other braces stay as they are."""
    return template.replace("{text}", text or "")


def _chosen(items: RawItems, rows: list[int]) -> RawItems:
    return RawItems(
        frames=tuple(items.frames[i] for i in rows),
        texts=tuple(items.texts[i] for i in rows),
        role=tuple(items.role[i] for i in rows),
        keys=tuple(items.keys[i] for i in rows),
        seed=items.seed,
        timeout=items.timeout,
    )


def _put(whole: Output, rows: list[int], part: Output) -> Output:
    assert whole.dims is not None
    assert whole.status is not None
    assert part.dims is not None
    where = torch.tensor(rows)
    whole.score[where], whole.dims[where] = _plain(part.score), _plain(part.dims)
    if part.status is not None:
        whole.status[rows] = part.status
    whole.detail = {**whole.detail, **{rows[i]: why for i, why in part.detail.items()}}
    return whole


def _plain(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float32)
