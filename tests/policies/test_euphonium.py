"""Euphonium: how far a critic pushes, what is left without one, and the toy."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.policies.finetune.config import DPPOConfig
from embodied_reward.policies.finetune.options import EuphoniumConfig
from tests.policies.tuning import collected, learner, right, weights
from tests.policies.two_modes import actions_of, two_modes

CLIP = {"clip_first": 0.2, "rl": {"clip_range": 0.2, "batch_size": 512}}


@pytest.fixture(scope="module")
def toy():
    return two_modes()


class Slope(nn.Module):
    """A judge whose score is the first action that is carried out, times a factor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def score(self, obs, plans):
        return self.factor * plans[:, 0, 0]


def guided(toy, factor=1.0, **changes):
    model = learner(EuphoniumConfig, toy, **{**CLIP, **changes})
    model.policy.guide = Slope(factor)
    model.policy.guiding.fill_(True)
    return model.policy


def test_without_guidance_the_sampler_is_the_base_one_bit_for_bit(toy):
    policy, obs = guided(toy, guidance=0.0), torch.zeros(200, 2)
    torch.manual_seed(5)
    pushed = policy.sample(obs)
    torch.manual_seed(5)
    first = torch.randn((200, *toy.noise_shape))
    unet = policy.learner.diffusion.unet
    plain = policy.chain.sample([unet] * 10, first, policy.condition(obs))
    assert torch.equal(pushed, plain)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("guidance", [0.25, 1.0])
def test_a_push_costs_half_its_square_in_nats_whatever_the_scale_of_the_score(
    toy, factor, guidance
):
    policy = guided(toy, factor, guidance=guidance)
    obs, k = torch.zeros(10, 2), torch.arange(10)
    push = policy.push(obs, torch.zeros(10, *toy.noise_shape), k)
    apart = policy.chain.divergence(push, torch.zeros_like(push), k)
    # Earlier steps average over two numbers of which only one is carried out and pushed.
    share = torch.where(k == 9, 1.0, 0.5)
    torch.testing.assert_close(apart, share * guidance**2 / 2)
    assert (push[:, 0] > 0).all()
    assert not push[:, 1].any()


def test_a_flat_score_pushes_nowhere(toy):
    policy = guided(toy, 0.0)
    push = policy.push(torch.zeros(3, 2), torch.zeros(3, *toy.noise_shape), torch.arange(3))
    assert torch.equal(push, torch.zeros_like(push))


def test_steps_that_do_not_learn_are_not_pushed(toy):
    policy = guided(toy, denoising_steps=4)
    k = torch.arange(10)
    push = policy.push(torch.zeros(10, 2), torch.zeros(10, *toy.noise_shape), k)
    assert push[:, 0].abs().sum(dim=1).gt(0).tolist() == [False] * 6 + [True] * 4


def test_guided_plans_score_more_at_a_small_divergence(toy):
    """The aim of the paper's toy: a higher mean score at a bounded price (here .5 * .5^2 / 2)."""
    torch.manual_seed(0)
    policy, obs = guided(toy, guidance=0.5), torch.zeros(2000, 2)
    pushed = policy.sample(obs)[:, -1, 0, 0]
    policy.guiding.fill_(False)
    plain = policy.sample(obs)[:, -1, 0, 0]
    assert (pushed > 0).float().mean() > (plain > 0).float().mean() + 0.15
    assert pushed.mean() > plain.mean() + 0.1


def test_likelihoods_are_those_of_the_pushed_policy_that_drew(toy):
    model = learner(EuphoniumConfig, toy, **CLIP)
    model.learn(256)
    assert model.policy.guiding
    model = collected(model)
    rollout = model._rollout()
    rows, k = torch.arange(256).repeat_interleave(10), torch.arange(10).repeat(256)
    with torch.no_grad():
        mean = model._mean(rollout, rows, k)
        drawn = rollout.chains[rows, k + 1]
        new = model.policy.chain.log_prob(model._acting(mean, rows, k), drawn, k)
        bare = model.policy.chain.log_prob(mean, drawn, k)
    torch.testing.assert_close(new, rollout.logs.flatten(), atol=1e-4, rtol=0)
    # Drawn around the pushed mean, so less likely without the push: by guidance^2 / 2 and a half.
    assert float((new - bare).mean()) == pytest.approx(0.5**2 / 2, rel=0.6)


def test_distillation_alone_moves_the_network_to_where_it_was_pushed(toy):
    """Plans that are all worth the same teach nothing else."""

    def share(distill):
        model = learner(EuphoniumConfig, toy, good=lambda a: True, distill=distill, **CLIP)
        model.learn(256)
        model.policy.guide = Slope(1.0)
        model.policy.follow = lambda: None
        model.learn(256, reset_num_timesteps=False)
        return right(model)

    assert share(1.0) > share(0.0) + 0.1


def test_euphonium_finds_the_mode_that_pays(toy):
    model = learner(EuphoniumConfig, toy, **CLIP)
    model.learn(1280)
    assert right(model) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_not_behind_dppo_and_what_it_costs(toy, seed):
    """Run with -s: the numbers of docs/diffusion.md."""
    found = {}
    for kind in (EuphoniumConfig, DPPOConfig):
        model, began = learner(kind, toy, seed=seed, **CLIP), time.process_time()
        for episodes in (1024, 1280):
            model.learn(episodes - model.num_timesteps, reset_num_timesteps=episodes == 1024)
            actions = actions_of(model.policy.tuned_actor(), 2000)
            found[kind, episodes] = share = (actions > 0).mean()
            print(
                f"seed {seed} {kind.__name__} {episodes} episodes: right {share:.3f}, "
                f"mean |a| {np.abs(actions).mean():.2f}, {time.process_time() - began:.1f} s"
            )
    assert found[EuphoniumConfig, 1280] >= 0.9
    assert found[EuphoniumConfig, 1024] >= found[DPPOConfig, 1024] - 0.05
    assert found[EuphoniumConfig, 1280] >= found[DPPOConfig, 1280] - 0.05


def test_one_seed_repeats_and_two_differ(toy):
    def after(seed):
        model = learner(EuphoniumConfig, toy, seed=seed, rl={"n_steps": 4}, judge_steps=5)
        model.learn(128)
        return weights(model.policy)

    assert torch.equal(after(0), after(0))
    assert not torch.equal(after(0), after(1))


def test_a_reward_that_is_no_number_changes_no_weight(toy):
    model = collected(learner(EuphoniumConfig, toy))
    before = weights(model.policy)
    model.rollout_buffer.returns[3] = np.nan
    with pytest.raises(NonFiniteError, match="returns are not finite"):
        model.train()
    assert torch.equal(weights(model.policy), before)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"guidance": -1.0}, r"--finetune\.guidance must be >= 0, got -1"),
        ({"distill": float("nan")}, r"--finetune\.distill must be >= 0, got nan"),
        ({"replay_size": 8}, "leave it at 0 with euphonium"),
    ],
)
def test_bad_settings_are_named(changes, match):
    with pytest.raises(ConfigError, match=match):
        EuphoniumConfig(**changes).check()


def test_saved_plans_need_no_critic(toy):
    model = learner(EuphoniumConfig, toy, **CLIP)
    model.learn(512)
    torch.manual_seed(3)
    before = actions_of(model.policy.tuned_actor(), 100)
    model.policy.guide = Slope(-100.0)
    assert np.array_equal(actions_of(model.policy.tuned_actor(), 100), before)
