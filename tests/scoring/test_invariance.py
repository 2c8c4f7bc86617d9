"""A score is a function of its item: not of slot, batch, neighbours, threads or noise order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_reward.scoring import FeatureCache, Head, Output, ScoreRequest, ScoringCore
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.vision.encoders import ConvEncoder
from tests.scoring.conftest import MeanHead, pictures, scorer_of

POOL = pictures(24)


def scores(core, frames, **kwargs):
    return core.score(ScoreRequest(scorers="mean", frames=frames, **kwargs))["mean"].require_ok()


@pytest.fixture(scope="module")
def strict(encoder):
    from tests.scoring.conftest import CountingTrunk

    with ScoringCore(mode="strict", canonical=16) as core:
        core.register(scorer_of(CountingTrunk(encoder)))
        yield core, scores(core, POOL)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 23), min_size=1, max_size=40))
def test_strict_scores_are_bit_equal_in_any_composition(strict, order):
    core, alone = strict
    assert (scores(core, POOL[order]) == alone[order]).all()


def test_strict_scores_are_bit_equal_when_requests_meet_in_one_batch(strict):
    core, alone = strict
    rng = np.random.default_rng(0)
    orders = [rng.integers(0, 24, rng.integers(1, 12)) for _ in range(60)]
    requests = [ScoreRequest(scorers="mean", frames=POOL[order]) for order in orders]
    futures = [core.submit(request) for request in requests]
    for order, future in zip(orders, futures, strict=True):
        assert (future.result(60)["mean"].score == alone[order]).all()


def test_strict_features_of_a_convolution_are_bit_equal_too():
    """Full and padded batches must not differ in layout, which chooses the algorithm."""
    torch.manual_seed(0)
    trunk = EncoderTrunk(ConvEncoder("conv64", 32, 32))
    rng = np.random.default_rng(2)
    with ScoringCore(mode="strict") as core:
        alone = core.embed(trunk, POOL)
        for size in (1, 7, 16, 23):
            order = rng.integers(0, 24, size)
            assert torch.equal(core.embed(trunk, POOL[order]), alone[order])


@pytest.mark.slow
def test_ten_thousand_random_compositions_are_bit_equal(strict):
    core, alone = strict
    rng = np.random.default_rng(1)
    for _ in range(250):
        orders = [rng.integers(0, 24, rng.integers(1, 20)) for _ in range(40)]
        futures = [core.submit(ScoreRequest(scorers="mean", frames=POOL[o])) for o in orders]
        for order, future in zip(orders, futures, strict=True):
            assert (future.result(60)["mean"].score == alone[order]).all()


def test_two_threads_give_the_bits_of_one(strict):
    core, alone = strict
    torch.set_num_threads(2)
    try:
        assert (scores(core, POOL) == alone).all()
    finally:
        torch.set_num_threads(1)


def test_tolerance_mode_stays_within_1e5_of_the_spread(scorer):
    with ScoringCore() as core:
        core.register(scorer)
        alone = np.array([scores(core, POOL[k : k + 1])[0] for k in range(24)])
        together = scores(core, POOL)
    assert np.abs(together - alone).max() <= 1e-5 * alone.std()


def test_a_picture_is_resized_as_if_it_were_alone(scorer):
    small, large = pictures(3), pictures(2, seed=1, size=48)
    with ScoringCore(mode="strict") as core:
        core.register(scorer)
        mixed = scores(core, (small[:1], large, small[1:]))
        parts = [scores(core, part) for part in (small, large)]
    assert (mixed == np.concatenate(parts)[[0, 3, 4, 1, 2]]).all()


class NoisyHead(MeanHead):
    """Dropout by content-keyed generators, `passes` times."""

    def forward(self, items):
        found = super().forward(items).score
        if not items.passes:
            return Output(score=found)
        noise = [items.generator(i).normal(size=items.passes) for i in range(len(items))]
        spread = torch.tensor(np.std(noise, axis=1), dtype=torch.float32)
        return Output(score=found, epistemic=spread)


def test_noise_follows_the_content_and_the_seed(trunk):
    with ScoringCore(cache=FeatureCache()) as core:
        core.register(scorer_of(trunk, NoisyHead()))

        def sigma(frames, seed):
            request = ScoreRequest(scorers="mean", frames=frames, passes=4, seed=seed)
            return core.score(request)["mean"].epistemic

        whole = sigma(POOL, 7)
        order = np.random.default_rng(0).permutation(24)
        assert (sigma(POOL[order], 7) == whole[order]).all()
        assert all(sigma(POOL[k : k + 1], 7)[0] == whole[k] for k in range(5))
        assert (sigma(POOL, 8) != whole).all()
        assert len(set(whole.tolist())) == 24


class ContextHead(Head):
    """Scores a candidate relative to its group."""

    groupwise = True

    def forward(self, items):
        mean = items.mean_features()[:, 0]
        group = torch.from_numpy(items.group)
        centre = {g: mean[group == g].mean() for g in items.group.tolist()}
        return Output(
            score=torch.stack([m - centre[int(g)] for m, g in zip(mean, group, strict=True)])
        )


@pytest.mark.parametrize("mode", ["strict", "tolerance"])
def test_groups_stay_together_and_apart(trunk, mode):
    with ScoringCore(mode=mode) as core:
        core.register(scorer_of(trunk, ContextHead()))
        group = np.array([0, 1, 0, 1, 0, 2])
        found = scores(core, POOL[:6], group=group)
        for g in (0, 1):
            assert abs(found[group == g].sum()) < 1e-5
            assert np.abs(found[group == g]).min() > 1e-6
        assert abs(found[5]) < 1e-6
        other = [core.submit(ScoreRequest(scorers="mean", frames=POOL[6:9], group=[0, 0, 0]))]
        again = core.submit(ScoreRequest(scorers="mean", frames=POOL[:6], group=group))
        assert np.abs(again.result(60)["mean"].score - found).max() < 1e-5
        assert abs(other[0].result(60)["mean"].score.sum()) < 1e-5
