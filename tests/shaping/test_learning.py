"""T6 (Wiewiora 2003), T7 (Devlin and Kudenko 2012) and the cost of a bad offset or scale (E.5)."""

import re

import numpy as np
import pytest

from embodied_reward.shaping import shaping_reward
from embodied_reward.shaping.diagnose import potential_warnings

STATES, GAMMA = 12, 0.95


def q_learning(phi, q, *, shaped, episodes=40, seed=0, keeps_phi=False):
    """Tabular Q-learning on a chain whose right end pays 1 and is terminal."""
    rng, steps = np.random.default_rng(seed), []
    for _ in range(episodes):
        s = t = 0
        while s < STATES - 1 and t < 500:
            best = np.flatnonzero(q[s] >= q[s].max() - 1e-12)
            a = int(rng.integers(2)) if rng.random() < 0.1 else int(rng.choice(best))
            after = min(max(s + (1 if a else -1), 0), STATES - 1)
            end = after == STATES - 1
            f = shaping_reward(phi[s], phi[after], end and not keeps_phi, GAMMA) if shaped else 0
            target = float(end) + f + GAMMA * (not end) * q[after].max()
            q[s, a] += 0.5 * (target - q[s, a])
            s, t = after, t + 1
        steps.append(t)
    return q, steps


def test_shaping_equals_initialising_the_critic_with_phi():
    """T6: the same experience, step for step; so Phi is a prior and nothing more."""
    phi = np.random.default_rng(3).random(STATES)
    phi[-1] = 0.7  # the terminal potential must not matter
    start = np.repeat(phi[:, None], 2, axis=1)
    shaped, steps = q_learning(phi, np.zeros((STATES, 2)), shaped=True)
    plain, same = q_learning(phi, start.copy(), shaped=False)
    assert steps == same
    assert np.abs(shaped + phi[:, None] - plain)[:-1].max() < 1e-12
    wrong, _ = q_learning(phi, np.zeros((STATES, 2)), shaped=True, keeps_phi=True)
    assert np.abs(wrong + phi[:, None] - plain)[:-1].max() > 0.1


def finite_horizon(p, r, horizon=6):
    """Optimal policies Int[h s] of a finite-horizon MDP with rewards r Float[h s a s']."""
    v, policy = np.zeros(p.shape[0]), []
    for t in reversed(range(horizon)):
        q = (p * (r[t] + GAMMA * v)).sum(2)
        policy.append(q.argmax(1))
        v = q.max(1)
    return np.array(policy)


def test_time_dependent_potentials_keep_policies_only_if_entered_once(mdps):
    """T7: gamma Phi_{t+1}(s') - Phi_t(s); the same Phi_t on both sides breaks nearly all."""
    rng, changed = np.random.default_rng(0), {"right": 0, "wrong": 0, "kept": 0}
    for _ in range(200):
        p, r, _ = mdps.random(rng, states=6)
        phi, horizon = 3 * rng.normal(size=(7, 6)), 6
        last = np.arange(horizon)[:, None, None, None] == horizon - 1
        now, then = phi[:-1, :, None, None], phi[1:, None, None, :]
        plain = finite_horizon(p, np.broadcast_to(r, (horizon, *r.shape)))
        forms = {
            "right": shaping_reward(now, then, last, GAMMA),
            "wrong": shaping_reward(now, phi[:-1, None, None, :], last, GAMMA),
            "kept": shaping_reward(now, then, False, GAMMA),
        }
        for name, f in forms.items():
            changed[name] += bool((finite_horizon(p, r + f) != plain).any())
    assert changed["right"] == 0
    assert changed["wrong"] > 180
    assert changed["kept"] > 60  # the time-out bug: Phi kept where nobody bootstraps


VALUE = GAMMA ** np.arange(STATES - 2, -2, -1.0).clip(0)
POTENTIALS = {
    "V*": VALUE,
    "V* + 1": VALUE + 1,
    "V* - 1": VALUE - 1,
    "10 V*": 10 * VALUE,
    "-V*": -VALUE,
}


def steps_of_ten_episodes(phi, seeds=10):
    runs = [
        q_learning(phi, np.zeros((STATES, 2)), shaped=phi is not None, episodes=10, seed=seed)[1]
        for seed in range(seeds)
    ]
    return float(np.mean([sum(steps) for steps in runs]))


def test_offset_and_scale_decide_the_speed_and_the_warnings_name_them():
    """E.5: each potential below keeps the optimum; only the first helps much, and only it is
    passed without a warning."""
    needed = {name: steps_of_ten_episodes(phi) for name, phi in POTENTIALS.items()}
    plain = steps_of_ten_episodes(None)
    print({"none": plain, **needed})  # the numbers in docs/shaping.md; shown with -s
    assert needed["V*"] < 0.5 * plain
    for name in ("V* - 1", "10 V*", "-V*"):
        assert needed[name] > 1.2 * plain, name
    assert needed["V* + 1"] > 2 * needed["V*"]
    for name, phi in POTENTIALS.items():
        assert bool(potential_warnings([phi], gamma=GAMMA)) == (name != "V*"), name


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (np.full(20, 0.4), "tells no state from another"),
        (np.linspace(-0.5, 0.4, 20), r"pays \+0.025 per decision.* add 0.5 to Phi"),
        (np.linspace(0.1, 8.1, 20), "drown the base reward; try --reward.kappa=0.12"),
        (np.linspace(0.1, 0.15, 20), "hardly be seen"),
        (np.linspace(0.9, 0.1, 20), "ends no higher than it began in 1 of 1"),
        (np.linspace(1.2, 2.2, 20), "buries the guidance; subtract 0.803 from kappa Phi"),
    ],
)
def test_every_warning_says_what_was_seen_and_what_to_do(path, says):
    lines = potential_warnings([path], gamma=GAMMA)
    assert any(re.search(says, line) for line in lines), lines


def test_good_potentials_and_other_units_pass():
    rising = np.linspace(0.05, 0.95, 30)
    assert potential_warnings([rising, rising[5:]], gamma=0.98) == []
    assert potential_warnings([10 * rising], gamma=0.98, base_scale=10.0) == []
    assert potential_warnings([10 * rising], gamma=0.98, kappa=0.1) == []
    assert potential_warnings([], gamma=0.98) == []
