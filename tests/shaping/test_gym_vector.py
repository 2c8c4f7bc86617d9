"""`gymnasium.vector` in all autoreset modes pays what single environments pay."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from embodied_reward.errors import EnvError, NonFiniteError
from embodied_reward.shaping import MODES, mode_named
from embodied_reward.shaping.frames import FramesInInfo, ProgressInInfo
from embodied_reward.shaping.gym_vector import LearnedRewardVector
from embodied_reward.shaping.order import check_order
from embodied_reward.shaping.wrapper import LearnedReward

GAMMA, KAPPA = 0.95, 1.4
KEYS = ("env_reward", "base_reward", "potential", "previous_potential", "shaping")
MODE_NAMES = [mode for mode in MODES if mode != "task"]


def vectorise(envs, mode, autoreset, scorer=None):
    wrap = {"scorer": FramesInInfo, "progress": ProgressInInfo, "none": gym.Wrapper}[mode.source]
    vector = SyncVectorEnv([lambda env=env: wrap(env) for env in envs], autoreset_mode=autoreset)
    return LearnedRewardVector(vector, mode, gamma=GAMMA, kappa=KAPPA, scorer=scorer)


def singly(corridor, brightness, mode, actions, **fields):
    """Transitions that one environment alone pays for the actions, episode after episode."""
    scorer = brightness(1) if mode.source == "scorer" else None
    env = LearnedReward(corridor(**fields), mode, gamma=GAMMA, kappa=KAPPA, scorer=scorer)
    env.reset()
    for action in actions:
        _, reward, terminated, truncated, info = env.step(action)
        yield reward, terminated, truncated, [info[key] for key in KEYS]
        if terminated or truncated:
            env.reset()


@pytest.mark.parametrize("autoreset", list(AutoresetMode))
@pytest.mark.parametrize("name", MODE_NAMES)
def test_every_transition_pays_what_a_single_environment_pays(
    name, autoreset, corridor, brightness
):
    mode, rng = mode_named(name), np.random.default_rng(0)
    fields = [{"start": 2, "horizon": 7}, {"horizon": 4}, {"start": 4, "horizon": 5}]
    scorer = brightness(3) if mode.source == "scorer" else None
    env = vectorise([corridor(**f) for f in fields], mode, autoreset, scorer)
    env.reset(seed=0)
    taken, paid = [[] for _ in fields], [[] for _ in fields]
    for _ in range(80):
        actions = rng.choice([-1.0, 1.0, 1.0], size=(3, 1)).astype(np.float32)
        _, rewards, terminated, truncated, infos = env.step(actions)
        assert "frames" not in infos
        assert "frames" not in infos.get("final_info", {})
        for i in range(3):
            if not infos["transition"][i]:
                assert rewards[i] == infos["shaping"][i] == 0.0
                continue
            taken[i].append(actions[i])
            numbers = [float(infos[key][i]) for key in KEYS]
            paid[i].append((float(rewards[i]), bool(terminated[i]), bool(truncated[i]), numbers))
        over = terminated | truncated
        if autoreset == AutoresetMode.DISABLED and over.any():
            env.reset(options={"reset_mask": over})
    for i, f in enumerate(fields):
        alone = list(singly(corridor, brightness, mode, taken[i], **f))
        assert len(alone) == len(paid[i]) > 50
        assert sum(p[1] for p in paid[i]) + sum(p[2] for p in paid[i]) > 5
        for (reward, *ends, numbers), (expected, *other_ends, other) in zip(
            paid[i], alone, strict=True
        ):
            assert ends == other_ends
            assert reward == pytest.approx(expected, abs=1e-9)
            np.testing.assert_allclose(numbers, other, atol=1e-9)


def test_the_step_that_only_resets_is_marked(corridor, brightness):
    env = vectorise(
        [corridor(start=4)], mode_named("potential"), AutoresetMode.NEXT_STEP, brightness(1)
    )
    env.reset()
    _, reward, terminated, _, infos = env.step(np.ones((1, 1)))
    assert terminated[0]
    assert reward[0] == pytest.approx(1 - KAPPA * 0.8)
    _, reward, _, _, infos = env.step(np.ones((1, 1)))
    assert not infos["transition"][0]
    assert (reward[0], infos["potential"][0]) == (0.0, pytest.approx(0.8))
    _, reward, terminated, _, infos = env.step(np.ones((1, 1)))
    assert infos["transition"][0]
    assert infos["previous_potential"][0] == pytest.approx(0.8)


def test_an_unknown_autoreset_mode_a_missing_view_and_nan_are_refused(corridor, brightness):
    plain = SyncVectorEnv([lambda: FramesInInfo(corridor())])
    plain.metadata = {}
    with pytest.raises(EnvError, match="autoreset_mode"):
        LearnedRewardVector(plain, mode_named("success"), gamma=GAMMA)
    scorer = brightness(1)
    scorer.views = ("wrist",)
    env = vectorise([corridor()], mode_named("potential"), AutoresetMode.SAME_STEP, scorer)
    with pytest.raises(EnvError, match=r"no view \['wrist'\]"):
        env.reset()
    bare = SyncVectorEnv([corridor])
    with pytest.raises(EnvError, match="ProgressInInfo"):
        LearnedRewardVector(bare, mode_named("oracle"), gamma=GAMMA).reset()
    scorer = brightness(2)
    scorer.fail_at = (2, 1)
    env = vectorise(
        [corridor(), corridor()], mode_named("potential"), AutoresetMode.NEXT_STEP, scorer
    )
    env.reset()
    env.step(np.ones((2, 1)))
    with pytest.raises(NonFiniteError, match="environment 1 is not finite at vector step 2"):
        env.step(np.ones((2, 1)))


def test_reward_maps_around_it_are_refused(corridor):
    env = vectorise([corridor()], mode_named("oracle"), AutoresetMode.NEXT_STEP)
    check_order(env)
    with pytest.raises(EnvError, match="NormalizeReward"):
        check_order(gym.wrappers.vector.NormalizeReward(env))
