"""Small configurations of the single-frame methods, and a few seconds of training."""

import functools

import torch

from embodied_reward.rewards import (
    GoalDistanceConfig,
    RemainingTimeConfig,
    TccConfig,
    registry,
)
from embodied_reward.vision.encoders import EncoderConfig
from tests.rewards.conftest import VIEWS, square_episode

CONFIGS = {
    "remaining_time": (RemainingTimeConfig, {"frames": 12}),
    "goal_distance": (GoalDistanceConfig, {"frames": 6}),
    "tcc": (TccConfig, {"frames": 12}),
}


def tiny(method, **fields):
    kind, own = CONFIGS[method]
    small = {"dim": 32, "hidden": 64, "shift": 1, "jitter": 0.1}
    shared = {"views": VIEWS, "encoder": EncoderConfig(image_size=32)}
    return kind(**{**shared, **small, **own, **fields})


def untrained(config, *, seed=0):
    torch.manual_seed(seed)
    kind = registry()[type(config).get_choice_name(type(config))]
    return kind.create(config, task="squares")


def fit(model, episodes, *, steps, lr=2e-3, batch=2):
    torch.set_num_threads(1)
    data = model.dataset(episodes)
    model.set_references(data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for step in range(steps):
        optimizer.zero_grad()
        loss, _ = model.train().loss(data.batch(batch, 0, step))
        loss.backward()
        optimizer.step()
    return model.eval()


def squares():
    """Six demonstrations and two failures."""
    failures = [square_episode(90 + i, success=False) for i in range(2)]
    return [square_episode(i) for i in range(6)] + failures


@functools.cache
def trained_on_squares(method):
    """Return a model after about five seconds of one core; tests must not change it."""
    return fit(untrained(tiny(method)), squares(), steps=70)
