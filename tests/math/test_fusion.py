import numpy as np
import pytest

from embodied_reward.math.fusion import Anchors, read_modes
from embodied_reward.math.hops import hop_label


def readings(truth, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)

    def noisy(values):
        return np.clip(values + rng.normal(0, noise, len(values)), -1, 1)

    anchors = Anchors(
        np.clip(noisy(truth), 0, 1), np.clip(noisy(truth), 0, 1), np.zeros_like(truth)
    )
    return read_modes(noisy(hop_label(truth[:-1], truth[1:])), anchors)


def test_exact_hops_give_the_true_progress_in_every_mode():
    truth = np.concatenate([np.linspace(0, 0.8, 30), np.linspace(0.8, 0.3, 20)])
    for mode, values in readings(truth).items():
        np.testing.assert_allclose(values, truth, atol=1e-12, err_msg=mode)


def test_incremental_uses_the_fused_previous_value():
    """Eq. 5: with anchors stuck at 0.5, the incremental reading is pulled there as well."""
    anchors = Anchors(np.full(4, 0.5), np.full(4, 0.5), np.zeros(4))
    modes = read_modes(np.zeros(3), anchors)
    expected = [0.0]
    fused = (0.0 + 0.5 + 0.5) / 3
    for _ in range(3):
        expected.append(fused)
        fused = (fused + 1.0) / 3
    np.testing.assert_allclose(modes["incremental"], expected)


def test_fusing_beats_each_anchor_under_independent_noise():
    truth = np.linspace(0, 1, 60)
    errors = {m: [] for m in ("forward", "backward", "mean", "anchored")}
    for seed in range(30):
        modes = readings(truth, noise=0.1, seed=seed)
        for mode in errors:
            errors[mode].append(np.abs(modes[mode] - truth).mean())
    mean = {m: np.mean(e) for m, e in errors.items()}
    assert mean["anchored"] < 0.85 * min(mean["forward"], mean["backward"])
    assert mean["mean"] < mean["anchored"]
    assert mean["forward"] == pytest.approx(0.08, abs=0.01)
