import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.math.fusion import (
    MARKOV,
    MODES,
    Anchors,
    Gate,
    Reading,
    advance,
    begin,
    incremental,
    read_mode,
    read_modes,
)
from embodied_reward.math.hops import hop_label

UNIT = st.floats(0, 1)


def reading(values, variance=0.01):
    values = np.asarray(values, float)
    return Reading(values, np.full(len(values), variance))


def readings(truth, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)

    def noisy(values, low):
        return reading(np.clip(values + rng.normal(0, noise, len(values)), low, 1))

    anchors = Anchors(noisy(truth, 0), noisy(truth, 0))
    return read_modes(noisy(hop_label(truth[:-1], truth[1:]), -1), anchors)


def test_exact_hops_give_the_true_progress_in_every_mode():
    truth = np.concatenate([np.linspace(0, 0.8, 30), np.linspace(0.8, 0.3, 20)])
    modes = readings(truth)
    for mode in set(MODES) - {"gated"}:
        np.testing.assert_allclose(modes[mode], truth, atol=1e-12, err_msg=mode)
    # The gate moves half-way, and only half of that by the anchors: it follows with a lag.
    assert np.abs(modes["gated"] - truth).max() < 0.05


def test_each_mode_runs_on_its_own_previous_value():
    """With anchors stuck at 0.5 and no motion, `incremental` stays at its own 0."""
    anchors = Anchors(reading(np.full(4, 0.5)), reading(np.full(4, 0.5)))
    modes = read_modes(reading(np.zeros(3)), anchors)
    np.testing.assert_array_equal(modes["incremental"], np.zeros(4))
    expected = [(0.0 + 0.5 + 0.5) / 3]
    for _ in range(3):
        expected.append((expected[-1] + 1.0) / 3)
    np.testing.assert_allclose(modes["mean"], expected)


@pytest.mark.parametrize(
    ("forward", "backward", "weight"), [(0.05, 0.10, 0.0001), (0.5, 0.6, 0.516), (0.9, 0.95, 0.943)]
)
def test_published_confidence_weights(forward, backward, weight):
    """alpha = 20 without a floor, as published; Phi*(t-1) = 0 and no hop."""
    anchors = Anchors(reading([forward]), reading([backward]))
    zero = reading([0.0])
    gated = advance(zero, zero, anchors, "gated", Gate(20.0, 1e-9)).mean[0]
    assert gated == pytest.approx(weight / 2 * (forward + backward) / 2, abs=5e-4)


def test_a_floored_gate_does_not_freeze_near_zero():
    anchors = Anchors(reading(np.full(9, 0.04)), reading(np.full(9, 0.08)))
    frozen, floored = (
        read_mode(reading(np.zeros(8)), anchors, "gated", Gate(20.0, floor)).mean[-1]
        for floor in (1e-9, 0.2)
    )
    assert frozen < 0.005
    assert floored > 0.04


def test_a_certain_reading_outweighs_uncertain_ones():
    anchors = Anchors(reading([0.2], 0.25), reading([0.8], 0.001))
    assert begin(anchors, "weighted", Gate()).mean[0] == pytest.approx(0.8, abs=0.01)
    assert begin(anchors, "anchored", Gate()).mean[0] == pytest.approx(0.5)
    # At the start the incremental reading is 0 by definition, hence certain.
    assert begin(anchors, "variance", Gate()).mean[0] < 0.6


def test_one_wild_reading_does_not_move_the_median():
    anchors = Anchors(reading([0.95]), reading([0.42]))
    before = reading([0.4])
    assert advance(before, reading([0.0]), anchors, "median", Gate()).mean[0] == 0.42


@given(UNIT, st.floats(-1, 1), UNIT, UNIT, st.floats(0, 1), st.sampled_from(MODES))
def test_every_mode_stays_in_range(before, hop, forward, backward, variance, mode):
    anchors = Anchors(reading([forward], variance), reading([backward], variance / 2))
    after = advance(reading([before]), reading([hop], variance), anchors, mode, Gate())
    assert 0 <= after.mean[0] <= 1 + 1e-12
    assert after.variance[0] >= 0


def test_variance_of_a_chain_grows_and_a_full_hop_forgets():
    step = incremental(reading([0.3], 0.01), reading([0.0], 0.02))
    assert step.variance[0] > 0.01
    arrived = incremental(reading([0.3], 0.01), reading([1.0], 0.0))
    assert arrived.mean[0] == 1.0
    assert arrived.variance[0] == 0.0


def test_fusing_beats_each_reading_under_independent_noise():
    truth = np.linspace(0, 1, 60)
    errors = {m: [] for m in MODES}
    for seed in range(30):
        for mode, values in readings(truth, noise=0.1, seed=seed).items():
            errors[mode].append(np.abs(values - truth).mean())
    mean = {m: np.mean(e) for m, e in errors.items()}
    assert mean["anchored"] < 0.85 * min(mean["forward"], mean["backward"])
    for mode in ("mean", "median", "variance"):
        assert mean[mode] < 0.7 * mean["incremental"], mode
    assert mean["forward"] == pytest.approx(0.08, abs=0.01)
    assert set(MARKOV) < set(MODES)
