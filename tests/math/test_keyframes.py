import numpy as np
import pytest

from embodied_reward.math.keyframes import (
    OnlineChanges,
    change_points,
    online_change_points,
    representatives,
)

LENGTH, CHANGES = 120, 4


def clip(seed, noise=0.6):
    """120 frames in five steps with noise, and where the steps begin."""
    rng = np.random.default_rng(seed)
    while True:
        cuts = np.sort(rng.choice(np.arange(10, LENGTH - 10), CHANGES, replace=False))
        if np.diff(cuts).min() >= 10:
            break
    means = rng.normal(size=(CHANGES + 1, 8))
    step = np.searchsorted(cuts, np.arange(LENGTH), side="right")
    return means[step] + noise * rng.normal(size=(LENGTH, 8)), cuts


def f1(found, truth, tolerance=2):
    """Each true change point may be matched once."""
    left, hits = list(found), 0
    for t in truth:
        near = [p for p in left if abs(p - t) <= tolerance]
        if near:
            hits += 1
            left.remove(min(near, key=lambda p: abs(p - t)))
    return 2 * hits / (len(found) + len(truth))


def mean_f1(method, seeds=40, **settings):
    return np.mean([f1(method(features), cuts) for features, cuts in map(clip, range(seeds))])


def uniform(features):
    return np.linspace(0, LENGTH, CHANGES + 2)[1:-1].round()


def test_change_points_of_clips_beat_a_uniform_choice():
    assert mean_f1(lambda f: change_points(f, CHANGES)) >= 0.99
    assert mean_f1(online_change_points) >= 0.95
    assert mean_f1(uniform) <= 0.4


def test_a_clip_without_changes_has_none():
    found = [
        online_change_points(np.random.default_rng(s).normal(size=(120, 8))) for s in range(20)
    ]
    assert np.mean([len(f) for f in found]) < 0.5
    assert len(online_change_points(np.ones((40, 3)))) == 0
    offline = [change_points(np.random.default_rng(s).normal(size=(120, 8))) for s in range(20)]
    assert np.mean([len(f) for f in offline]) < 0.5


def test_online_reports_late_but_only_what_it_has_seen():
    features, cuts = clip(1, noise=0.1)
    online = OnlineChanges(window=5)
    reports = [(t, online.push(f)) for t, f in enumerate(features)]
    found = [(t, p) for t, p in reports if p is not None]
    assert [p for _, p in found] == cuts.tolist()
    assert all(p < t <= p + 9 for t, p in found)
    assert online_change_points(features[: cuts[-1]]).tolist() == cuts[:-1].tolist()


def test_representatives_lie_in_their_segment_and_are_typical():
    features, cuts = clip(2)
    features[3] += 50
    chosen = representatives(features, cuts)
    assert (np.searchsorted(cuts, chosen, side="right") == np.arange(CHANGES + 1)).all()
    assert chosen[0] != 3


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="window"):
        OnlineChanges(window=0)
    with pytest.raises(ValueError, match="cannot cut"):
        change_points(np.zeros((4, 2)), 4)
