"""Each picture is encoded once; who waits longest, or must be first, goes first."""

import threading
import warnings

import numpy as np
import pytest
import torch

from embodied_reward.errors import ConfigError
from embodied_reward.scoring import FeatureCache, Priority, ScoreRequest, ScoringCore
from tests.scoring.conftest import DEVICE, CountingTrunk, MeanHead, pictures, scorer_of

POOL = pictures(12)


def ask(core, frames, name="mean", **kwargs):
    return core.score(ScoreRequest(scorers=name, frames=frames, **kwargs))[name]


@pytest.mark.parametrize("mode", ["strict", "tolerance"])
@pytest.mark.parametrize("hash_name", ["xxh3", "blake2b"])
def test_a_hit_is_the_bits_of_the_miss(trunk, mode, hash_name):
    with ScoringCore(cache=FeatureCache(hash=hash_name), mode=mode) as core:
        core.register(scorer_of(trunk))
        first = ask(core, POOL)
        second = ask(core, POOL)
    assert first == second
    assert first.cached.tolist() == [0] * 12
    assert second.cached.tolist() == [1] * 12
    assert core.stats()["trunk_images"] == 12


def test_identical_pictures_in_flight_are_one_trunk_call(encoder):
    gate = threading.Event()
    trunk = CountingTrunk(encoder, lambda _: gate.wait(10))
    with ScoringCore(cache=FeatureCache()) as core:
        core.register(scorer_of(trunk))
        block = core.submit(ScoreRequest(scorers="mean", frames=POOL[:1]))
        same = [ScoreRequest(scorers="mean", frames=POOL[[3, 3, 3]]) for _ in range(10)]
        futures = [core.submit(request) for request in same]
        gate.set()
        found = [f.result(10)["mean"].require_ok() for f in (block, *futures)]
        assert core.stats()["trunk_images"] == 2
    assert np.ptp(np.concatenate(found[1:])) < 1e-5


def test_sliding_windows_encode_every_frame_once(trunk):
    index = np.concatenate([np.arange(k, k + 8) for k in range(5)])
    request = dict(frames=POOL, index=index, offsets=np.arange(0, 41, 8))
    with ScoringCore() as core:
        core.register(scorer_of(trunk))
        windows = ask(core, **request)
        assert core.stats()["trunk_images"] == 12  # one arena: no cache is needed
        alone = ask(core, POOL).score
    expected = [alone[k : k + 8].mean() for k in range(5)]
    assert np.allclose(windows.score, expected, atol=1e-5)


def test_two_scorers_on_one_trunk_share_batches_and_features(trunk):
    with ScoringCore() as core:
        core.register(scorer_of(trunk, name="a"))
        core.register(scorer_of(trunk, MeanHead(seed=1), name="b"))
        found = core.score(ScoreRequest(scorers=("a", "b"), frames=POOL))
        assert core.stats()["trunk_images"] == 12
    assert found["a"].ok.all()
    assert (found["a"].score != found["b"].score).all()


def test_another_trunk_or_preprocessing_has_no_hits(encoder):
    cache = FeatureCache()
    with ScoringCore(cache=cache) as core:
        first, second, third = (
            CountingTrunk(encoder),
            CountingTrunk(encoder),
            CountingTrunk(encoder),
        )
        second.digest, third.preprocess_id = "other weights", "other pixels"
        for name, trunk in zip("abc", (first, second, third), strict=True):
            core.register(scorer_of(trunk, name=name))
            assert not ask(core, POOL, name).cached.any()
            assert ask(core, POOL, name).cached.all()
    with ScoringCore(cache=cache, mode="strict") as core:
        core.register(scorer_of(first, name="a"))
        assert not ask(core, POOL, "a").cached.any(), "strict bits are not tolerance bits"


def test_the_cache_forgets_the_least_recently_used(trunk):
    row = 64 * 4
    cache = FeatureCache(capacity_bytes=8 * row)
    with ScoringCore(cache=cache) as core:
        core.register(scorer_of(trunk))
        ask(core, POOL[:8])
        ask(core, POOL[:4])
        ask(core, POOL[8:12])
        assert len(cache) == 8
        assert ask(core, POOL[[0, 1, 2, 3, 8, 9, 10, 11]]).cached.all()
        assert not ask(core, POOL[4:8]).cached.any()
        whole = ask(core, POOL)
        assert whole.ok.all()


def test_features_outlive_the_process_and_its_heads(encoder, tmp_path):
    with ScoringCore(cache=FeatureCache(folder=tmp_path)) as core:
        core.register(scorer_of(CountingTrunk(encoder)))
        first = ask(core, POOL)
    with ScoringCore(cache=FeatureCache(folder=tmp_path)) as core:
        core.register(scorer_of(CountingTrunk(encoder)))
        assert ask(core, POOL) == first
        core.swap_head("mean", MeanHead(seed=3).to(DEVICE))
        assert ask(core, POOL).cached.all()
        assert "trunk_images" not in core.stats()


def test_repeated_pictures_come_back_from_disk_at_their_places(encoder, tmp_path):
    order = [0, 1, 0, 2, 1, 3]
    for _ in range(2):
        with ScoringCore(cache=FeatureCache(folder=tmp_path)) as core:
            trunk = CountingTrunk(encoder)
            mixed, plain = core.embed(trunk, POOL[order]), core.embed(trunk, POOL[:4])
        torch.testing.assert_close(mixed, plain[order])
    assert trunk.batches == []


