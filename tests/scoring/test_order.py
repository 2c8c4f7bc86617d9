"""Every item gets the features of its own frames, however they are ordered or repeated."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_reward.scoring import FeatureCache, ScoreRequest, ScoringCore

from .conftest import DEVICE, CountingTrunk, pictures, scorer_of


@pytest.fixture(scope="module")
def known(encoder):
    """A scorer, six pictures of two sizes, and the score of each of them alone."""
    scorer = scorer_of(CountingTrunk(encoder))
    arenas = [pictures(1, seed=k, size=32 if k % 2 else 24) for k in range(6)]
    with torch.no_grad():
        each = [
            scorer.trunk.forward(scorer.trunk.preprocess(torch.from_numpy(a).to(DEVICE)))
            for a in arenas
        ]
        return scorer, arenas, scorer.head.linear(torch.cat(each)).squeeze(1).cpu().numpy()


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    picks=st.lists(st.integers(0, 7), min_size=1, max_size=8),
    cached=st.booleans(),
    seed=st.integers(0, 99),
)
def test_scores_belong_to_the_frames_that_were_asked_for(known, frames, picks, cached, seed):
    scorer, arenas, alone = known
    index = np.array([p % len(frames) for p in picks])
    if seed % 2:
        index = np.random.default_rng(seed).permutation(len(frames))
    with ScoringCore(cache=FeatureCache() if cached else None) as core:
        core.register(scorer)
        request = ScoreRequest(scorers="mean", frames=tuple(arenas[f] for f in frames), index=index)
        for _ in range(2):  # fresh, and from the cache
            found = core.score(request)["mean"].require_ok()
            np.testing.assert_allclose(found, alone[[frames[i] for i in index]], atol=1e-5)
