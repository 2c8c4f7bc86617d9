"""The laws of potential-based shaping (Ng 1999, Grzes 2017), with wrong variants that must fail."""

import numpy as np
import pytest
import torch

from embodied_reward.errors import ConfigError
from embodied_reward.shaping import MODES, mode_named, shaping_reward

GAMMA = 0.9


def random_mdp(rng, states=8, actions=3, terminal=0):
    p = rng.dirichlet(np.ones(states), size=(states, actions))
    r = rng.normal(size=(states, actions, states))
    ends = np.zeros(states, bool)
    ends[:terminal] = True
    return p, r, ends


def iterate(p, r, ends, alpha=None, sweeps=2000):
    """Optimal (alpha None) or soft-optimal Q of an MDP; no value beyond terminal states."""
    q = np.zeros(p.shape[:2])
    for _ in range(sweeps):
        v = q.max(1) if alpha is None else alpha * np.log(np.exp(q / alpha).sum(1))
        new = (p * (r + GAMMA * np.where(ends, 0.0, v))).sum(2)
        if np.abs(new - q).max() < 1e-14:
            break
        q = new
    return q


def shaped(r, phi, ends, wrong=False, gamma=GAMMA):
    mask = np.zeros_like(ends) if wrong else ends
    return r + shaping_reward(phi[:, None, None], phi[None, None, :], mask, gamma)


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_q_shifts_by_phi_and_policies_stay(alpha):
    rng = np.random.default_rng(0)
    for _ in range(100):
        p, r, ends = random_mdp(rng)
        phi = rng.normal(size=8)
        q, q_shaped = iterate(p, r, ends, alpha), iterate(p, shaped(r, phi, ends), ends, alpha)
        assert np.abs(q_shaped - (q - phi[:, None])).max() < 1e-10
        assert (q.argmax(1) == q_shaped.argmax(1)).all()


def changed_policies(count=300, **wrong):
    rng, changed = np.random.default_rng(1), 0
    for _ in range(count):
        p, r, ends = random_mdp(rng, terminal=2)
        phi = 3 * rng.normal(size=8)
        q, q_shaped = iterate(p, r, ends), iterate(p, shaped(r, phi, ends, **wrong), ends)
        changed += bool((q.argmax(1) != q_shaped.argmax(1))[~ends].any())
    return changed


def test_no_episodic_policy_changes_but_keeping_phi_at_the_terminal_changes_many():
    assert changed_policies() == 0
    assert changed_policies(wrong=True) > 90


def test_another_discount_than_the_learners_changes_policies():
    assert changed_policies(100, gamma=1.0) > 30


def test_two_exits():
    """Exit A pays 1, exit B pays 0 but has Phi 2: unmasked, B would be worth 1.8."""
    good = shaping_reward(0.0, np.array([0.0, 2.0]), True, GAMMA) + np.array([1.0, 0.0])
    wrong = shaping_reward(0.0, np.array([0.0, 2.0]), False, GAMMA) + np.array([1.0, 0.0])
    assert good.argmax() == 0
    assert wrong.argmax() == 1


def test_masking_phi_at_a_truncation_biases_the_target_by_gamma_phi():
    phi, phi_last, value_last = 0.4, 0.7, 2.0
    # The critic of the shaped problem learns V' = V - Phi and still bootstraps at a timeout.
    bootstrap = GAMMA * (value_last - phi_last)
    right = shaping_reward(phi, phi_last, False, GAMMA) + bootstrap
    wrong = shaping_reward(phi, phi_last, True, GAMMA) + bootstrap
    assert right == pytest.approx(GAMMA * value_last - phi, abs=1e-12)
    assert wrong - right == pytest.approx(-GAMMA * phi_last, abs=1e-12)


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("chunk", [1, 4])
def test_discounted_sum_telescopes(terminated, chunk):
    """Also for chunks of actions: one gamma per decision, Phi between decisions."""
    phi = np.random.default_rng(2).random(21)[::chunk]
    steps = len(phi) - 1
    ends = np.arange(steps) == steps - 1
    f = shaping_reward(phi[:-1], phi[1:], ends & terminated, GAMMA, kappa=1.7)
    total = (GAMMA ** np.arange(steps) * f).sum()
    expected = 1.7 * (GAMMA**steps * (not terminated) * phi[-1] - phi[0])
    assert abs(total - expected) < 1e-9


def test_shaping_inside_a_chunk_does_not_telescope():
    """The wrong order of wrappers: inner steps shaped and summed without inner discounts."""
    phi = np.random.default_rng(3).random(21)
    inner = shaping_reward(phi[:-1], phi[1:], False, GAMMA).reshape(5, 4).sum(axis=1)
    total = (GAMMA ** np.arange(5) * inner).sum()
    assert abs(total - (GAMMA**5 * phi[-1] - phi[0])) > 1e-2


def test_generalised_advantages_are_identical_sample_by_sample():
    """T3: with V' = V - Phi, whatever lambda and however the rollout ends."""
    rng, lam, n = np.random.default_rng(4), 0.95, 30
    reward, value, phi = rng.normal(size=n), rng.normal(size=n + 1), rng.random(n + 1)
    terminated, truncated = np.zeros(n, bool), np.zeros(n, bool)
    terminated[[9]], truncated[[19]] = True, True

    def gae(r, v):
        delta = r + GAMMA * ~terminated * v[1:] - v[:-1]
        out, carry = np.zeros(n), 0.0
        for t in reversed(range(n)):
            carry = delta[t] + GAMMA * lam * (not (terminated[t] or truncated[t])) * carry
            out[t] = carry
        return out

    f = shaping_reward(phi[:-1], phi[1:], terminated, GAMMA)
    assert np.abs(gae(reward + f, value - phi) - gae(reward, value)).max() < 1e-8


def test_numpy_torch_and_floats_agree():
    rng = np.random.default_rng(5)
    phi, after, ends = rng.random(6), rng.random(6), rng.random(6) < 0.5
    whole = shaping_reward(phi, after, ends, 0.97, 2.0)
    tensors = shaping_reward(*map(torch.from_numpy, (phi, after, ends)), 0.97, 2.0)
    single = [shaping_reward(*row, 0.97, 2.0) for row in zip(phi, after, ends, strict=True)]
    assert whole.dtype == np.float64
    np.testing.assert_allclose(whole, tensors.numpy(), atol=1e-15)
    np.testing.assert_allclose(whole, single, atol=1e-15)


def test_modes_that_claim_invariance_are_exactly_those_that_have_it():
    rng = np.random.default_rng(6)
    for mode in MODES.values():
        changed = 0
        for _ in range(100):
            p, r, ends = random_mdp(rng, terminal=2)
            phi = 3 * rng.random(8)
            rows, columns = phi[:, None, None], phi[None, None, :]
            total = mode.total(r, rows, columns, ends, GAMMA, 1.0)
            before, after = iterate(p, r, ends), iterate(p, total, ends)
            changed += bool((before.argmax(1) != after.argmax(1))[~ends].any())
        assert (changed == 0) == mode.invariant, mode.name
        assert ("NOT" in mode.summary(GAMMA, 1.0)) != mode.invariant


def test_unknown_mode_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'potential'"):
        mode_named("potental")
