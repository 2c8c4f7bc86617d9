"""T1, T2, T4: what potential-based shaping keeps (Ng 1999, Grzes 2017), and who breaks it."""

import numpy as np
import pytest
import torch

from embodied_reward.errors import ConfigError
from embodied_reward.shaping import MODES, mode_named, shaping_reward

GAMMA = 0.9


def shaped(r, phi, ends, gamma=GAMMA):
    return r + shaping_reward(phi[:, None, None], phi[None, None, :], ends, gamma)


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_q_shifts_by_phi_and_policies_stay(alpha, mdps):
    """T1."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        p, r, ends = mdps.random(rng)
        phi = rng.normal(size=8)
        q = mdps.iterate(p, r, ends, GAMMA, alpha)
        q_shaped = mdps.iterate(p, shaped(r, phi, ends), ends, GAMMA, alpha)
        assert np.abs(q_shaped - (q - phi[:, None])).max() < 1e-10
        assert (q.argmax(1) == q_shaped.argmax(1)).all()
        if alpha:
            before, after = soft_policy(q, alpha), soft_policy(q_shaped, alpha)
            assert np.abs(before - after).max() < 1e-10


def soft_policy(q, alpha):
    p = np.exp((q - q.max(1, keepdims=True)) / alpha)
    return p / p.sum(1, keepdims=True)


def test_no_episodic_policy_changes_but_keeping_phi_at_the_terminal_changes_many(mdps):
    """T2."""

    def right(r, ends, rng):
        return shaped(r, 3 * rng.normal(size=8), ends)

    def keeps_phi_at_the_terminal(r, ends, rng):
        return shaped(r, 3 * rng.normal(size=8), np.zeros_like(ends))

    assert mdps.changed(300, GAMMA, right) == 0
    assert mdps.changed(300, GAMMA, keeps_phi_at_the_terminal) > 90


def test_another_discount_than_the_learners_changes_policies(mdps):
    def wrong(r, ends, rng):
        return shaped(r, 3 * rng.normal(size=8), ends, gamma=1.0)

    assert mdps.changed(100, GAMMA, wrong) > 30


def test_two_exits():
    """Exit A pays 1, exit B pays 0 but has Phi 2: unmasked, B would be worth 1.8."""
    good = shaping_reward(0.0, np.array([0.0, 2.0]), True, GAMMA) + np.array([1.0, 0.0])
    wrong = shaping_reward(0.0, np.array([0.0, 2.0]), False, GAMMA) + np.array([1.0, 0.0])
    assert good.argmax() == 0
    assert wrong.tolist() == pytest.approx([1.0, 1.8])


def test_masking_phi_at_a_truncation_biases_the_target_by_gamma_phi():
    """T4."""
    phi, phi_last, value_last = 0.4, 0.7, 2.0
    # The critic of the shaped problem learns V' = V - Phi and still bootstraps at a timeout.
    bootstrap = GAMMA * (value_last - phi_last)
    right = shaping_reward(phi, phi_last, False, GAMMA) + bootstrap
    wrong = shaping_reward(phi, phi_last, True, GAMMA) + bootstrap
    assert right == pytest.approx(GAMMA * value_last - phi, abs=1e-12)
    assert wrong - right == pytest.approx(-GAMMA * phi_last, abs=1e-12)


def test_numpy_torch_and_floats_agree():
    rng = np.random.default_rng(5)
    phi, after, ends = rng.random(6), rng.random(6), rng.random(6) < 0.5
    whole = shaping_reward(phi, after, ends, 0.97, 2.0)
    tensors = shaping_reward(*map(torch.from_numpy, (phi, after, ends)), 0.97, 2.0)
    single = [shaping_reward(*row, 0.97, 2.0) for row in zip(phi, after, ends, strict=True)]
    assert whole.dtype == np.float64
    np.testing.assert_allclose(whole, tensors.numpy(), atol=1e-15)
    np.testing.assert_allclose(whole, single, atol=1e-15)


def test_modes_that_claim_invariance_are_exactly_those_that_have_it(mdps):
    for mode in MODES.values():

        def reward(r, ends, rng, mode=mode):
            phi = 3 * rng.random(8)
            return mode.total(r, phi[:, None, None], phi[None, None, :], ends, GAMMA, 1.0)

        changed = mdps.changed(100, GAMMA, reward, seed=6)
        assert (changed == 0) == mode.invariant, mode.name
        assert ("NOT" in mode.summary(GAMMA, 1.0)) != mode.invariant


def test_unknown_mode_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'potential'"):
        mode_named("potental")
