"""Reward models learn and score on a GPU as on the CPU.

Skipped without a CUDA device. `SCORING_TEST_DEVICE=cpu` compares the CPU with itself.
"""

import os

import numpy as np
import pytest
import torch

from embodied_reward.rewards import DopamineModel
from tests.rewards import methods, preferred
from tests.rewards.conftest import small_config, square_episode

DEVICE = os.environ.get("SCORING_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"
)
METHODS = ("dopamine", *methods.CONFIGS, *preferred.CONFIGS)


def untrained(method):
    """A model and its episodes."""
    if method == "dopamine":
        torch.manual_seed(0)
        config = small_config()
        return DopamineModel.create(config, task="squares"), [square_episode(i) for i in range(6)]
    if method in methods.CONFIGS:
        return methods.untrained(methods.tiny(method)), methods.squares()
    episodes = preferred.squares()
    return preferred.untrained(method, preferred.pairs(episodes)), episodes


def learned(method, device, steps=5):
    model, episodes = untrained(method)
    model = model.to(device)
    data = model.dataset(episodes)
    model.set_references(data)
    # Plain gradient steps: Adam would make a step of the smallest gradient's sign.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss, _ = model.train().loss(data.batch(4, 0, step))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    model.eval()
    return losses, model.score_episode(episodes[0])


@pytest.mark.parametrize("method", METHODS)
def test_a_reward_model_learns_and_scores_as_on_the_cpu(method, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    (a, here), (b, there) = (learned(method, device) for device in ("cpu", DEVICE))
    assert len(set(a)) > 1
    np.testing.assert_allclose(b, a, rtol=2e-3)
    one, other = np.asarray(here.potential, float), np.asarray(there.potential, float)
    np.testing.assert_allclose(other, one, atol=0.03 * max(1.0, np.nanmax(np.abs(one))))
    assert np.isfinite(other).any()
