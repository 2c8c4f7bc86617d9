"""Squares that get differently far, preferences about them, and small models of preferences."""

import functools
import itertools

import numpy as np
import torch

from embodied_reward.data.preferences import Pair, Triplet
from embodied_reward.rewards import RaplConfig, RlhfConfig, registry
from embodied_reward.types import Episode
from embodied_reward.vision.encoders import EncoderConfig
from tests.rewards.conftest import VIEWS

CONFIGS = {"rapl": RaplConfig, "rlhf": RlhfConfig}
SIDE = 32


def moving_square(index, *, reach=1.0, length=16, views=VIEWS):
    """A square travels `reach` of the way to a line and stays there; the row is irrelevant."""
    rng = np.random.default_rng(index)
    row = int(rng.integers(2, 22))
    progress = reach * np.minimum(np.arange(length) / (length - 4), 1.0)
    pictures = {view: np.full((length, SIDE, SIDE, 3), 40, np.uint8) for view in views}
    for t, at in enumerate((2 + progress * 20).astype(int)):
        for k, view in enumerate(views):
            place = (slice(row, row + 6), slice(at, at + 6))
            pictures[view][t][place[:: 1 - 2 * k]] = (250, 90, 0) if k == 0 else (0, 180, 250)
            pictures[view][t, 0] = (0, 250, 0)
    return Episode(
        views=pictures,
        action=np.zeros((length, 2), np.float32),
        fps=10.0,
        task="push the square to the line",
        index=index,
        source=f"squares#{index}",
        length=length,
        success=bool(reach >= 1.0),
        success_frames=progress >= 1.0,
        progress=progress.astype(np.float32),
    )


@functools.cache
def squares():
    """Sixteen episodes; every fourth one succeeds. Tests must not change them."""
    reach = np.random.default_rng(0).uniform(0.05, 0.85, 16)
    reach[::4] = 1.0
    return [moving_square(i, reach=r) for i, r in enumerate(reach)]


def final(episode):
    return float(episode.progress[-1])


def pairs(episodes):
    """Every pair of episodes, the one that got farther preferred."""
    found = []
    for a, b in itertools.combinations(episodes, 2):
        tie = final(a) == final(b)
        found.append(Pair((a.index, b.index), None if tie else int(final(b) > final(a))))
    return tuple(found)


def triplets(episodes, count=60, seed=0):
    """Random triplets: whose end is nearer to the anchor's?"""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        a, p, n = (episodes[i] for i in rng.choice(len(episodes), 3, replace=False))
        if abs(final(a) - final(p)) > abs(final(a) - final(n)):
            p, n = n, p
        found.append(Triplet(a.index, p.index, n.index))
    return tuple(found)


def tiny(method, **fields):
    shared = {
        "views": VIEWS,
        "encoder": EncoderConfig(image_size=SIDE),
        "dim": 32,
        "hidden": 32,
        "frames": 6,
        "shift": 1,
        "jitter": 0.1,
        "erase": 0.0,
    }
    return CONFIGS[method](**{**shared, **fields})


def untrained(method, preferences, *, seed=0, **fields):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = registry()[method].create(tiny(method, **fields), task="squares")
    model.learn_from(preferences)
    return model


def fit(model, episodes, *, steps, lr=3e-3, batch=32):
    data = model.dataset(episodes)
    model.set_references(data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for step in range(steps):
        optimizer.zero_grad()
        loss, _ = model.train().loss(data.batch(batch, 0, step))
        loss.backward()
        optimizer.step()
    return model.eval()


@functools.cache
def trained(method):
    """Return a model after a few seconds of one core; tests must not change it."""
    return fit(untrained(method, pairs(squares())), squares(), steps=40)
