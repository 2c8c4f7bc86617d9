"""VIP and TCC against values that can be worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from embodied_reward.math.statistics import kendall_tau_a
from embodied_reward.rewards.goal_distance import vip_loss
from embodied_reward.rewards.tcc import cycle_consistency
from embodied_reward.rewards.visual import split_presence
from embodied_reward.shaping import shaping_reward
from embodied_reward.types import Episode
from tests.rewards.conftest import square_episode
from tests.rewards.methods import fit, squares, tiny, trained_on_squares, untrained


def test_vip_loss_of_a_tiny_case():
    """L = .02 * 3 + log(1e-8 + (exp(1 + .98 * 1 - 2) + exp(1 + .98 * 2 - 3)) / 2)."""
    value, after = torch.tensor([-2.0, -3.0]), torch.tensor([-1.0, -2.0])
    got = vip_loss(torch.tensor([-2.0, -4.0]), value, after, -torch.ones(2), 0.98)
    inner = (math.exp(1 + 0.98 - 2) + math.exp(1 + 0.98 * 2 - 3)) / 2
    assert got.item() == pytest.approx(0.02 * 3 + math.log(1e-8 + inner), abs=1e-6)


def test_vip_loss_of_the_optimal_value_is_the_cost_of_the_starts():
    """V(k steps to go) = -(1 - g^k) / (1 - g) has no Bellman error: the second term is 0."""
    gamma, to_go = 0.98, torch.arange(1.0, 40.0, dtype=torch.float64)
    value, after = (-(1 - gamma**k) / (1 - gamma) for k in (to_go, to_go - 1))
    loss = vip_loss(value[-1:], value, after, -torch.ones_like(value), gamma)
    assert loss.item() == pytest.approx(1 - gamma**39, abs=1e-7)


def test_vip_loss_neither_overflows_nor_loses_its_floor():
    far = vip_loss(*(torch.tensor([v]) for v in (0.0, 300.0, 0.0, -1.0)), 0.98)
    assert far.item() == pytest.approx(301, abs=1e-3)
    low = vip_loss(*(torch.tensor([v]) for v in (0.0, -300.0, 0.0, -1.0)), 0.98)
    assert low.item() == pytest.approx(math.log(1e-8), abs=1e-3)


def test_transitions_are_one_frame_apart_and_goals_come_later():
    data = untrained(tiny("goal_distance", goal_swap=0.0)).dataset(squares())
    batch = data.batch(1, 0, 0)
    edge = (batch.frames[:, 0, :, :, 0] > 200).any(1).int().argmax(-1)
    now, after, goal = edge[batch.now], edge[batch.after], edge[batch.goal]
    assert ((after - now >= 0) & (after - now <= 1)).all()
    assert (goal >= after).all()
    half = len(now) // 2
    assert batch.success[batch.goal[:half]].all()  # the first half of the goals is solved
    assert not batch.success[batch.failed].any()
    assert batch.wrong.shape == (len(now) + batch.failed.shape[1],)


@pytest.mark.parametrize("n", [10, 24])
def test_cycle_loss_of_constant_embeddings(n):
    steps = (torch.arange(n) / n).expand(3, n)
    loss = cycle_consistency(torch.ones(3, n, 4), steps, 0.1)
    assert loss.item() == pytest.approx((n * n - 1) / (12 * n * n), abs=1e-6)


def test_cycle_loss_of_identical_videos_vanishes_with_the_temperature():
    n = 10
    video = torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
    steps = (torch.arange(n) / n).expand(2, n)
    losses = [cycle_consistency(torch.stack([video] * 2), steps, t).item() for t in (1.0, 1e-3)]
    assert losses[1] < 1e-6 < losses[0]


def test_cycle_loss_sees_a_shuffled_video():
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(10, 8, generator=generator)
    steps = torch.stack([torch.arange(10) / 10, torch.arange(10) / 10])
    other = torch.cat([video[:5], video[:5] + 1e-3])  # its second half looks like the first
    assert cycle_consistency(torch.stack([video, other]), steps, 1e-3).item() > 1e-2


def phase_episode(index, length):
    """A dial whose angle is the phase of the task; `length` sets the speed."""
    progress = np.linspace(0, 1, length)
    angle = progress * 0.9 * np.pi
    y, x = np.mgrid[:32, :32] - 15.5
    hand = np.cos(np.arctan2(y, x)[None] - angle[:, None, None])
    picture = np.where(hand > 0.8, 230, 40).astype(np.uint8)
    shade = np.random.default_rng(index).integers(-15, 15)
    views = {v: np.stack([np.clip(picture + shade, 0, 255)] * 3, -1) for v in ("front", "side")}
    return Episode(
        views={v: f.astype(np.uint8) for v, f in views.items()},
        action=np.zeros((length, 2), np.float32),
        fps=10.0,
        task="turn the dial",
        index=index,
        source=f"dials#{index}",
        length=length,
        success=True,
        progress=progress.astype(np.float32),
    )


def test_tcc_aligns_videos_of_two_speeds():
    """Acceptance: Kendall's tau >= 0.95, and the reward rises along a demonstration."""
    demos = [phase_episode(i, length) for i, length in enumerate((24, 48, 24, 48))]
    config = tiny(
        "tcc", shift=0, erase=0.0, view_dropout=0.0, success_weight=0.0, frames=16, temperature=1.0
    )
    model = fit(untrained(config), demos, steps=60, batch=4)
    slow, fast = phase_episode(8, 48), phase_episode(9, 24)
    with torch.no_grad():
        goal = _embedding(model, demos[0])[-1:]
        u, v = (_embedding(model, e) for e in (slow, fast))
    # The fast video has half the frames, hence ties: tau b.
    nearest = torch.cdist(u, v).argmin(-1).numpy()
    assert kendalltau(nearest, np.arange(48)).statistic >= 0.95
    # Far from the goal the distance saturates, so "rises" allows dips of 0.5 % of its range.
    reward = -model.distance(u, goal).numpy()
    assert np.diff(reward).min() > -0.005 * np.ptp(reward)
    assert kendall_tau_a(reward, np.arange(48)) > 0.9


