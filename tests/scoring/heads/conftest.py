"""Items and choices out of plain arrays, and a few lines of training."""

import hashlib

import numpy as np
import pytest
import torch

from embodied_reward.scoring.heads import HEADS, Choices, HeadConfig
from embodied_reward.scoring.scorer import Items


def items_of(features, *, group=None, role=None, user=None, offsets=None, text=None, **more):
    """One row per item unless `offsets` says otherwise; keys are the rows' content."""
    features = torch.as_tensor(np.asarray(features, np.float32))
    f = len(features)
    offsets = np.arange(f + 1) if offsets is None else np.asarray(offsets)
    n = len(offsets) - 1
    spans = [features[offsets[i] : offsets[i + 1]].numpy().tobytes() for i in range(n)]
    return Items(
        features=features,
        offsets=offsets.astype(np.int64),
        time=torch.zeros(f),
        view=np.zeros(f, np.int64),
        role=np.zeros(f, np.int64) if role is None else np.asarray(role, np.int64),
        text=np.full(n, -1) if text is None else np.asarray(text),
        group=np.arange(n) if group is None else np.asarray(group, np.int64),
        user=np.full(n, -1) if user is None else np.asarray(user, np.int64),
        keys=tuple(hashlib.blake2b(span, digest_size=16).digest() for span in spans),
        **more,
    )


def sets_of(features, best, **more):
    """Sets of equal size: features [g n d], best [g] or [g k]."""
    features, best = np.asarray(features, np.float32), np.asarray(best)
    g, n, d = features.shape
    return Choices(
        items=items_of(features.reshape(-1, d), group=np.repeat(np.arange(g), n), **more),
        offsets=np.arange(0, g * n + 1, n),
        best=best.reshape(g, -1).astype(np.int64),
    )


def pairs_of(winner, loser, tie=None, **more):
    """Pairs: winner [p d] is preferred to loser [p d], or tied with it."""
    best = np.zeros(len(winner), int) if tie is None else -np.asarray(tie, int)
    return sets_of(np.stack([winner, loser], 1), best, **more)


def make(kind, dim, *, dims=("preference",), seed=0, text_dim=0, **settings):
    """A fresh head."""
    torch.manual_seed(seed)
    config = HeadConfig.get_choice_class(kind)(**settings)
    return HEADS[kind].create(config, dim, dims=dims, text_dim=text_dim)


def fit(head, choices, *, steps=300, lr=3e-3, weight_decay=0.0, seed=0):
    """Train on one Choices, or on what `choices(rng)` draws; reviews halfway."""
    rng = np.random.default_rng(seed)
    draw = choices if callable(choices) else lambda _: choices

    def optimizer():
        return torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=weight_decay)

    head.train()
    adam = optimizer()
    for step in range(steps):
        if head.reviews and step == steps // 2:
            head.review([draw(rng)])
            adam = optimizer()
        loss, _ = head.loss(draw(rng))
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
    return head.eval()


@torch.no_grad()
def scores(head, features, **more):
    """Scores [n] of single rows."""
    return head(items_of(features, **more)).score.numpy()


@pytest.fixture
def rng():
    return np.random.default_rng(0)
