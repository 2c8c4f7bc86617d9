import dataclasses

import gymnasium as gym
import numpy as np
import pytest

from embodied_reward.errors import DatasetError
from embodied_reward.policies.demos import transitions


def make(reach, episodes, potential=None):
    env = reach()
    return transitions(episodes, env.observation_space, env.action_space, potential)


def with_hold(episode, rows=3):
    """The same episode with further successful rows, as recorders add them."""
    fields = ("action", "state", "environment_state", "success_frames", "progress")
    longer = {
        f: np.concatenate([getattr(episode, f), np.repeat(getattr(episode, f)[-1:], rows, 0)])
        for f in fields
    }
    return dataclasses.replace(episode, length=len(episode) + rows, **longer)


def test_observations_are_ordered_as_gymnasium_flattens_them(reach, demo):
    episode = demo(0)
    space = reach().observation_space
    obs = {"agent_pos": episode.state[2], "environment_state": episode.environment_state[2]}
    np.testing.assert_array_equal(
        make(reach, [episode]).obs[2], gym.spaces.utils.flatten(space, obs)
    )


def test_the_first_success_is_terminal_and_the_rest_is_dropped(reach, demo):
    episode = demo(0)
    plain = make(reach, [episode], lambda e: e.progress)
    held = make(reach, [with_hold(episode)], lambda e: e.progress)
    for field in dataclasses.fields(plain):
        np.testing.assert_array_equal(getattr(plain, field.name), getattr(held, field.name))
    assert len(plain) == len(episode) - 1
    assert plain.base_reward.tolist() == [0.0] * (len(plain) - 1) + [1.0]
    assert plain.done.tolist() == [False] * (len(plain) - 1) + [True]
    assert not plain.timeout.any()
    np.testing.assert_array_equal(plain.potential[1:], plain.next_potential[:-1])


def test_an_unsuccessful_episode_ends_in_a_timeout(reach, demo):
    n = len(demo(0))
    failed = demo(0, success=False, success_frames=np.zeros(n, bool))
    steps = make(reach, [failed])
    assert steps.base_reward.sum() == 0
    assert steps.timeout.tolist() == [False] * (n - 2) + [True]


def test_a_success_without_the_observation_after_it_is_terminal(reach, demo):
    n = len(demo(0))
    steps = make(reach, [demo(0, success_frames=np.zeros(n, bool))])
    assert len(steps) == n
    assert steps.base_reward[-1] == 1
    assert steps.done[-1]
    assert not steps.timeout[-1]


def test_actions_are_scaled_from_the_environments_range_and_clipped(reach, demo):
    action = np.tile(np.float32([1.0, -5.0]), (len(demo(0)), 1))
    steps = make(reach, [demo(0, action=action)])
    np.testing.assert_allclose(steps.action[0], [0.5, -1.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"success": None, "success_frames": None}, "success"),
        ({"environment_state": None}, "environment_state"),
        ({"action": np.zeros((4, 3), np.float32)}, "actions have shape"),
        ({"state": "nan"}, r"'agent_pos' is not finite in row 1"),
    ],
)
def test_episodes_that_cannot_be_used_are_named(reach, demo, change, message):
    if change.get("state") == "nan":
        change = {"state": demo(7).state.copy()}
        change["state"][1] = np.nan
    with pytest.raises(DatasetError, match=message) as error:
        make(reach, [demo(7, **change)])
    assert "demos#7" in str(error.value)


def test_no_episodes(reach):
    with pytest.raises(DatasetError, match="no episodes"):
        make(reach, [])
