"""A NaN of a scorer stops the run before it is stored, and no network ever reads it."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.errors import NonFiniteError
from embodied_reward.policies.blends import BlendConfig, make_blend
from embodied_reward.policies.blends.env import BlendedVecEnv
from embodied_reward.policies.config import PPOConfig, SACConfig
from embodied_reward.policies.ppo import build_ppo
from embodied_reward.policies.sac import build_sac
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.frames import FramesInInfo
from embodied_reward.shaping.trust import TrustedScorer
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from tests.shaping.conftest import BrightnessScorer, Corridor

GAMMA, BAD = 0.9, 37  # the scorer's call that fails


class Failing(BrightnessScorer):
    """The second environment's frame cannot be scored at one step."""

    def __init__(self):
        super().__init__(2)
        self.fail_at = (BAD, 1)


@pytest.fixture(params=["sac", "sac n-step", "ppo"])
def build(request):
    def make(wrap=lambda scorer: scorer, blend=None, mode="potential"):
        vector = DummyVecEnv([lambda: FramesInInfo(Corridor(horizon=6))] * 2)
        scorer = wrap(Failing())
        env = LearnedRewardVecEnv(vector, mode_named(mode), gamma=GAMMA, scorer=scorer)
        if blend:
            fields = dict(count=2, gamma=GAMMA, seed=0, widths=(1, 1))
            env = BlendedVecEnv(env, make_blend(blend, BlendConfig(), **fields))
        small = dict(net_arch=(8, 8), bc_steps=0, gamma=GAMMA, batch_size=16)
        if request.param == "ppo":
            return build_ppo(PPOConfig(n_steps=16, n_epochs=2, **small), env, seed=0)
        n = 3 if "n-step" in request.param else 1

        def relabel(base, phi, after, ended):
            return mode_named(mode).total(base, phi, after, ended, GAMMA)

        config = SACConfig(learning_starts=8, gradient_steps=1, n_steps=n, **small)
        return build_sac(config, env, relabel=relabel, seed=0)

    return make


def guard(module, seen):
    """Look at every number that enters or leaves any layer."""
    for layer in module.modules():

        def look(_, given, result):
            for x in (*given, *(result if isinstance(result, tuple) else (result,))):
                if isinstance(x, torch.Tensor):
                    seen.append(x.numel())
                    assert torch.isfinite(x).all()

        layer.register_forward_hook(look)


def stop(model):
    seen = []
    guard(model.policy, seen)
    with pytest.raises(NonFiniteError, match=f"environment 1 is nan at vector step {BAD}"):
        model.learn(500)
    assert sum(seen) > 1000  # networks ran before
    assert all(torch.isfinite(p).all() for p in model.policy.parameters())
    return model


@pytest.mark.parametrize("mode", ["potential", "absolute", "delayed"])
def test_the_step_is_not_stored_and_nothing_learns_from_it(build, mode):
    model = stop(build(mode=mode))
    if hasattr(model, "replay_buffer"):
        buffer = model.replay_buffer
        assert buffer.size() == BAD - 1
        for name in ("rewards", "potentials", "next_potentials"):
            assert np.isfinite(getattr(buffer, name)[: buffer.size()]).all()
        batch = buffer.sample(200)
        assert torch.isfinite(batch.rewards).all()
        # What was learned is usable: the run goes on from here once the scorer is mended.
        model.train(1, 16)
    else:
        rows = (BAD - 1) % 16
        assert model.rollout_buffer.pos == rows
        assert np.isfinite(model.rollout_buffer.rewards).all()


def test_neither_a_filter_nor_a_blend_hides_it(build):
    stop(build(wrap=lambda scorer: TrustedScorer(scorer, 0.1, 2)))
    for blend in ("bilevel", "group", "exploration"):
        stop(build(blend=blend))
