"""What fails is NaN with a status; its neighbours do not notice."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest
import torch

from embodied_reward.errors import (
    ConfigError,
    QueueFullError,
    RequestError,
    ScoringError,
)
from embodied_reward.scoring import (
    FeatureCache,
    Head,
    ItemScorer,
    Limits,
    Output,
    ScoreBatch,
    ScorerCard,
    ScoreRequest,
    ScoringCore,
    Status,
)
from tests.scoring.conftest import (
    DEVICE,
    ConstantHead,
    CountingTrunk,
    MeanHead,
    pictures,
    scorer_of,
)

POOL = pictures(8)
BAD = np.full((1, 32, 32, 3), 255, np.uint8)


def raise_on_white(inputs):
    if (inputs.flatten(1).amin(1) > 0.99).any():
        raise ValueError("a white picture")


class PickyHead(MeanHead):
    """Raises for, or returns NaN for, items whose first view code is 1 or 2."""

    def forward(self, items):
        out = super().forward(items)
        first = items.view[items.offsets[:-1]]
        if (first == 1).any():
            raise ValueError("view 1 is not mine")
        out.score = out.score.masked_fill(
            torch.from_numpy(first == 2).to(out.score.device), torch.nan
        )
        return out


def ask(core, frames, name="mean", **kwargs):
    return core.score(ScoreRequest(scorers=name, frames=frames, **kwargs))[name]


@pytest.mark.parametrize("mode", ["strict", "tolerance"])
@pytest.mark.parametrize("cached", [False, True])
def test_a_picture_that_the_trunk_cannot_take_fails_alone(encoder, mode, cached):
    trunk = CountingTrunk(encoder, raise_on_white)
    with ScoringCore(mode=mode, cache=FeatureCache() if cached else None) as core:
        core.register(scorer_of(trunk))
        good = ask(core, POOL).require_ok()
        batch = ask(core, np.concatenate([POOL[:4], BAD, POOL[4:]]))
    assert batch.status.tolist() == [0] * 4 + [Status.SCORER_ERROR] + [0] * 4
    assert np.isnan(batch.score[4])
    assert "a white picture" in batch.detail[4]
    kept = np.delete(batch.score, 4)
    assert (kept == good).all() if mode == "strict" else np.allclose(kept, good, atol=1e-5)
    assert np.isnan(batch.per_frame[4])
    assert np.isfinite(np.delete(batch.per_frame, 4)).all()


@pytest.mark.parametrize("mode", ["strict", "tolerance"])
def test_a_head_that_raises_or_returns_nan_fails_those_items(trunk, mode):
    with ScoringCore(mode=mode) as core:
        core.register(scorer_of(trunk, PickyHead()))
        good = ask(core, POOL).require_ok()
        batch = ask(core, POOL, view=[0, 1, 0, 2, 0, 0, 1, 0], views=("a", "b", "c"))
    expected = [0, 5, 0, 5, 0, 0, 5, 0]
    assert batch.status.tolist() == expected
    assert np.isnan(batch.score[[1, 3, 6]]).all()
    kept = batch.score[batch.ok]
    assert (kept == good[batch.ok]).all() if mode == "strict" else np.allclose(kept, good[batch.ok])
    assert "view 1 is not mine" in batch.detail[1]
    with pytest.raises(ScoringError, match="3 of 8 items; the first is item 1: SCORER_ERROR"):
        batch.require_ok()


def test_features_that_are_not_finite_are_neither_scored_nor_cached(encoder):
    class Broken(CountingTrunk):
        def forward(self, inputs):
            features = super().forward(inputs)
            features[inputs.flatten(1).amin(1) > 0.99] = torch.nan
            return features

    cache = FeatureCache()
    with ScoringCore(cache=cache) as core:
        core.register(scorer_of(Broken(encoder)))
        batch = ask(core, np.concatenate([POOL, BAD]))
    assert batch.status.tolist() == [0] * 8 + [5]
    assert len(cache) == 8


def test_nothing_can_give_a_failed_item_a_number():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = 6
        status = rng.integers(0, 7, n)
        score = np.where(rng.random(n) < 0.2, np.inf, rng.normal(size=n))
        batch = ScoreBatch(
            score=score,
            status=status,
            scorer="x",
            dims=rng.normal(size=(n, 2)),
            aleatoric=rng.random(n),
            epistemic=rng.random(n),
            per_view=rng.random((n, 3)),
        )
        bad = batch.status != Status.OK
        for name in ("score", "dims", "aleatoric", "epistemic", "per_view"):
            assert np.isnan(getattr(batch, name)[bad]).all()
        assert np.isfinite(batch.score[~bad]).all()


def test_a_group_of_24_with_one_failure_keeps_the_advantages_of_the_23(encoder):
    def advantages(score):
        return (score - np.nanmean(score)) / (np.nanstd(score) + 1e-4)

    pool = pictures(23, seed=5)
    with ScoringCore() as core:
        core.register(scorer_of(CountingTrunk(encoder, raise_on_white)))
        alone = ask(core, pool).require_ok()
        batch = ask(core, np.concatenate([pool[:7], BAD, pool[7:]]))
    score, ok = batch.masked()
    assert ok.sum() == 23
    assert np.abs(advantages(score)[ok] - advantages(alone)).max() < 1e-6
    wrong = advantages(np.where(ok, score, 0.0))[ok]
    assert np.abs(wrong - advantages(alone)).max() > 0.05


def blocked_core(encoder, **kwargs):
    gate = threading.Event()
    started = threading.Event()

    def hook(_):
        started.set()
        gate.wait(20)

    core = ScoringCore(**kwargs)
    core.register(scorer_of(CountingTrunk(encoder, hook)))
    return core, gate, started


def test_an_expired_request_is_answered_and_costs_no_trunk_work(encoder):
    core, gate, started = blocked_core(encoder)
    with core:
        first = core.submit(ScoreRequest(scorers="mean", frames=POOL[:1]))
        assert started.wait(5)
        late = core.submit(ScoreRequest(scorers="mean", frames=POOL[1:], timeout=0.05))
        batch = late.result(5)["mean"]
        assert set(batch.status) == {Status.TIMEOUT}
        assert np.isnan(batch.score).all()
        gate.set()
        assert first.result(5)["mean"].ok.all()
        assert ask(core, POOL[:1]).ok.all()
        assert core.stats()["trunk_images"] == 2
        assert core.stats()["queued"] == 0


def test_a_scorer_that_hangs_lets_its_callers_go(encoder):
    core, gate, _ = blocked_core(encoder)
    with core:
        batch = ask(core, POOL, timeout=0.1)
        assert set(batch.status) == {Status.TIMEOUT}
        gate.set()


def test_back_pressure_loses_nothing_and_rejects_at_once(encoder):
    core, gate, started = blocked_core(encoder, limits=Limits(max_queued=40))
    with core:
        core.submit(ScoreRequest(scorers="mean", frames=POOL[:1]))
        assert started.wait(5)
        accepted, rejected = [], []

        def produce(seed):
            for k in range(25):
                request = ScoreRequest(scorers="mean", frames=pictures(2, seed=1000 * seed + k))
                try:
                    accepted.append(core.submit(request))
                except QueueFullError as error:
                    rejected.append(error.retry_after)
                assert core.stats()["queued"] <= 40

        threads = [threading.Thread(target=produce, args=(s,)) for s in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(accepted) + len(rejected) == 100
        assert len(accepted) == 19  # one place is taken by the first request
        assert min(rejected) > 0
        gate.set()
        assert all(f.result(20)["mean"].ok.all() for f in accepted)
        assert core.stats()["queued"] == 0


def test_answered_requests_leave_memory_long_before_their_deadlines(trunk):
    """A control loop asks a hundred times a second, and deadlines are ten minutes away."""
    alive = []
    with ScoringCore() as core:
        for k in range(200):
            frames = pictures(1, seed=k)
            alive.append(weakref.ref(frames))
            core.embed(trunk, frames)
            del frames
        gc.collect()
        assert sum(ref() is not None for ref in alive) < 10


def test_closing_sheds_what_waits(encoder):
    core, gate, started = blocked_core(encoder)
    first = core.submit(ScoreRequest(scorers="mean", frames=POOL[:1]))
    assert started.wait(5)
    waiting = core.submit(ScoreRequest(scorers="mean", frames=POOL[1:]))
    threading.Timer(0.2, gate.set).start()
    core.close()
    assert first.done()
    assert set(waiting.result(1)["mean"].status) == {Status.SHED}
    with pytest.raises(ScoringError, match="closed"):
        ask(core, POOL)


def test_a_thousand_head_swaps_under_load_mix_no_versions(trunk):
    with ScoringCore(cache=FeatureCache()) as core:
        core.register(scorer_of(trunk, ConstantHead(0)))
        ask(core, POOL)
        images = core.stats()["trunk_images"]
        stop, wrong, replies = threading.Event(), [], []

        def load(seed):
            rng = np.random.default_rng(seed)
            while not stop.is_set():
                batch = ask(core, POOL[rng.integers(0, 8, 5)])
                replies.append(batch.head_version)
                if set(batch.score) != {float(batch.head_version)}:
                    wrong.append(batch)

        threads = [threading.Thread(target=load, args=(s,)) for s in range(2)]
        for thread in threads:
            thread.start()
        for k in range(1, 1001):
            assert core.swap_head("mean", ConstantHead(k).to(DEVICE), digest=f"{k}") == k
            while len(replies) < k // 5 and not wrong:
                time.sleep(1e-4)  # let replies fall between the swaps
        stop.set()
        for thread in threads:
            thread.join()
        assert not wrong
        assert len(set(replies)) > 50
        assert core.stats()["trunk_images"] == images, "a swap must not cost trunk work"
        last = ask(core, POOL)
        assert last.head_version == 1000
        assert last.score[0] == 1000
        assert last.weights_sha256 == core.card("mean").weights_sha256


class Reader(CountingTrunk):
    """Has a text tower that cannot take one word."""

    def encode_texts(self, texts):
        if "unreadable" in texts:
            raise ValueError("no such word")
        return torch.tensor([[float(len(text))] for text in texts])


class TextHead(MeanHead):
    def forward(self, items):
        return Output(score=items.text_features[torch.from_numpy(items.text), 0])


@pytest.mark.parametrize("mode", ["strict", "tolerance"])
def test_a_text_that_cannot_be_read_fails_its_items_alone(encoder, mode):
    with ScoringCore(mode=mode, cache=FeatureCache()) as core:
        core.register(scorer_of(Reader(encoder), TextHead()))
        texts = ("ab", "unreadable", "abc")
        batch = ask(core, POOL[:6], texts=texts, text=[0, 1, 2, 0, 1, 2])
        assert batch.status.tolist() == [0, 5, 0, 0, 5, 0]
        assert batch.score[batch.ok].tolist() == [2, 3, 2, 3]
        assert "no such word" in batch.detail[1]
        none = ask(core, POOL[:2], texts=("unreadable",))
    assert set(none.status) == {Status.SCORER_ERROR}


class NamelessTrunk(CountingTrunk):
    """Breaks where the engine itself touches it."""

    @property
    def lane(self):
        raise RuntimeError("no name")


def test_a_scorer_that_breaks_the_engine_takes_no_other_scorer_with_it(encoder, trunk):
    with ScoringCore() as core:
        core.register(scorer_of(trunk))
        core.register(scorer_of(NamelessTrunk(encoder), name="nameless"))
        core.register(scorer_of(Reader(encoder), TextHead(), name="reader"))
        names = ("nameless", "mean", "reader")
        found = core.score(ScoreRequest(scorers=names, frames=POOL, texts=("unreadable",)))
        assert found["mean"].ok.all()
        assert set(found["nameless"].status) == set(found["reader"].status) == {5}
        assert "no name" in found["nameless"].detail[0]
        assert core.stats()["queued"] == 0


class EchoItems(ItemScorer):
    """Scores an item by its text; sleeps, raises or returns too little when told to."""

    max_items = 4

    def __init__(self, name="echo"):
        self.card = ScorerCard(name=name, type="echo")
        self.calls = []

    def evaluate(self, items):
        self.calls.append(len(items))
        for text in items.texts:
            if text == "raise":
                raise RuntimeError("told to")
            if text == "sleep":
                time.sleep(0.5)
        values = [float("nan") if t == "nan" else float(t) for t in items.texts]
        if values == [9.0]:
            values = values * 2
        return Output(score=torch.tensor(values))


def test_item_scorers_batch_isolate_and_time_out():
    texts = ("1", "2", "raise", "nan", "3", "x")
    with ScoringCore() as core:
        echo = EchoItems()
        core.register(echo)
        frames = pictures(6)
        batch = ask(core, frames, "echo", texts=texts)
        assert batch.status.tolist() == [0, 0, 5, 5, 0, 5]
        assert batch.score[[0, 1, 4]].tolist() == [1.0, 2.0, 3.0]
        assert "told to" in batch.detail[2]
        assert "could not convert" in batch.detail[5]
        assert max(echo.calls) == 4
        assert set(ask(core, frames[:1], "echo", texts=("sleep",), timeout=0.1).status) == {3}
        assert "2 score for 1 items" in ask(core, frames[:1], "echo", texts=("9",)).detail[0]


def test_a_scorer_that_only_fails_is_not_ready_and_harms_no_other(trunk, encoder):
    with ScoringCore() as core:
        core.register(scorer_of(trunk))
        core.register(EchoItems())
        for _ in range(3):
            request = ScoreRequest(scorers=("mean", "echo"), frames=POOL[:1], texts=("raise",))
            found = core.score(request)
            assert found["mean"].ok.all()
            assert not found["echo"].ok.any()
        assert core.ready("mean")
        assert not core.ready("echo")
        ask(core, POOL[:1], "echo", texts=("1",))
        assert core.ready("echo")


def test_mistakes_of_the_caller_have_one_clear_error(scorer):
    with ScoringCore(limits=Limits(max_frames=4)) as core:
        core.register(scorer)
        with pytest.raises(RequestError, match="no scorer 'maen'; did you mean 'mean'"):
            ask(core, POOL[:1], "maen")
        with pytest.raises(RequestError, match="max_frames=4 is the limit"):
            ask(core, POOL)
        with pytest.raises(ConfigError, match="registered already"):
            core.register(scorer)
    with pytest.raises(ConfigError, match="accepted: tolerance, strict"):
        ScoringCore(mode="exact")


def test_embed_raises_for_a_picture_without_features(encoder):
    with ScoringCore() as core:
        trunk = CountingTrunk(encoder, raise_on_white)
        assert core.embed(trunk, POOL).shape == (8, 64)
        with pytest.raises(ScoringError, match="frame 0: .*white picture"):
            core.embed(trunk, BAD)


class NoOutput(Head):
    def forward(self, items):
        return Output(score=torch.zeros(len(items) + 1))


def test_a_head_of_the_wrong_length_is_an_error_not_a_shift(trunk):
    with ScoringCore() as core:
        core.register(scorer_of(trunk, NoOutput()))
        batch = ask(core, POOL)
    assert set(batch.status) == {Status.SCORER_ERROR}
