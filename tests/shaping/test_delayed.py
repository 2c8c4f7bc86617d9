"""T8: PBIM and GRM pay 0 in all; the mode `delayed` is GRM on a learned level."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.shaping import mode_named, shaping_reward
from embodied_reward.shaping.delayed import delayed_reward, matched_reward

levels = arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(-2, 2))


def discounted(f, gamma):
    return (gamma ** np.arange(len(f)) * f).sum()


@hypothesis.given(levels, st.floats(0.8, 1.0))
def test_totals_are_zero(extra, gamma):
    assert abs(discounted(delayed_reward(extra, gamma), gamma)) < 1e-10
    assert abs(discounted(matched_reward(extra, gamma), gamma)) < 1e-10
    # Without the refund (the usual slip) the last payment stays.
    slip = discounted(delayed_reward(extra, gamma, terminated=False), gamma)
    assert slip == pytest.approx(gamma ** (len(extra) - 1) * extra[-1], abs=1e-10)


@hypothesis.given(levels, st.floats(0.8, 1.0), st.booleans())
def test_the_delayed_form_is_shaping_by_the_last_extra_reward(extra, gamma, terminated):
    phi = np.concatenate([[0.0], extra / gamma])
    ends = np.arange(len(extra)) == len(extra) - 1
    f = shaping_reward(phi[:-1], phi[1:], ends & terminated, gamma)
    np.testing.assert_allclose(f, delayed_reward(extra, gamma, terminated=terminated), atol=1e-12)


@hypothesis.given(levels, st.floats(0.8, 1.0), st.booleans())
def test_the_mode_is_the_conversion_of_the_level_that_absolute_pays(phi, gamma, terminated):
    hypothesis.assume(len(phi) > 1)
    ends = np.arange(len(phi) - 1) == len(phi) - 2
    paid = mode_named("absolute").added(phi[:-1], phi[1:], ends, gamma, 1.5)
    mode = mode_named("delayed").added(phi[:-1], phi[1:], ends & terminated, gamma, 1.5)
    converted = delayed_reward(paid, gamma, terminated=terminated)
    # A constant of the start apart: the episode begins with the level of its first state.
    converted[0] -= 1.5 * phi[0] / gamma
    np.testing.assert_allclose(mode, converted, atol=1e-12)


def test_the_matched_form_explodes_and_the_delayed_one_does_not():
    ones = {n: np.ones(n) for n in (100, 300, 4500)}
    growth = {n: 0.99 ** -(n - 1.0) for n in ones}
    assert growth[100] == pytest.approx(2.7, rel=0.01)
    assert growth[300] == pytest.approx(20, rel=0.02)
    assert growth[4500] == pytest.approx(4.3e19, rel=0.01)
    assert -matched_reward(ones[4500], 0.99)[-1] > growth[4500]
    assert np.abs(delayed_reward(ones[4500], 0.99)).max() < 1.02


def test_bad_input_is_refused():
    with pytest.raises(NonFiniteError, match="nan at step 1"):
        delayed_reward(np.array([0.0, np.nan]), 0.9)
    with pytest.raises(ConfigError, match="gamma"):
        matched_reward(np.ones(3), 0.0)
    assert delayed_reward(np.zeros(0), 0.9).shape == (0,)
