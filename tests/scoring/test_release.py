"""Pictures go when their request is answered: not at its deadline, not at a collection."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest

from embodied_reward.scoring import FeatureCache, ScoreRequest, ScoringCore, Status
from embodied_reward.scoring.watchdog import Watchdog


@pytest.fixture
def no_garbage_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def ask(core, seed, timeout):
    """Score fresh pictures; return the reply and a weak reference to the pictures."""
    frames = np.random.default_rng(seed).integers(0, 256, (3, 32, 32, 3), np.uint8)
    request = ScoreRequest(scorers=("mean",), frames=frames, timeout=timeout)
    return core.score(request)["mean"], weakref.ref(frames)


def alive_after(seconds, references):
    end = time.monotonic() + seconds
    while (alive := sum(r() is not None for r in references)) and time.monotonic() < end:
        time.sleep(0.01)
    return alive


@pytest.mark.parametrize("cached", [False, True])
def test_answered_requests_leave_nothing_behind(scorer, cached, no_garbage_collection):
    with ScoringCore(cache=FeatureCache() if cached else None) as core:
        core.register(scorer)
        replies = [ask(core, seed, timeout=600.0) for seed in range(20)]
        assert all(batch.ok.all() for batch, _ in replies)
        assert alive_after(5, [reference for _, reference in replies]) == 0


def test_expired_requests_leave_nothing_behind(trunk, scorer, no_garbage_collection):
    gate = threading.Event()
    trunk.hook = lambda _: gate.wait(20)
    with ScoringCore() as core:
        core.register(scorer)
        replies = [ask(core, seed, timeout=0.02) for seed in range(10)]
        assert all((batch.status == Status.TIMEOUT).all() for batch, _ in replies)
        gate.set()
        assert alive_after(5, [reference for _, reference in replies]) == 0
        assert core.stats()["unfinished"] == 0
        assert ask(core, 99, timeout=60.0)[0].ok.all()


class FakeJob:
    def __init__(self, timeout):
        self.deadline, self.done = time.monotonic() + timeout, False


def test_finished_jobs_do_not_pile_up_behind_one_that_takes_long():
    expired = []
    watchdog = Watchdog(expired.append)
    slow, late = FakeJob(600.0), FakeJob(0.2)
    watchdog.add(slow)
    for _ in range(5000):
        job = FakeJob(900.0)
        watchdog.add(job)
        job.done = True
    assert len(watchdog._heap) < 2500
    watchdog.add(late)
    assert alive_after(5, [lambda: None if expired else late]) == 0
    assert expired == [late]
    watchdog.close()
