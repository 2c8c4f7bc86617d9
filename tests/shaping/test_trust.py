"""The potential that moves as far as its model is sure: exact, invariant, and less noisy."""

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.errors import NonFiniteError
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.frames import FramesInInfo
from embodied_reward.shaping.ledger import EPISODE
from embodied_reward.shaping.trust import TrustedScorer, trusted
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from embodied_reward.types import Scores

TAU = 0.1


class Unsure:
    """Phi and U of each environment come from a script, one row per step."""

    views = ("eye",)

    def __init__(self, phi, u):
        self.phi, self.u, self.t = np.asarray(phi, float), np.asarray(u, float), 0

    def start(self, rows, frames):
        self.t = 0
        return self._scores(list(rows))

    def step(self, frames):
        self.t += 1
        return self._scores(slice(None))

    def _scores(self, rows):
        phi, u = self.phi[self.t, rows], self.u[self.t, rows]
        return Scores(phi, np.full_like(phi, np.nan), u, np.isfinite(phi))


def online(phi, u):
    scorer = TrustedScorer(Unsure(phi, u), TAU, phi.shape[1])
    first = scorer.start(range(phi.shape[1]), {}).potential
    return np.array([first, *(scorer.step({}).potential for _ in range(len(phi) - 1))])


def test_online_and_recorded_episodes_agree_and_follow_the_formula():
    rng = np.random.default_rng(0)
    phi, u = rng.random((30, 3)), 0.2 * rng.random((30, 3))
    found = online(phi, u)
    for row in range(3):
        np.testing.assert_array_equal(found[:, row], trusted(phi[:, row], u[:, row], TAU))
    weight = np.exp(-u[1:] / TAU)
    np.testing.assert_allclose(np.diff(found, axis=0), weight * (phi[1:] - found[:-1]), atol=1e-15)


def test_a_sure_model_is_believed_to_the_bit():
    phi = np.random.default_rng(1).random((20, 2))
    np.testing.assert_array_equal(online(phi, np.zeros_like(phi)), phi)


def test_what_is_held_back_is_paid_later():
    phi = np.array([0.1, 0.9, 0.9, 0.9])
    held = trusted(phi, np.array([0.0, 9.0, 9.0, 0.0]), TAU)
    np.testing.assert_allclose(held, [0.1, 0.1, 0.1, 0.9], atol=1e-12)


def test_outliers_that_the_model_doubts_are_held_back():
    """The toy of Ctrl-U with a potential: 30 % of the frames are wrong, and known to be unsure."""
    rng = np.random.default_rng(0)
    true = np.tile(np.linspace(0, 1, 60)[:, None], 40)
    bad = rng.random(true.shape) < 0.3
    bad[0] = False
    u = np.where(bad, 0.6, 0.02)
    seen = true + u * rng.normal(size=true.shape)
    errors = [np.abs(x - true).mean() for x in (seen, online(seen, u))]
    assert errors[0] > 1.8 * errors[1]


def test_failed_items_stay_nan_and_the_next_good_one_goes_on():
    phi, u = np.array([0.2, np.nan, 0.4]), np.array([0.0, np.nan, 0.0])
    np.testing.assert_array_equal(trusted(phi, u, TAU), [0.2, np.nan, 0.4])
    np.testing.assert_array_equal(online(phi[:, None], u[:, None])[:, 0], [0.2, np.nan, 0.4])


def test_a_model_without_uncertainty_is_refused_by_name():
    with pytest.raises(NonFiniteError, match=r"without an uncertainty.*ensemble"):
        trusted(np.array([0.1, 0.2]), np.array([0.1, np.nan]), TAU)


def test_every_episode_still_telescopes(corridor):
    """The ledger raises where a shaping sum is not kappa (gamma^T m Phi_T - Phi_0)."""
    rng = np.random.default_rng(3)
    scorer = TrustedScorer(Unsure(rng.random((400, 2)), rng.random((400, 2))), TAU, 2)
    envs = [FramesInInfo(corridor(start=s, horizon=6)) for s in (0, 3)]
    vector = DummyVecEnv([lambda env=env: env for env in envs])
    env = LearnedRewardVecEnv(vector, mode_named("potential"), gamma=0.9, kappa=2.0, scorer=scorer)
    env.reset()
    ended = []
    for _ in range(60):
        *_, infos = env.step(rng.uniform(-0.5, 1, (2, 1)).astype(np.float32))
        ended += [i[EPISODE] for i in infos if EPISODE in i]
    assert {e["length"] == 6 for e in ended} == {True, False}  # truncated and terminated ones
    assert max(abs(e["residual"]) for e in ended) < 1e-9
