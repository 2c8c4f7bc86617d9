"""Tiered potentials: boundaries, hysteresis, one carry per environment, still a potential."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.errors import ConfigError
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.frames import FramesInInfo, ProgressInInfo
from embodied_reward.shaping.tiers import TieredProgress, TieredScorer, Tiers
from embodied_reward.shaping.vector import LearnedRewardVecEnv

GAMMA = 0.95


def test_boundaries_and_hysteresis():
    tiers = Tiers(4, 0.05)
    path = np.array([0.0, 0.24, 0.25, 0.21, 0.19, 0.25, 0.8, 0.71, 0.69, 0.1, 1.0])
    expected = [0, 0, 1, 1, 0, 1, 3, 3, 2, 0, 4]
    assert (4 * tiers.trajectory(path)).tolist() == expected
    assert (4 * Tiers(4, 0.0).trajectory(path)).tolist() == [0, 0, 1, 0, 0, 1, 3, 2, 2, 0, 4]
    assert tiers.trajectory(np.zeros(0)).shape == (0,)


def test_every_boundary_is_reached_exactly():
    for count in range(1, 30):
        steps = np.arange(count + 1) / count
        np.testing.assert_allclose(Tiers(count, 0.0).trajectory(steps), steps)


@hypothesis.given(
    arrays.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1)),
    st.integers(1, 12),
    st.floats(0, 0.99),
)
def test_the_tier_stays_within_one_step_and_the_dead_band(path, count, share):
    tiers = Tiers(count, share / count)
    phi = tiers.trajectory(path)
    assert (phi <= path + tiers.hysteresis + 1e-6).all()
    assert (phi >= path - 1 / count - 1e-6).all()


def test_chatter_at_a_boundary_stops():
    path = 0.5 + 0.02 * np.random.default_rng(0).normal(size=400)
    changes = [int((np.diff(Tiers(4, h).trajectory(path)) != 0).sum()) for h in (0.0, 0.1)]
    assert changes[0] > 100
    assert changes[1] <= 1


def test_rows_carry_their_own_tier_through_resets_and_episodes_telescope(corridor, brightness):
    tiers, envs = Tiers(3, 0.2), [corridor(horizon=9), corridor(start=2, horizon=7)]
    vector = DummyVecEnv([lambda env=env: FramesInInfo(env) for env in envs])
    scorer = TieredScorer(brightness(2), tiers, 2)
    env = LearnedRewardVecEnv(vector, mode_named("potential"), gamma=GAMMA, scorer=scorer)
    env.reset()
    rng, x = np.random.default_rng(1), [[0.0], [0.4]]
    total, episodes = np.zeros(2), 0
    for _ in range(150):
        _, rewards, dones, infos = env.step(rng.choice([-1.0, 1.0, 1.0], size=(2, 1)))
        for i, info in enumerate(infos):
            total[i] += GAMMA ** (len(x[i]) - 1) * (rewards[i] - info["base_reward"])
            last = info["terminal_observation"] if dones[i] else vector.envs[i].unwrapped._obs()
            x[i].append(float(last[0]) / 5)
            phi = tiers.trajectory(np.array(x[i]))
            assert info["potential"] == pytest.approx(phi[-1])
            if dones[i]:
                m = info["TimeLimit.truncated"]
                assert total[i] == pytest.approx(
                    GAMMA ** (len(x[i]) - 1) * m * phi[-1] - phi[0], abs=1e-5
                )
                total[i], x[i], episodes = 0.0, [[0.0, 0.4][i]], episodes + 1
    assert episodes > 15


def test_true_progress_can_be_tiered(corridor):
    env = TieredProgress(ProgressInInfo(corridor()), Tiers(2, 0.15))
    assert env.reset()[1]["progress"] == 0.0
    told = [env.step(np.array([a]))[4]["progress"] for a in (1, 1, 1, -1, -1)]
    assert told == [0.0, 0.0, 0.5, 0.5, 0.0]


def test_a_failed_score_stays_nan_and_leaves_the_tier_alone(corridor, brightness):
    inner = brightness(1)
    scorer = TieredScorer(inner, Tiers(4, 0.0), 1)
    picture = {"eye": np.full((1, 4, 4, 3), 120, np.uint8)}
    assert scorer.start([0], picture).potential.tolist() == [0.5]
    inner.fail_at = (1, 0)
    assert np.isnan(scorer.step(picture).potential).all()
    assert scorer.step(picture).potential.tolist() == [0.5]


@pytest.mark.parametrize(
    ("count", "hysteresis", "says"),
    [(-1, 0.0, "tiers"), (4, 0.25, r"\[0, 0.25\)"), (4, -0.1, "hysteresis")],
)
def test_bad_tiers_are_refused(count, hysteresis, says):
    with pytest.raises(ConfigError, match=says):
        Tiers(count, hysteresis)
