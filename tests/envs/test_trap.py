"""`trap/insert`: contract, geometry, chances, pictures and scripted behaviours."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.utils.passive_env_checker import env_render_passive_checker
from stable_baselines3.common.env_checker import check_env as sb3_check

from embodied_reward.envs import list_envs, make_behaviour, trap_behaviours
from embodied_reward.envs.behaviours import BEHAVIOURS
from embodied_reward.envs.trap import DEPTH, SOCKET, THROWN
from embodied_reward.errors import EnvError

PRESS = np.array([0.0, 0.0, -1.0], np.float32)
STILL = np.zeros(3, np.float32)


def above_socket(env, seed=None):
    return env.reset(seed=seed, options={"place": tuple(SOCKET)})


@pytest.mark.parametrize("pixels", [False, True])
def test_checkers_find_nothing(build, pixels):
    env = build("trap/insert", pixels=pixels, horizon=30, action_repeat=2)
    gymnasium_check(env, skip_render_check=True)
    env.reset()
    env_render_passive_checker(env)
    sb3_check(build("trap/insert", horizon=30))


def test_it_is_listed():
    assert "trap/insert" in list_envs()


def test_progress_rises_to_hovering_and_only_locking_completes_it(build):
    env = build("trap/insert", action_repeat=4, success_probability=1.0)
    env.reset(options={"place": (0.0, 0.0)})
    seen = [env.progress()]
    for _ in range(9):
        env.step(np.array([1.0, 0.0, 0.0], np.float32))
        seen.append(env.progress())
    np.testing.assert_allclose(seen, np.arange(10) / 10, atol=1e-6)
    *_, reward, terminated, truncated, info = env.step(PRESS)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info == {"is_success": True, "attempts": 1}
    assert env.progress() == 1.0


def test_a_failed_attempt_throws_the_hand_back(build):
    env = build("trap/insert", action_repeat=4, success_probability=0.0)
    _, info = above_socket(env)
    assert info == {"is_success": False, "attempts": 0}
    observation, reward, terminated, _, info = env.step(PRESS)
    assert (reward, terminated, info["attempts"]) == (0.0, False, 1)
    np.testing.assert_allclose(observation["agent_pos"], [*THROWN, 0.0], atol=1e-6)
    assert env.progress() == pytest.approx(0.2)


def test_pressing_beside_the_hole_does_nothing_and_walls_hold(build):
    env = build("trap/insert")
    env.reset(options={"place": (0.5, 0.0)})
    assert env.step(PRESS)[0]["agent_pos"][2] == 0.0
    above_socket(env)
    inside = env.step(PRESS)[0]["agent_pos"]
    assert inside[2] == pytest.approx(-DEPTH / 4)
    held = env.step(np.array([-1.0, 1.0, 0.0], np.float32))[0]["agent_pos"]
    np.testing.assert_allclose(held, inside)
    assert env.step(-PRESS)[0]["agent_pos"][2] == pytest.approx(0.0)


def test_horizon_truncates_and_a_locked_peg_stays(build):
    env = build("trap/insert", horizon=3)
    env.reset()
    assert [env.step(STILL)[3] for _ in range(3)] == [False, False, True]
    env = build("trap/insert", action_repeat=4, success_probability=1.0, terminate_on_success=False)
    above_socket(env)
    for action in (PRESS, -PRESS, -PRESS):
        observation, _, terminated, _, info = env.step(action)
        assert not terminated
        assert info == {"is_success": True, "attempts": 1}
        assert observation["agent_pos"][2] == pytest.approx(-DEPTH)


@pytest.mark.parametrize("chance", [0.2, 0.6])
def test_the_expert_succeeds_per_attempt_with_the_given_probability(build, chance):
    env = build("trap/insert", action_repeat=4, horizon=400, success_probability=chance)
    attempts = 0
    for seed in range(200):
        observation, info = env.reset(seed=seed)
        act = make_behaviour(env, "expert", np.random.default_rng(0))
        while not info["is_success"]:
            observation, _, _, truncated, info = env.step(act(observation))
            assert not truncated
        attempts += info["attempts"]
    rate, deviation = 200 / attempts, np.sqrt(chance * (1 - chance) / attempts)
    assert abs(rate - chance) < 3 * deviation


def test_every_behaviour_of_the_qualities_exists_and_is_determined(build, roll):
    assert trap_behaviours.BEHAVIOURS.keys() == BEHAVIOURS.keys()
    env = build("trap/insert", action_repeat=2, horizon=40)
    for quality in BEHAVIOURS:
        first, again = roll(env, quality, 5)[0], roll(env, quality, 5)[0]
        np.testing.assert_array_equal(first, again)
    assert roll(env, "miss", 0)[0].max() < 0.9
    assert roll(env, "stop", 0)[0][-5:].std() < 1e-6


def test_pictures_show_the_hand_where_it_is(build):
    env = build("trap/insert", size=64)
    columns = []
    for x in (0.0, 0.3, 0.6, 0.9):
        env.reset(options={"place": (x, 0.0)})
        frames = env.frames()
        assert set(frames) == {"front", "top"}
        red = frames["front"].astype(int)
        peg = (red[..., 0] > 120) & (red[..., 1] < 60) & (red[..., 2] < 60)
        assert peg.sum() >= 4
        columns.append(np.nonzero(peg)[1].mean())
    assert np.all(np.diff(columns) > 8)


def test_pictures_tell_pressed_from_hovering(build):
    env = build("trap/insert", success_probability=1.0, action_repeat=4)
    above_socket(env)
    hover = env.frames()
    env.step(PRESS)
    pressed = env.frames()
    assert np.abs(hover["front"].astype(int) - pressed["front"]).max() > 60


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"views": ("corner2",)}, r"'trap/insert' has no view 'corner2'.*'front', 'top'"),
        ({"success_probability": 1.2}, "success_probability must lie in"),
        ({"reward": "dense"}, "has no reward 'dense'"),
        ({"horizon": 0}, "horizon must be at least 1"),
    ],
)
def test_bad_arguments_are_one_clear_error(build, kwargs, message):
    with pytest.raises(EnvError, match=message):
        build("trap/insert", **kwargs)


def test_bad_calls_are_one_clear_error(build):
    env = build("trap/insert")
    with pytest.raises(EnvError, match="needs a scene"):
        env.step(STILL)
    with pytest.raises(EnvError, match="cannot start at"):
        env.reset(options={"place": (2.0, 0.0)})
    env.reset()
    with pytest.raises(EnvError, match="needs an action of 3 finite numbers"):
        env.step(np.zeros(4, np.float32))
