import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.metrics.trajectory import NAMES, trajectory


def test_a_straight_run_and_a_detour():
    straight = trajectory(np.linspace(0, 1, 11))
    assert straight == pytest.approx({"mc": 1, "mp": 1, "ppl": 1, "cra": 0, "str": 0}, abs=1e-12)
    detour = trajectory(np.array([0.0, 0.8, 0.3, 0.3, 0.5]))
    # Up 0.8, down 0.5, still, up 0.2: 0.5 of 1.5 walked.
    assert detour["ppl"] == pytest.approx(0.5 * 0.5 / 1.5)
    assert detour["cra"] == pytest.approx((0.5 + 0.5 + 0.3) / 5)
    assert detour["str"] == 0.25
    assert (detour["mc"], detour["mp"]) == (0.75, 0.8)


def test_hovering_shows_as_high_progress_that_stands_still():
    hover = trajectory(np.r_[np.linspace(0, 0.9, 10), np.full(90, 0.9)])
    assert hover["mp"] == 0.9
    assert hover["str"] > 0.9


def test_a_constant_has_no_path():
    assert trajectory(np.full(9, 0.5)) == {"mc": 0.5, "mp": 0.5, "ppl": 0, "cra": 0, "str": 1}


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_everything_stays_in_range(values):
    assert all(0 <= v <= 1 + 1e-12 for v in trajectory(np.array(values)).values())


def test_undefined_and_bad_curves():
    short = trajectory(np.array([0.5]))
    assert set(short) == set(NAMES)
    assert np.isnan(list(short.values())).all()
    with pytest.raises(ValueError, match="not finite"):
        trajectory(np.array([0.0, np.nan]))
