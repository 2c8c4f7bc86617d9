"""The scoring core as a side, in process."""

from concurrent.futures import Future

import numpy as np
from sides import Side
from trunk_zoo import BATCH, Model

from embodied_reward.scoring import (
    FeatureCache,
    Scorer,
    ScorerCard,
    ScoreRequest,
    ScoringCore,
)
from embodied_reward.types import Float32, UInt8

NAMES = ("head0", "head1", "head2")


def core_of(model: Model, *, cached: bool, mode: str = "tolerance") -> ScoringCore:
    """A core that hosts the three heads on the one trunk."""
    cache = FeatureCache() if cached else None
    core = ScoringCore(cache=cache, max_batch=BATCH, mode=mode)  # type: ignore[arg-type]
    for name, head in zip(NAMES, model.heads, strict=True):
        core.register(Scorer(ScorerCard(name, "benchmark"), model.trunk, head))
    return core


class Ours(Side):
    """Asks `self.client`, anything with `score(request)`."""

    def _ask(self, **columns) -> Float32:  # noqa: ANN003
        request = ScoreRequest(scorers=NAMES[:1], **columns)
        return self.client.score(request)[NAMES[0]].require_ok()

    def score(self, frames: UInt8, texts: list[str] | None = None) -> Float32:
        if texts is None:
            return self._ask(frames=frames)
        distinct = tuple(dict.fromkeys(texts))
        text = np.array([distinct.index(t) for t in texts])
        return self._ask(frames=frames, texts=distinct, text=text)

    def windows(self, frames: UInt8, width: int) -> Float32:
        count = len(frames) - width + 1
        index = (np.arange(width)[None] + np.arange(count)[:, None]).ravel()
        return self._ask(frames=frames, index=index, offsets=np.arange(count + 1) * width)

    def stream(self, frames: UInt8, width: int) -> Float32:
        ends = range(width, len(frames) + 1)
        one = np.array([0, width])
        found = [self._ask(frames=frames[e - width : e], offsets=one) for e in ends]
        return np.concatenate(found)

    def heads(self, frames: UInt8) -> list[Float32]:
        replies = self.client.score(ScoreRequest(scorers=NAMES, frames=frames))
        return [replies[name].require_ok() for name in NAMES]


class InProcess(Ours):
    """The core in this process."""

    def __init__(self, model: Model, *, cached: bool = True, mode: str = "tolerance") -> None:
        self.name = "core" if cached else "core, no cache"
        self.client = core_of(model, cached=cached, mode=mode)

    def submit(self, frame: UInt8) -> Future:
        return self.client.submit(ScoreRequest(scorers=NAMES[:1], frames=frame[None]))

    def close(self) -> None:
        self.client.close()
