import numpy as np
import pytest

from embodied_reward.errors import ConfigError, EnvError
from embodied_reward.policies.evaluate import Evaluation, evaluate


class Expert:
    def predict(self, obs, deterministic=True):
        return np.clip(3 * (obs["environment_state"] - obs["agent_pos"]), -2, 2)


class Idle:
    def predict(self, obs, deterministic=True):
        return np.zeros(2, np.float32)


def test_expert_and_idler(reach):
    good = evaluate(Expert(), reach(), episodes=6, seed=1)
    bad = evaluate(Idle(), reach(), episodes=6, seed=1)
    assert (good.success_rate, bad.success_rate) == (1.0, 0.0)
    assert good.returns == (1.0,) * 6
    assert bad.lengths == (20,) * 6
    assert good.seeds == bad.seeds == (1, 2, 3, 4, 5, 6)


def test_evaluations_with_one_seed_are_the_same_whatever_went_before(reach):
    env = reach()
    first = evaluate(Expert(), env, episodes=5, seed=3)
    env.reset(seed=99)
    assert evaluate(Expert(), env, episodes=5, seed=3) == first
    assert evaluate(Expert(), env, episodes=5, seed=4) != first


def test_wilson_interval():
    # Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611.
    for wins, n, low, high in ((81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611)):
        outcome = tuple(i < wins for i in range(n))
        result = Evaluation(outcome, (0.0,) * n, (1,) * n, tuple(range(n)))
        assert result.interval == pytest.approx((low, high), abs=1e-4)


def test_watch_sees_the_reset_every_step_and_the_end(reach):
    seen = []
    evaluate(
        Expert(), reach(), episodes=2, seed=1, watch=lambda i, env, info, end: seen.append((i, end))
    )
    assert [i for i, end in seen if end] == [0, 1]
    assert seen[-1] == (1, True)
    assert len(seen) == sum(evaluate(Expert(), reach(), episodes=2, seed=1).lengths) + 2


def test_misuse(reach):
    with pytest.raises(ConfigError, match="at least one"):
        evaluate(Expert(), reach(), episodes=0, seed=0)

    class Silent(reach):
        def reset(self, **kwargs):
            return super().reset(**kwargs)[0], {}

    with pytest.raises(EnvError, match="is_success"):
        evaluate(Expert(), Silent(), episodes=1, seed=0)
