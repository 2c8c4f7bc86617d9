import numpy as np
import pytest
import torch

from embodied_reward.rewards import RemainingTimeConfig
from tests.rewards.conftest import square_episode
from tests.rewards.methods import squares, tiny, trained_on_squares, untrained


def test_labels_are_seconds_to_the_first_success_and_unknown_in_failures():
    data = untrained(tiny("remaining_time", frames=40)).dataset(squares())
    batch = data.batch(6, 0, 0)
    left = batch.remaining.numpy()
    known = np.isfinite(left)
    # Every frame of 30 is drawn: 26 before the success at 2.6 s, then four solved ones.
    want = np.tile(np.maximum(26 - np.arange(30), 0) / 10, 6)
    np.testing.assert_allclose(left[known], want, atol=1e-6)
    np.testing.assert_array_equal(batch.success[known], left[known] == 0)
    assert (~known).sum() == 30


def test_the_horizon_is_the_mean_duration_and_bins_reach_beyond_it():
    model = untrained(tiny("remaining_time"))
    short = [square_episode(0, length=24), square_episode(1, length=44)]
    model.set_references(model.dataset(short))
    assert model.horizon.item() == pytest.approx(3.0)  # (2.0 s + 4.0 s) / 2
    assert model.centres[-1].item() == pytest.approx(6.0)
    fixed = untrained(tiny("remaining_time", horizon=1.0))
    fixed.set_references(fixed.dataset(short))
    assert fixed.horizon.item() == 1.0
    assert fixed.centres[-1].item() == pytest.approx(4.0)


def test_potential_and_uncertainty_are_those_of_the_predicted_distribution():
    model = untrained(tiny("remaining_time", horizon=4.0)).eval()
    model.set_references(model.dataset(squares()))
    last = model.head[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-40.0)
        last.bias[[0, 20]] = 10.0  # half solved, half at centre 20
    scores = model.score_episode(square_episode(3))
    middle = model.centres[20].item()
    np.testing.assert_allclose(scores.potential, 1 - middle / 2 / 4, atol=1e-5)
    np.testing.assert_allclose(scores.uncertainty, middle / 2 / 4, atol=1e-5)


def test_failures_push_their_frames_beyond_the_horizon_only():
    model = untrained(tiny("remaining_time")).eval()
    data = model.dataset(squares())
    model.set_references(data)
    last = model.head[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-40.0)
        last.bias[-1] = 10.0
    batch = data.batch(1, 0, 0)
    failed = torch.isnan(batch.remaining)
    fused = torch.zeros(len(failed), 32)
    only = type(batch)(**{**vars(batch), "remaining": torch.full((len(failed),), torch.nan)})
    assert failed.any()
    assert model.objective(fused, only)[0].mean().item() == pytest.approx(0.0, abs=1e-5)


def test_uncertainty_is_smallest_where_the_task_is_done():
    scores = trained_on_squares("remaining_time").score_episode(square_episode(59))
    assert scores.uncertainty[-1] < scores.uncertainty[:20].mean()


def test_an_unfitted_model_knows_nothing():
    model = untrained(RemainingTimeConfig(views=("front", "side"))).eval()
    assert np.isnan(model.score_episode(square_episode(0)).potential).all()