def test_a_damaged_segment_is_ignored_with_a_warning(encoder, tmp_path):
    with ScoringCore(cache=FeatureCache(folder=tmp_path)) as core:
        core.register(scorer_of(CountingTrunk(encoder)))
        first = ask(core, POOL)
    (segment,) = tmp_path.rglob("*.safetensors")
    segment.write_bytes(segment.read_bytes()[:-100])
    (segment.parent / ".half.1.tmp.safetensors").write_bytes(b"being written")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with ScoringCore(cache=FeatureCache(folder=tmp_path)) as core:
            core.register(scorer_of(CountingTrunk(encoder)))
            again = ask(core, POOL)
    assert "damaged" in str(seen[0].message)
    assert len(seen) == 1
    assert np.allclose(again.score, first.score, atol=1e-6)
    assert not again.cached.any()


def test_embed_takes_any_number_of_frames(trunk, monkeypatch):
    from embodied_reward.scoring import core as module

    with ScoringCore(cache=FeatureCache()) as core:
        whole = core.embed(trunk, POOL)
        monkeypatch.setattr(module, "EMBED_CHUNK", 5)
        assert (core.embed(trunk, torch.from_numpy(POOL)) == whole).all()
        assert core.stats()["trunk_images"] == 12


@pytest.mark.parametrize("order", [[0, 1, 0], [1, 1, 0, 2, 0], [2, 0, 1, 2]])
def test_repeated_pictures_in_one_request_keep_their_places(trunk, order):
    frames = pictures(3)
    with ScoringCore(cache=FeatureCache()) as core:
        mixed, plain = core.embed(trunk, frames[order]), core.embed(trunk, frames)
    torch.testing.assert_close(mixed, plain[order])


def test_an_unknown_hash_is_refused():
    with pytest.raises(ConfigError, match="no content hash 'md5'"):
        FeatureCache(hash="md5")


def test_a_lone_request_is_launched_at_once_and_alone(trunk):
    with ScoringCore() as core:
        core.register(scorer_of(trunk))
        for n in (1, 3, 1):
            ask(core, POOL[:n])
        assert trunk.batches == [1, 3 if DEVICE == "cpu" else 4, 1]  # CUDA pads to few sizes


class Recorder(CountingTrunk):
    """Remembers the order in which pictures were encoded, by their first pixel."""

    def __init__(self, encoder):
        self.order, self.gate, self.started = [], threading.Event(), threading.Event()
        super().__init__(encoder, self._note)

    def _note(self, inputs):
        self.order += (inputs[:, 0, 0, 0] * 255).round().int().tolist()
        self.started.set()
        self.gate.wait(10)


def marked(value):
    frame = np.zeros((1, 32, 32, 3), np.uint8)
    frame[0, 0, 0, 0] = value
    return frame


def dispatch_order(encoder, requests):
    trunk = Recorder(encoder)
    with ScoringCore(max_batch=1) as core:
        core.register(scorer_of(trunk))
        first = core.submit(ScoreRequest(scorers="mean", frames=marked(255)))
        assert trunk.started.wait(5)
        futures = [core.submit(ScoreRequest(scorers="mean", **r)) for r in requests]
        trunk.gate.set()
        for future in (first, *futures):
            assert future.result(20)["mean"].ok.all()
    return trunk.order[1:]


def test_control_loops_go_before_trainers_before_labelling(encoder):
    order = dispatch_order(
        encoder,
        [
            dict(frames=marked(1), priority=Priority.RELABEL),
            dict(frames=marked(2), priority=Priority.TRAINER),
            dict(frames=marked(3), priority=Priority.CONTROL),
            dict(frames=marked(4), priority=Priority.CONTROL),
        ],
    )
    assert order == [3, 4, 2, 1]


def test_earlier_deadlines_go_first(encoder):
    order = dispatch_order(
        encoder,
        [dict(frames=marked(k), timeout=t) for k, t in ((1, 9.0), (2, 3.0), (3, 6.0), (4, None))],
    )
    assert order == [2, 3, 1, 4]


def test_waiting_outweighs_priority(encoder, monkeypatch):
    clock = iter([*np.zeros(1), *np.arange(1, 100)])
    from embodied_reward.scoring import job as jobs
    from embodied_reward.scoring.job import Job

    monkeypatch.setattr(jobs.time, "monotonic", lambda: next(clock))
    old = Job(ScoreRequest(scorers="a", frames=POOL[:1], priority=2), [], max_wait=600, ageing=5)
    young = [
        Job(ScoreRequest(scorers="a", frames=POOL[:1], priority=0), [], max_wait=600, ageing=5)
        for _ in range(20)
    ]
    ahead = sum(job.rank < old.rank for job in young)
    assert ahead == 9, "a labelling request waits for ten seconds of control requests, not for all"


def test_identical_texts_are_encoded_once(encoder):
    class Texts(CountingTrunk):
        def __init__(self, encoder):
            super().__init__(encoder)
            self.texts = []

        def encode_texts(self, texts):
            self.texts += texts
            return torch.tensor([[float(len(t))] * 64 for t in texts])

    class TextHead(MeanHead):
        def forward(self, items):
            out = super().forward(items)
            out.score = items.text_features[torch.from_numpy(items.text), 0]
            return out

    trunk = Texts(encoder)
    with ScoringCore(cache=FeatureCache()) as core:
        core.register(scorer_of(trunk, TextHead()))
        found = ask(core, POOL, texts=("ab", "abcd"), text=[0, 1] * 6)
        assert found.score.tolist() == [2.0, 4.0] * 6
        assert ask(core, POOL, texts=("abc", "ab"), text=[1, 0] * 6).score.tolist() == [2, 3] * 6
        assert trunk.texts == ["ab", "abcd", "abc"]
        requests = [ScoreRequest(scorers="mean", frames=POOL[:2], texts=(w,)) for w in ("q", "qq")]
        futures = [core.submit(r) for r in requests]
        assert [f.result(9)["mean"].score.tolist() for f in futures] == [[1, 1], [2, 2]]
