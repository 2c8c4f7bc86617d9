"""What was answered is let go of."""

import gc
import threading
import weakref

import pytest

from embodied_reward.scoring import FeatureCache, ScoreRequest, ScoringCore
from tests.scoring.conftest import CountingTrunk, pictures, scorer_of


@pytest.mark.parametrize("cached", [False, True])
def test_pictures_of_answered_requests_do_not_stay_until_their_deadline(encoder, cached):
    alive = []
    with ScoringCore(cache=FeatureCache() if cached else None) as core:
        core.register(scorer_of(CountingTrunk(encoder)))
        for seed in range(6):
            frames = pictures(3, seed=seed)
            alive.append(weakref.ref(frames))
            core.score(ScoreRequest(scorers=("mean",), frames=frames))["mean"].require_ok()
        del frames
        gc.collect()
        # The dispatcher may hold the one that it handled last.
        assert sum(ref() is not None for ref in alive) <= 1


def test_a_request_nobody_waits_for_is_still_expired(encoder):
    release = threading.Event()
    trunk = CountingTrunk(encoder, hook=lambda _: release.wait(10))
    with ScoringCore() as core:
        core.register(scorer_of(trunk))
        first = core.submit(ScoreRequest(scorers=("mean",), frames=pictures(1), timeout=0.2))
        gc.collect()
        assert first.result(5)["mean"].status.tolist() == [3]
        release.set()
