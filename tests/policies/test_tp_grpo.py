"""TP-GRPO: credit of single steps by hand and against their true effect, and the toy."""

import numpy as np
import pytest
import torch
from torch import nn

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.policies.finetune.chain import Chain
from embodied_reward.policies.finetune.options import TPGRPOConfig
from embodied_reward.policies.finetune.tp_grpo import completions
from embodied_reward.policies.finetune.turning import (
    balanced,
    increments,
    step_credit,
    turning_points,
)
from tests.policies.tuning import collected, learner, right, weights
from tests.policies.two_modes import RANGE, actions_of, two_modes

CLIP = {"clip_first": 0.2, "rl": {"clip_range": 0.2, "batch_size": 512}}


@pytest.fixture(scope="module")
def toy():
    return two_modes()


def test_increments_add_up_to_what_the_noise_brought():
    scores = torch.randn(50, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = increments(scores).sum(dim=1)
    torch.testing.assert_close(total, scores[:, -1] - scores[:, 0], atol=1e-14, rtol=0)


@pytest.mark.parametrize(
    ("scores", "points", "credit"),
    [
        # Falls, turns to where all ends, and goes on rising: the turn earns all that follows.
        ([0.0, -1.0, 1.0, 2.0], [False, True, False], [-1.0, 3.0, 1.0]),
        # The same, but it falls back afterwards: not a turn that lasts.
        ([0.0, -1.0, 3.0, 2.0], [False, False, False], [-1.0, 4.0, -1.0]),
        # The first step already goes where all ends.
        ([0.0, 1.0, 2.0, 3.0], [True, False, False], [3.0, 1.0, 1.0]),
        ([1.0, 1.0, 1.0, 1.0], [False, False, False], [0.0, 0.0, 0.0]),
    ],
)
def test_turning_points_by_hand(scores, points, credit):
    both = torch.tensor([scores, [-s for s in scores]])  # one up and one down: balanced
    assert turning_points(both).tolist() == [points, points]
    assert step_credit(both).tolist() == [credit, [-c for c in credit]]


def test_as_many_turning_points_up_as_down_stay():
    points = torch.tensor([[True, True, True, False]])
    gains = torch.tensor([[1.0, 3.0, -2.0, -9.0]])
    assert balanced(points, gains).tolist() == [[False, True, True, False]]
    assert not balanced(points, gains.abs()).any()


class Bell(nn.Module):
    """The exact noise in x where actions are normal around 0.1, called as LeRobot's U-Net."""

    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def forward(self, x, times, global_cond=None):
        kept = self.levels[times][:, None, None]
        return (1 - kept).sqrt() * (x - 0.1 * kept.sqrt()) / (1 - 0.91 * kept)


def judged(plans):
    return torch.tanh(2 * plans[..., 0, 0].double())


def true_effects(chain, network, chains, draws):
    """Return what every step changed of the expected score [n K], by `draws` continuations."""
    values = []
    for begin in range(chain.steps):
        x = chains[:, begin].repeat_interleave(draws, dim=0)
        for step in range(begin, chain.steps):
            k = torch.full((len(x),), step)
            mean = chain.mean(network, x, k, torch.zeros(len(x), 0))
            x = mean + chain.std[step] * torch.randn_like(mean)
        values.append(judged(x).view(len(chains), draws).mean(dim=1))
    return torch.stack([*values, judged(chains[:, -1])], dim=1).diff(dim=1)


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_increments_tell_a_steps_effect_twice_as_well_as_the_outcome(toy, noise):
    """Ten steps, a group of 24 from one start, score noise in spreads of a step's effect."""
    torch.manual_seed(0)
    chain = Chain(toy.model, eta=1.0, min_std=0.1)
    network = Bell(toy.model.diffusion.noise_scheduler.alphas_cumprod)
    found = []
    for _ in range(5):
        first, nothing = torch.randn(1, 2, 1).expand(24, 2, 1), torch.zeros(24, 0)
        chains = chain.sample([network] * chain.steps, first, nothing)
        effects = true_effects(chain, network, chains, draws=200)
        scores = judged(completions(chain, network, chains, nothing))
        scores = scores + noise * effects.std() * torch.randn_like(scores)
        outcome = (scores[:, -1:] - scores[:, -1].mean()).expand_as(effects)
        found.append([correlation(x, effects) for x in (increments(scores), outcome)])
    step, outcome = np.mean(found, axis=0)
    assert outcome > 0.2
    assert step >= 2 * outcome
    assert step > (0.9 if noise == 0 else 0.7)


def test_completions_begin_with_the_noiseless_plan_and_end_with_the_drawn_one(toy):
    chain, network = Chain(toy.model, eta=0.0, min_std=0.2), toy.model.diffusion.unet
    first = torch.randn((50, *toy.noise_shape), generator=torch.Generator().manual_seed(0))
    chains = chain.sample([network] * 10, first, torch.zeros(50, 0))
    plans = completions(chain, network, chains, torch.zeros(50, 0))
    assert plans.shape == (50, 11, 2, 1)
    assert torch.equal(plans[:, -1], chains[:, -1])
    noiseless = RANGE * plans[:, 0, 0, 0].clamp(-1, 1).numpy()
    np.testing.assert_allclose(noiseless, actions_of(toy, 50), atol=1e-5)
    later = completions(chain, network, chains, torch.zeros(50, 0), first=6)
    torch.testing.assert_close(later, plans[:, 6:])


@pytest.mark.parametrize("turning", [True, False])
@pytest.mark.slow
def test_tp_grpo_finds_the_mode_that_pays(toy, turning):
    model = learner(TPGRPOConfig, toy, turning=turning, **CLIP)
    model.learn(1280)
    assert right(model) >= 0.95


def test_the_judge_tells_plans_apart_and_every_step_gets_its_own_advantage(toy):
    model = collected(learner(TPGRPOConfig, toy, rl={"n_steps": 32}))
    for _ in range(3):
        model._teach()
    rollout = model._rollout()
    paid = rollout.chains[:, -1, 0, 0] > 0
    scores = model.scores(rollout)
    assert scores[paid, -1].mean() > scores[~paid, -1].mean() + 0.8
    rows, k = torch.arange(512).repeat_interleave(10), torch.arange(10).repeat(512)
    found = model._advantages(rollout, rows, k).view(512, 10)
    assert found.std() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(10), atol=1e-5, rtol=0)
    assert found.std(dim=1).mean() > 0.3


def test_only_steps_that_learn_are_judged(toy):
    model = learner(TPGRPOConfig, toy, denoising_steps=4)
    model.learn(256)
    assert model.scores(model._rollout()).shape == (256, 5)
    assert (weights(model.policy.learner) - weights(model.policy.start)).norm() > 0.001


def test_one_seed_repeats_and_two_differ(toy):
    def after(seed):
        model = learner(TPGRPOConfig, toy, seed=seed, rl={"n_steps": 4}, judge_steps=5)
        model.learn(64)
        return weights(model.policy)

    assert torch.equal(after(0), after(0))
    assert not torch.equal(after(0), after(1))


def test_a_reward_that_is_no_number_changes_no_weight(toy):
    model = collected(learner(TPGRPOConfig, toy))
    before = weights(model.policy)
    model.rollout_buffer.returns[3] = np.nan
    with pytest.raises(NonFiniteError, match="returns are not finite"):
        model.train()
    assert torch.equal(weights(model.policy), before)


def test_bad_settings_are_named():
    with pytest.raises(ConfigError, match=r"--finetune\.judge_steps must be positive, got 0"):
        TPGRPOConfig(judge_steps=0).check()
