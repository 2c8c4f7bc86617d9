import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_reward.metrics.epic import epic_table
from embodied_reward.metrics.starc import canonical_values, starc

S, A, GAMMA = 6, 3, 0.9
seeds = st.integers(0, 10_000)


def world(seed):
    rng = np.random.default_rng(seed)
    dynamics = rng.dirichlet(np.ones(S), size=(S, A))
    return rng, dynamics, rng.normal(size=(S, A, S))


def shaping(phi, gamma=GAMMA):
    return gamma * phi[None, None, :] - phi[:, None, None]


@given(seeds, st.floats(0.01, 50))
@settings(max_examples=40, deadline=None)
def test_shaping_scale_and_redistribution_over_next_states_do_not_count(seed, scale):
    rng, dynamics, r = world(seed)
    moved = rng.normal(size=r.shape)
    moved -= (dynamics * moved).sum(2, keepdims=True)  # no change in expectation
    same = scale * (r + shaping(rng.normal(size=S)) + moved)
    assert starc(r, same, dynamics, GAMMA) < 1e-9
    assert starc(r, -same, dynamics, GAMMA) == pytest.approx(1.0)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_range_symmetry_and_triangle(seed):
    rng, dynamics, a = world(seed)
    b, c = rng.normal(size=(2, S, A, S))
    ab = starc(a, b, dynamics, GAMMA)
    assert 0 <= ab <= 1
    assert starc(b, a, dynamics, GAMMA) == pytest.approx(ab)
    both = ab + starc(b, c, dynamics, GAMMA)
    assert starc(a, c, dynamics, GAMMA) <= both + 1e-12


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_policy_of_the_levelling_changes_no_zero(seed):
    rng, dynamics, r = world(seed)
    policy = rng.dirichlet(np.ones(A), size=S)
    same = 2 * r + shaping(rng.normal(size=S))
    assert starc(r, same, dynamics, GAMMA, policy) < 1e-9
    canonical = canonical_values(r, dynamics, GAMMA, policy)
    # The levelled reward has value 0 under the policy that levelled it.
    assert (policy * canonical).sum(1) == pytest.approx(np.zeros(S), abs=1e-9)


def best_actions(r, dynamics, sweeps=800):
    value = np.zeros(S)
    for _ in range(sweeps):
        q = (dynamics * (r + GAMMA * value)).sum(2)
        value = q.max(1)
    return q.argmax(1)


def test_close_rewards_share_optimal_policies_and_opposite_ones_do_not():
    _, dynamics, r = world(1)
    near, far = r + 1e-4 * world(2)[2], -r
    assert starc(r, near, dynamics, GAMMA) < 1e-3
    assert (best_actions(near, dynamics) == best_actions(r, dynamics)).all()
    assert (best_actions(far, dynamics) != best_actions(r, dynamics)).any()


def test_it_ignores_what_cannot_happen_and_epic_does_not():
    """In a ring each action has one next state; the reward differs only elsewhere."""
    rng = np.random.default_rng(0)
    dynamics = np.zeros((S, A, S))
    for s in range(S):
        for a in range(A):
            dynamics[s, a, (s + a) % S] = 1.0
    r = rng.normal(size=(S, A, S))
    fiction = np.where(dynamics > 0, r, 5 * rng.normal(size=r.shape))
    assert starc(r, fiction, dynamics, GAMMA) < 1e-12
    # EPIC's expectations run over impossible transitions, even when those covered are not.
    assert epic_table(r, fiction, dynamics, GAMMA) > 0.2


def test_it_tells_apart_what_true_dynamics_tell_apart():
    """Two rewards that agree on average over s' but not over the s' that really follow."""
    _, dynamics, r = world(3)
    tilt = np.zeros((S, A, S))
    tilt[:, :, 0], tilt[:, :, 1] = 4.0, -4.0
    tilt[:, 1:] *= -1
    assert starc(r, r + tilt, dynamics, GAMMA) > 0.05
    level = tilt - (dynamics * tilt).sum(2, keepdims=True)
    assert starc(r, r + level, dynamics, GAMMA) < 1e-9
    assert epic_table(r, r + level, dynamics, GAMMA) > 0.1


def test_a_reward_that_prefers_nothing_is_half_way_from_all():
    rng, dynamics, r = world(4)
    nothing = shaping(rng.normal(size=S)) + 0.3
    assert starc(r, nothing, dynamics, GAMMA) == pytest.approx(0.5)
    assert starc(np.zeros_like(r), nothing, dynamics, GAMMA) == 0.0


def test_bad_input_is_refused():
    _, dynamics, r = world(5)
    with pytest.raises(ValueError, match="one shape"):
        starc(r, r[0], dynamics, GAMMA)
    with pytest.raises(ValueError, match="sum to 1"):
        starc(r, r, 2 * dynamics, GAMMA)
    with pytest.raises(ValueError, match="gamma = 1"):
        starc(r, r, dynamics, 1.0)