def _embedding(model, episode):
    frames = torch.from_numpy(np.stack(list(episode.views.values()), 1))
    return model.projection(model.network.fuse(*split_presence(model.features(frames))))


@pytest.mark.parametrize("method", ["goal_distance", "tcc"])
def test_demonstrations_start_near_zero_and_end_near_one(method):
    model = trained_on_squares(method)
    scores = [model.score_episode(square_episode(i)).potential for i in range(6)]
    assert np.mean([s[0] for s in scores]) < 0.15
    assert np.mean([s[-1] for s in scores]) > 0.85


@pytest.mark.parametrize("method", ["goal_distance", "tcc"])
def test_a_distance_to_the_goal_is_a_level_and_its_shaped_return_telescopes(method):
    """Acceptance: sum_t gamma^t F_t = gamma^T Phi_T - Phi_0 within 1e-6."""
    gamma, phi = 0.97, trained_on_squares(method).score_episode(square_episode(30)).potential
    paid = shaping_reward(phi[:-1], phi[1:], np.zeros(len(phi) - 1, bool), gamma)
    steps = np.arange(len(phi) - 1)
    expected = gamma ** len(steps) * phi[-1] - phi[0]
    assert abs((gamma**steps * paid).sum() - expected) < 1e-6
    assert np.ptp(phi) > 0.2  # a level that moves, not a difference


def test_a_collapsed_embedding_has_no_potential():
    model = untrained(tiny("tcc")).eval()
    model.set_references(model.dataset(squares()))
    torch.nn.init.zeros_(model.projection.weight)
    scores = model.score_episode(square_episode(3))
    assert np.isnan(scores.potential).all()
    features = model.encode({v: f[:2] for v, f in square_episode(3).views.items()})
    assert not model.score(features, {})[0].ok.any()


def test_goals_are_kept_from_several_demonstrations():
    model = untrained(tiny("tcc", references=4))
    model.set_references(model.dataset(squares()))
    assert model.reference_goal.shape == (4, 2, 32, 32, 3)
    assert model.reference_start.dtype == torch.uint8
