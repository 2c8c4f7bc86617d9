import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.math.composition import (
    additive,
    base_and_bonus,
    lambda_harmonic,
    threshold_bonus,
)

UNIT = st.floats(0, 1)
RULES = {
    "base_and_bonus": lambda a, b: base_and_bonus(a, b, 0.7),
    "threshold_bonus": lambda a, b: threshold_bonus(a, b, 0.7, 0.4),
    "lambda_harmonic": lambda a, b: lambda_harmonic(a, b, 0.3),
    "additive": lambda a, b: additive(a, b, 0.3),
}
GATED = ("base_and_bonus", "threshold_bonus", "lambda_harmonic")

# A robot that can do nothing, try gently, or try hard. Trying succeeds sometimes and disturbs the
# scene; doing nothing leaves it as it was.
EXECUTION = np.array([0.0, 0.6, 0.9])
CONSISTENCY = np.array([1.0, 0.25, 0.05])


def policy_after_training(rewards, steps=20000, rate=0.2):
    """Exact policy gradient of a softmax policy over three actions."""
    logits = np.zeros(3)
    for _ in range(steps):
        p = np.exp(logits - logits.max())
        p /= p.sum()
        logits += rate * p * (rewards - p @ rewards)
    return p


def test_additive_reward_teaches_to_do_nothing_and_gates_do_not():
    exploited = policy_after_training(additive(EXECUTION, CONSISTENCY))
    assert exploited.argmax() == 0
    assert exploited @ EXECUTION < 0.1
    for name in GATED:
        assert RULES[name](0.0, 1.0) == 0.0, name
        trained = policy_after_training(RULES[name](EXECUTION, CONSISTENCY))
        assert trained @ EXECUTION > 0.5, name


@pytest.mark.parametrize("name", RULES)
@given(a=UNIT, b=UNIT, more=UNIT)
def test_every_rule_is_monotone_in_both_scores(name, a, b, more):
    rule = RULES[name]
    tolerance = 1e-12
    assert rule(max(a, more), b) >= rule(a, b) - tolerance
    assert rule(a, max(b, more)) >= rule(a, b) - tolerance


@given(a=UNIT, b=UNIT, balance=UNIT)
def test_harmonic_bounds(a, b, balance):
    r = lambda_harmonic(a, b, balance)
    assert min(a, b) <= r <= max(a, b)
    assert r <= additive(a, b, balance) + 1e-9
    if balance > 0.01:
        assert r <= a / balance + 1e-9


def test_values_worked_by_hand():
    assert lambda_harmonic(0.9, 0.1) == pytest.approx(0.18)
    assert additive(0.9, 0.1) == pytest.approx(0.5)
    assert base_and_bonus(0.5, 0.4, 0.5) == pytest.approx(0.6)
    assert threshold_bonus([0.49, 0.5], [1.0, 1.0], 0.2).tolist() == pytest.approx([0.49, 0.7])
    assert lambda_harmonic(0.0, 1.0) == 0.0
    assert lambda_harmonic(0.0, 0.0) == 0.0
    assert lambda_harmonic(0.3, 0.0, 1.0) == 0.3


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1, np.inf])
def test_a_score_that_is_missing_or_out_of_range_leaves_no_number(name, bad):
    first = RULES[name]([bad, 0.5], [0.5, 0.5])
    second = RULES[name]([0.5, 0.5], [bad, 0.5])
    assert np.isnan([first[0], second[0]]).all()
    assert np.isfinite([first[1], second[1]]).all()


def test_impossible_settings_are_refused():
    for wrong in (
        lambda: base_and_bonus(0.5, 0.5, -1),
        lambda: threshold_bonus(0.5, 0.5, -1),
        lambda: lambda_harmonic(0.5, 0.5, 1.5),
        lambda: additive(0.5, 0.5, -0.1),
    ):
        with pytest.raises(ValueError, match="must be"):
            wrong()
