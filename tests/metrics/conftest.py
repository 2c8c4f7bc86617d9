"""Small episodes whose truth is known, and a predictor that is always right."""

import numpy as np
import pytest

from embodied_reward.types import Episode, EpisodeScores


def make_episode(progress, *, index=0, success=None, views=("front", "wrist"), size=16, **changes):
    """A white square moves right over a dark background as progress rises."""
    progress = np.asarray(progress, np.float32)
    length = len(progress)
    success_frames = progress >= 0.999
    frames = {}
    for v, view in enumerate(views):
        clip = np.full((length, size, size, 3), 20 + 30 * v, np.uint8)
        for t, y in enumerate(progress):
            x = int(y * (size - 4))
            clip[t, size // 2 - 2 : size // 2 + 2, x : x + 4] = 250
        frames[view] = clip
    fields = {
        "views": frames,
        "action": np.zeros((length, 2), np.float32),
        "fps": 20.0,
        "task": "push the square",
        "index": index,
        "source": f"toy#{index}",
        "length": length,
        "success": bool(success_frames.any()) if success is None else success,
        "success_frames": success_frames,
        "progress": progress,
    }
    return Episode(**{**fields, **changes})


class Oracle:
    """Knows the truth."""

    def score_episode(self, episode):
        y = np.asarray(episode.progress, float)
        return EpisodeScores(y, (y >= 0.999).astype(float), np.zeros(len(y)))


@pytest.fixture(scope="session")
def toy():
    """`toy(progress, index=..., ...)` makes one episode."""
    return make_episode


@pytest.fixture
def mixed():
    """Four successes of different pace and four failures that rise and fall back."""
    good = [make_episode(np.linspace(0, 1, n), index=i) for i, n in enumerate((30, 36, 41, 52))]
    bad = [
        make_episode(0.6 * np.sin(np.linspace(0, np.pi, n)), index=4 + i)
        for i, n in enumerate((40, 44, 50, 61))
    ]
    return good + bad


@pytest.fixture
def oracle():
    return Oracle()
