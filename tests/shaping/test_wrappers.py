"""The wrappers on real vector environments: final frames, resets, equality, faults."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.errors import EnvError, NonFiniteError
from embodied_reward.shaping import MODES, mode_named, shaping_reward
from embodied_reward.shaping.frames import FramesInInfo, ProgressInInfo
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from embodied_reward.shaping.wrapper import LearnedReward

GAMMA = 0.95


def vectorise(envs, mode, scorer=None, kappa=1.0):
    wrap = {"scorer": FramesInInfo, "progress": ProgressInInfo, "none": gym.Wrapper}[mode.source]
    made = [wrap(Monitor(env)) for env in envs]
    vector = DummyVecEnv([lambda env=env: env for env in made])
    return LearnedRewardVecEnv(vector, mode, gamma=GAMMA, kappa=kappa, scorer=scorer)


def test_rows_that_end_at_different_times_are_scored_on_their_real_last_frames(
    corridor, brightness
):
    # Row 0 succeeds after 2 steps (terminates), row 1 walks on to its horizon of 3 (truncates).
    scorer = brightness(2)
    env = vectorise([corridor(start=3), corridor(horizon=3)], mode_named("potential"), scorer)
    env.reset()
    seen = []
    for _ in range(6):
        _, reward, done, infos = env.step(np.ones((2, 1)))
        seen.append((reward, done, infos))
    # Vector step 2: row 0 reaches the goal, Phi(goal) = 1 is seen, but masked in the shaping.
    reward, done, infos = seen[1]
    assert done.tolist() == [True, False]
    assert infos[0]["potential"] == pytest.approx(1.0)
    assert infos[0]["previous_potential"] == pytest.approx(0.8)
    assert reward[0] == pytest.approx(1.0 - 0.8)
    # Vector step 3: row 1 is cut off at x = 3; Phi of that real final frame stays.
    reward, done, infos = seen[2]
    assert done.tolist() == [False, True]
    assert infos[1]["potential"] == pytest.approx(0.6)
    assert reward[1] == pytest.approx(GAMMA * 0.6 - 0.4)
    # Row 0 began its second episode at x = 3 again, row 1 at x = 0.
    assert infos[0]["previous_potential"] == pytest.approx(0.6)
    assert seen[3][2][1]["previous_potential"] == pytest.approx(0.0)
    restarts = [rows for rows, _ in scorer.started]
    assert restarts == [[0, 1], [0], [1], [0], [0, 1]]
    assert not any("frames" in info for _, _, infos in seen for info in infos)
    assert not any("frames" in info for info in env.reset_infos)


@pytest.mark.parametrize("name", list(MODES))
def test_single_and_vector_wrapper_pay_the_same(name, corridor, brightness):
    mode, rng = mode_named(name), np.random.default_rng(0)
    scorers = [brightness(1) if mode.source == "scorer" else None for _ in range(2)]
    single = LearnedReward(corridor(), mode, gamma=GAMMA, kappa=1.5, scorer=scorers[0])
    vector = vectorise([corridor()], mode, scorers[1], kappa=1.5)
    single.reset()
    vector.reset()
    for _ in range(60):
        action = rng.choice([-1.0, 1.0, 1.0], size=1)
        _, reward, terminated, truncated, info = single.step(action)
        _, rewards, dones, infos = vector.step(action[None])
        assert rewards[0] == pytest.approx(reward, abs=1e-6)
        assert dones[0] == (terminated or truncated)
        for key in ("env_reward", "base_reward", "potential", "previous_potential", "shaping"):
            assert infos[0][key] == pytest.approx(info[key], abs=1e-6), key
        if terminated or truncated:
            single.reset()


def test_episode_returns_telescope_and_monitor_keeps_the_tasks_own(corridor, brightness):
    env = vectorise([corridor(), corridor(start=2)], mode_named("potential"), brightness(2))
    env.reset()
    rng = np.random.default_rng(1)
    sums, power, first = np.zeros(2), np.ones(2), np.array([0.0, 0.4])
    episodes = 0
    for _ in range(200):
        _, rewards, dones, infos = env.step(rng.choice([-1.0, 1.0, 1.0], size=(2, 1)))
        for i, info in enumerate(infos):
            sums[i] += power[i] * (float(rewards[i]) - info["base_reward"])
            power[i] *= GAMMA
            if dones[i]:
                last = 0.0 if not info["TimeLimit.truncated"] else info["potential"]
                assert sums[i] == pytest.approx(power[i] * last - first[i], abs=1e-5)
                assert info["episode"]["r"] in (0.0, 1.0)
                sums[i], power[i], episodes = 0.0, 1.0, episodes + 1
    assert episodes > 20
    assert len(env.learned_returns) == min(episodes, 100)


def test_frames_are_rendered_only_where_the_mode_needs_them(corridor, brightness):
    for name, expected in {"potential": 5, "success": 0, "oracle": 0, "task": 0}.items():
        inner = corridor()
        mode = mode_named(name)
        env = vectorise([inner], mode, brightness(1) if mode.source == "scorer" else None)
        env.reset()
        for _ in range(4):
            env.step(np.ones((1, 1)))
        assert inner.rendered == expected, name


def test_nan_potential_names_environment_and_step_and_pays_nothing(corridor, brightness):
    scorer = brightness(2)
    scorer.fail_at = (3, 1)
    env = vectorise([corridor(), corridor()], mode_named("potential"), scorer)
    env.reset()
    for _ in range(2):
        env.step(np.ones((2, 1)))
    with pytest.raises(NonFiniteError, match="environment 1 is nan at vector step 3"):
        env.step(np.ones((2, 1)))


def test_nan_potential_in_the_single_wrapper(corridor, brightness):
    scorer = brightness(1)
    scorer.fail_at = (2, 0)
    env = LearnedReward(corridor(), mode_named("potential"), gamma=GAMMA, scorer=scorer)
    env.reset()
    env.step(np.ones(1))
    with pytest.raises(NonFiniteError, match="step 2"):
        env.step(np.ones(1))


@pytest.mark.parametrize("what", ["observation", "reward", "final observation"])
def test_nan_from_the_environment_is_refused(what, corridor):
    class Broken(corridor):
        def step(self, action):
            obs, reward, terminated, truncated, info = super().step(action)
            if what == "reward":
                reward = float("nan")
            if what == "observation" or (what == "final observation" and truncated):
                obs = obs * np.nan
            return obs, reward, terminated, truncated, info

    env = vectorise([corridor(horizon=1), Broken(horizon=1)], mode_named("success"))
    env.reset()
    with pytest.raises(NonFiniteError, match="environment 1"):
        env.step(np.ones((2, 1)))


def test_a_missing_view_is_named(corridor, brightness):
    scorer = brightness(1)
    scorer.views = ("wrist",)
    env = vectorise([corridor()], mode_named("potential"), scorer)
    with pytest.raises(EnvError, match=r"rendered \['eye'\].*one of \['wrist'\]"):
        env.reset()


def test_a_wrapper_that_scores_the_reset_frame_at_the_end_is_caught(corridor, brightness):
    """The usual mistake: Phi(s') of a finished row from the frame after the automatic reset."""
    env = vectorise([corridor(start=4, horizon=3)], mode_named("potential"), brightness(1))
    env.reset()
    _, reward, done, infos = env.step(np.ones((1, 1)))
    assert done[0]
    wrong = 1.0 + shaping_reward(0.8, 0.8, False, GAMMA)  # the new episode starts at x = 4
    assert reward[0] == pytest.approx(1.0 - 0.8)
    assert abs(reward[0] - wrong) > 0.5
