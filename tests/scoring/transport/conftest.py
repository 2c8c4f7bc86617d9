"""Cores to serve: a real one with tiny scorers, and a scripted one that needs no model."""

import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest
import torch

from embodied_reward.errors import QueueFullError, RequestError
from embodied_reward.scoring import (
    FeatureCache,
    Head,
    Limits,
    Output,
    ScoreBatch,
    Scorer,
    ScorerCard,
    ScoreRequest,
    ScoringCore,
    Status,
)
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.vision.encoders import ConvEncoder


class ColumnsHead(Head):
    """Fills every column of a reply, and fails items without a frame."""

    dim_names = ("left", "right")

    def __init__(self, dim, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(dim, 2, generator=generator) / dim**0.5)

    def forward(self, items):
        dims = items.mean_features() @ self.weight
        empty = np.diff(items.offsets) == 0
        noise = [items.generator(i).standard_normal() for i in range(len(items))]
        return Output(
            score=dims.sum(1) + 0.01 * items.time.new_tensor(items.text) * (items.passes > 0),
            dims=dims,
            epistemic=torch.tensor(noise).abs().float() if items.passes else None,
            per_frame=items.features @ self.weight[:, 0] + items.time,
            per_view=dims[:, :1].expand(-1, len(items.views)),
            status=np.where(empty, Status.BAD_INPUT, Status.OK).astype(np.uint8),
            detail={int(i): "no frame" for i in np.flatnonzero(empty)},
        )


def scorer(name, trunk, seed):
    card = ScorerCard(
        name=name,
        type="columns",
        weights_sha256=f"{seed:064x}",
        preprocess=trunk.preprocess_id,
        dim_names=ColumnsHead.dim_names,
        score_range=(float("-inf"), 5.0),
        normalizer=((0.0, 1.0), (0.5, 2.0)),
        extra={"note": ["tiny"]},
    )
    return Scorer(card, trunk, ColumnsHead(trunk.encoder.dim, seed))


@pytest.fixture(scope="session")
def tiny_scorers():
    torch.manual_seed(0)
    trunk = EncoderTrunk(ConvEncoder("conv64", 16, 32))
    return [scorer("progress", trunk, 1), scorer("success", trunk, 2)]


@pytest.fixture
def core(tiny_scorers):
    with ScoringCore(cache=FeatureCache(), mode="strict", canonical=4) as real:
        for each in tiny_scorers:
            real.register(each)
        yield real


class ScriptedCore:
    """Answers at once, later or never; the score of an item is the mean of its first frame.

    `places` bounds the unfinished requests; `torn` counts requests whose frames are not all of the
    value that the request's seed announces.
    """

    def __init__(self, places=64):
        self.names, self.limits = ("progress",), Limits(max_frames=4096, max_bytes=1 << 26)
        self.places, self.waiting = places, []
        self.accepted = self.rejected = self.deepest = self.torn = 0
        self.hold, self.raises, self.warm = threading.Event(), None, True
        self.lock = threading.Lock()

    def card(self, name):
        return ScorerCard(name=name, type="scripted")

    def ready(self, name):
        return self.warm

    def stats(self):
        return {"queued": float(len(self.waiting))}

    def score(self, request):
        return self.submit(request).result()

    def submit(self, request: ScoreRequest):
        if self.raises is not None:
            raise self.raises
        if request.scorers != self.names:
            raise RequestError(f"no scorer {request.scorers}")
        future = Future()
        with self.lock:
            if len(self.waiting) >= self.places:
                self.rejected += 1
                raise QueueFullError("full", retry_after=0.01)
            self.accepted += 1
            self.torn += any((arena != request.seed % 251).any() for arena in request.frames)
            self.waiting.append((future, request))
            self.deepest = max(self.deepest, len(self.waiting))
        if not self.hold.is_set():
            self.finish(1)
        return future

    def finish(self, count=None):
        """Answer the oldest requests that wait."""
        with self.lock:
            count = len(self.waiting) if count is None else count
            now, self.waiting = self.waiting[:count], self.waiting[count:]
        for future, request in now:
            means = [request.frame(request.index[k]).mean() for k in request.offsets[:-1]]
            batch = ScoreBatch(
                score=np.array(means, np.float32),
                status=np.zeros(len(request), np.uint8),
                scorer="progress",
                seconds={"queue": 0.001, "trunk": 0.002},
            )
            if not future.cancelled():
                future.set_result({"progress": batch})


@pytest.fixture
def scripted():
    return ScriptedCore()


@pytest.fixture
def until():
    """Wait for a condition, with a deadline."""

    def wait(condition, seconds=20.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.005)

    return wait


@pytest.fixture
def full_request():
    """A request that uses every column, with an item that fails."""
    rng = np.random.default_rng(1)
    return ScoreRequest(
        scorers=("success", "progress"),
        frames=(
            rng.integers(0, 256, (4, 40, 50, 3), np.uint8),
            rng.integers(0, 256, (1, 32, 32, 3), np.uint8),
        ),
        index=np.array([0, 1, 2, 1, 2, 3, 4]),
        offsets=np.array([0, 3, 6, 6, 7]),
        time=np.array([0, 0.1, 0.2, 0.1, 0.2, 0.3, 0], np.float32),
        view=np.array([0, 1, 0, 1, 0, 1, 0]),
        role=np.array([1, 0, 0, 1, 0, 0, 0]),
        views=("corner", "wrist"),
        text=np.full(4, -1),
        passes=3,
        seed=11,
        timeout=30.0,
    )
