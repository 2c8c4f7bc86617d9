"""`PotentialCache`: one version at a time, whole trajectories, all or nothing."""

import numpy as np
import pytest

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.shaping.cache import PotentialCache, Renewal


def filled():
    cache = PotentialCache("step-0")
    cache.put(0, np.array([0.0, 0.5, 1.0]), "step-0")
    for value in (0.25, 0.75):
        cache.append(7, value, "step-0")
    return cache


def test_it_returns_what_was_entered():
    cache = filled()
    assert len(cache) == 5
    assert 7 in cache
    assert cache.trajectory(7).tolist() == [0.25, 0.75]
    cache.trajectory(7)[:] = 9.0  # a copy
    assert cache.trajectory(7).tolist() == [0.25, 0.75]
    cache.drop(7)
    cache.drop(7)
    with pytest.raises(KeyError):
        cache.trajectory(7)


def test_a_stale_version_cannot_join():
    cache = filled()
    assert cache.renew("step-9", lambda e: cache.trajectory(e) ** 2) == Renewal(
        "step-0", "step-9", 5, 0.25
    )
    for call in (
        lambda: cache.append(7, 0.5, "step-0"),
        lambda: cache.put(1, np.zeros(2), "step-0"),
    ):
        with pytest.raises(ConfigError, match="'step-0' cannot join those of version 'step-9'"):
            call()
    cache.append(7, 0.9, "step-9")
    assert cache.trajectory(7).tolist() == [0.0625, 0.5625, 0.9]


@pytest.mark.parametrize(
    ("score", "error", "says"),
    [
        (lambda e: np.zeros(3 if e == 0 else 1), ConfigError, "episode 7 entered 2 states"),
        (lambda e: np.full(2 + (e == 0), np.nan if e else 0.1), NonFiniteError, "episode 7"),
        (lambda e: 1 / (7 - e), ZeroDivisionError, "division"),
    ],
)
def test_a_renewal_that_fails_half_way_changes_nothing(score, error, says):
    cache = filled()
    with pytest.raises(error, match=says):
        cache.renew("step-9", score)
    assert cache.version == "step-0"
    assert cache.trajectory(0).tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(ConfigError, match="in force already"):
        cache.renew("step-0", cache.trajectory)


def test_nan_never_enters():
    with pytest.raises(NonFiniteError, match="state 1"):
        filled().put(1, np.array([0.0, np.inf]), "step-0")
