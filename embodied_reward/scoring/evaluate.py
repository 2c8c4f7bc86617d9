"""Run heads on the features of requests, batched across requests, and isolate what fails."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from embodied_reward.scoring.batch import ScoreBatch
from embodied_reward.scoring.columns import Columns, broken, empty, to_columns
from embodied_reward.scoring.job import Gather, Job
from embodied_reward.scoring.keys import Chosen, ItemKeys
from embodied_reward.scoring.scorer import Head, Items, ScorerCard
from embodied_reward.types import Int64, UInt8


@dataclass(frozen=True)
class Version:
    """One head at one moment; a reply is made from exactly one."""

    card: ScorerCard
    head: Head
    number: int


@dataclass
class Part:
    """A request's items for one scorer.

    Attributes:
        job: the request.
        gather: features of its frames.
        text_features: Tensor["m d"] of its texts, or None.
        failed_texts: text -> what went wrong.
    """

    job: Job
    gather: Gather
    text_features: Tensor | None = None
    failed_texts: Mapping[int, str] = field(default_factory=dict)

    def failed(self) -> dict[int, str]:
        """Return item -> why, for items that refer to a frame or a text without features."""
        request, lost, unread = self.job.request, self.gather.failed, self.failed_texts
        found = {i: unread[t] for i, t in enumerate(request.text.tolist()) if t in unread}
        if lost:
            owner = np.repeat(np.arange(len(request)), np.diff(request.offsets)).tolist()
            rows = zip(owner, self.gather.rows.tolist(), strict=True)
            found |= {item: lost[row] for item, row in rows if row in lost}
        return found

    def items(self) -> Items:
        """Return what the head sees."""
        request, features = self.job.request, self.gather.features
        return Items(
            features=features,
            offsets=request.offsets,
            time=torch.tensor(request.time, device=features.device),
            view=request.view.astype(np.int64),
            role=request.role.astype(np.int64),
            views=request.views,
            text_features=self.text_features,
            text=request.text,
            group=request.group,
            user=request.user,
            keys=ItemKeys(request, self.job.frame),
            passes=request.passes,
            seed=request.seed,
        )


def evaluate(version: Version, parts: Sequence[Part], *, strict: bool) -> list[ScoreBatch]:
    """Score the items of several requests with one head.

    In strict mode every item (or group, for a groupwise head) is scored alone, so that its score
    cannot depend on what else was asked for.
    """
    start = time.monotonic()
    failed = [part.failed() for part in parts]
    keep = [
        [i for i in range(len(p.job.request)) if i not in f]
        for p, f in zip(parts, failed, strict=True)
    ]
    chosen = [_chosen(p.items(), k) for p, k in zip(parts, keep, strict=True)]
    if len(parts) > 1 and not strict and _alike(chosen):
        columns = _split(_score(version.head, _concat(chosen), strict=False), chosen)
    else:
        columns = [_score(version.head, items, strict=strict) for items in chosen]
    seconds = time.monotonic() - start
    return [
        _batch(version, part, _restore(part, f, k, found), seconds)
        for part, f, k, found in zip(parts, failed, keep, columns, strict=True)
    ]


def _chosen(items: Items, keep: list[int]) -> Items:
    return items if len(keep) == len(items) else items.take(keep)


def _alike(chosen: Sequence[Items]) -> bool:
    """Whether requests may share one call: nothing that holds for a whole call differs."""
    first = chosen[0]
    return all(
        (i.views, i.passes, i.seed) == (first.views, first.passes, first.seed)
        and (i.text_features is None) == (first.text_features is None)
        and i.features.shape[1:] == first.features.shape[1:]
        for i in chosen
    )


def _concat(chosen: Sequence[Items]) -> Items:
    frames = _starts([len(i.features) for i in chosen])
    groups = _starts([int(i.group.max(initial=0)) + 1 for i in chosen])
    texts = [i.text_features for i in chosen if i.text_features is not None]
    rows = _starts([0 if i.text_features is None else len(i.text_features) for i in chosen])
    text = [np.where(i.text < 0, -1, i.text + at) for i, at in zip(chosen, rows, strict=True)]
    ends = [i.offsets[1:] + at for i, at in zip(chosen, frames, strict=True)]
    return Items(
        features=torch.cat([i.features for i in chosen]),
        offsets=np.concatenate([[0], *ends]).astype(np.int64),
        time=torch.cat([i.time for i in chosen]),
        view=np.concatenate([i.view for i in chosen]),
        role=np.concatenate([i.role for i in chosen]),
        views=chosen[0].views,
        text_features=torch.cat(texts) if texts else None,
        text=np.concatenate(text),
        group=np.concatenate([i.group + at for i, at in zip(chosen, groups, strict=True)]),
        user=np.concatenate([i.user for i in chosen]),
        keys=Chosen([(i.keys, k) for i in chosen for k in range(len(i))]),
        passes=chosen[0].passes,
        seed=chosen[0].seed,
    )


def _starts(lengths: list[int]) -> Int64:
    return np.cumsum([0, *lengths])[:-1]


def _split(whole: Columns, chosen: Sequence[Items]) -> list[Columns]:
    found, item, row = [], 0, 0
    for items in chosen:
        part = whole.take(range(item, item + len(items)))
        if whole.per_frame is not None:
            part.per_frame = whole.per_frame[row : row + len(items.features)]
        found.append(part)
        item, row = item + len(items), row + len(items.features)
    return found


def _score(head: Head, items: Items, *, strict: bool) -> Columns:
    """Call the head; if it raises, call it item by item, so that only the culprit fails."""
    if not strict:
        try:
            return _call(head, items)
        except Exception as error:  # noqa: BLE001 (a scorer may raise anything)
            if len(items) == 1:
                return broken(1, error)
    whole = empty(len(items), len(items.features))
    framed = False
    for unit in _groups(items) if head.groupwise else [[i] for i in range(len(items))]:
        try:
            part = _call(head, items.take(unit))
        except Exception as error:  # noqa: BLE001
            part = broken(len(unit), error)
        framed = framed or part.per_frame is not None
        whole.put(unit, part, _rows(items.offsets, unit))
    whole.per_frame = whole.per_frame if framed else None
    return whole


def _call(head: Head, items: Items) -> Columns:
    if not len(items):
        return empty(0)
    with torch.no_grad():
        return to_columns(head(items), len(items))


def _groups(items: Items) -> list[list[int]]:
    return [np.flatnonzero(items.group == g).tolist() for g in dict.fromkeys(items.group.tolist())]


def _rows(offsets: Int64, chosen: Sequence[int]) -> Int64:
    spans = [np.arange(offsets[i], offsets[i + 1]) for i in chosen]
    return np.concatenate(spans).astype(np.int64) if spans else np.zeros(0, np.int64)


def _restore(part: Part, failed: dict[int, str], keep: list[int], found: Columns) -> Columns:
    """Put the items back that never reached the head."""
    if not failed:
        return found
    request = part.job.request
    whole = empty(len(request), None if found.per_frame is None else request.references)
    whole.detail.update(failed)
    whole.put(keep, found, _rows(request.offsets, keep))
    return whole


def _batch(version: Version, part: Part, found: Columns, seconds: float) -> ScoreBatch:
    return ScoreBatch(
        **found.floats,
        per_frame=found.per_frame,  # type: ignore[arg-type]
        status=found.status,
        detail=found.detail,
        scorer=version.card.name,
        weights_sha256=version.card.weights_sha256,
        head_version=version.number,
        preprocess=version.card.preprocess,
        dim_names=version.head.dim_names,
        cached=_cached(part.job.request.offsets, part.gather),
        seconds={**part.job.seconds, "head": seconds},
    )


def _cached(offsets: Int64, gather: Gather) -> UInt8:
    if not gather.hit.any():
        return np.zeros(len(offsets) - 1, np.uint8)
    hit = np.concatenate([[0], np.cumsum(gather.hit[gather.rows])])
    return (hit[offsets[1:]] - hit[offsets[:-1]] == np.diff(offsets)).astype(np.uint8)
