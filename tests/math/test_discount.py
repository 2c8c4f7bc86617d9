import hypothesis
import pytest
from hypothesis import strategies as st

from embodied_reward.errors import ConfigError
from embodied_reward.math.discount import gamma_of_rate, rate_of_gamma


@hypothesis.given(st.floats(0.01, 1.0), st.floats(1e-3, 10.0))
def test_round_trip(gamma, period):
    rate = rate_of_gamma(gamma, period)
    assert gamma_of_rate(rate, period) == pytest.approx(gamma, rel=1e-14)


@hypothesis.given(st.floats(0, 5), st.floats(0.01, 1.0), st.integers(1, 20))
def test_a_second_is_discounted_alike_at_every_control_rate(rate, period, finer):
    coarse, fine = gamma_of_rate(rate, period), gamma_of_rate(rate, period / finer)
    assert fine**finer == pytest.approx(coarse, rel=1e-12)


def test_known_values_and_bad_input():
    assert gamma_of_rate(0.0, 1.0) == 1.0
    assert gamma_of_rate(rate_of_gamma(0.98, 0.1), 0.05) == pytest.approx(0.98**0.5, rel=1e-15)
    for rate, period in ((-1.0, 1.0), (1.0, 0.0), (float("nan"), 1.0), (1e6, 1.0)):
        with pytest.raises(ConfigError):
            gamma_of_rate(rate, period)
    for gamma in (0.0, 1.1):
        with pytest.raises(ConfigError):
            rate_of_gamma(gamma, 1.0)
