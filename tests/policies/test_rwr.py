"""Reward-weighted regression: its weights by hand, its anchor, and the toy with two modes."""

import numpy as np
import pytest
import torch

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.policies.diffusion.windows import Windows
from embodied_reward.policies.finetune.plan_options import RWRConfig
from embodied_reward.policies.finetune.plans import PlanMemory, Plans, denoising_errors
from embodied_reward.policies.finetune.rwr import reward_weights
from embodied_reward.policies.resume import load_training_state, save_training_state
from tests.policies.tuning import collected, learner, right, weights
from tests.policies.two_modes import STATE, WORLD, two_modes

FIT = {"batch_size": 64, "n_epochs": 50}


@pytest.fixture(scope="module")
def toy():
    return two_modes()


def shown(action, count=8):
    """Return demonstrations that all do the same, as windows."""
    zeros, rows = torch.zeros(count, 1), np.arange(count)[:, None]
    columns = {STATE: zeros, WORLD: zeros, "action": torch.full((count, 1), action)}
    both = np.repeat(rows, 2, axis=1)
    padded = np.zeros((count, 2), bool)
    return Windows(columns, rows, both, padded, np.full(count, 1 / count), np.arange(count))


def test_weights_by_hand():
    scores = torch.tensor([0.0, 0.0, 1.0, 3.0], dtype=torch.float64)  # mean 1, variance 1.5
    low, high = np.exp(-1 / (1.5**0.5 * 2)), np.exp(2 / (1.5**0.5 * 2))
    by_hand = np.array([low, low, 1.0, high])
    found = reward_weights(scores, 2.0, 100.0)
    np.testing.assert_allclose(found, by_hand / by_hand.sum(), atol=1e-12)
    moved = reward_weights(5 * scores - 7, 2.0, 100.0)
    torch.testing.assert_close(moved, found, atol=1e-12, rtol=0)
    cut = reward_weights(scores, 0.01, 10.0)
    assert float(cut[3] / cut[2]) == pytest.approx(10.0)


def test_a_new_potential_drops_plans_and_only_the_newest_stay():
    memory = PlanMemory(5)
    one = Plans(torch.zeros(3, 1), torch.zeros(3, 2, 1), torch.arange(3.0))
    memory.add(one, "a")
    assert memory.add(one, "a").scores.tolist() == [1, 2, 0, 1, 2]
    assert memory.add(one, "b").scores.tolist() == [0, 1, 2]


def test_the_loss_is_lerobots(toy):
    """The same noise and steps as LeRobot draws give its loss."""
    plans, known = torch.rand(16, 2, 1) * 2 - 1, torch.zeros(16, 2)
    batch = {STATE: torch.zeros(16, 1, 1), WORLD: torch.zeros(16, 1, 1), "action": plans,
             "action_is_pad": torch.zeros(16, 2, dtype=torch.bool)}  # fmt: skip
    torch.manual_seed(3)
    theirs = toy.model.diffusion.compute_loss(batch)
    torch.manual_seed(3)
    noise, times = torch.randn(plans.shape), torch.randint(0, 20, (16,))
    ours = denoising_errors(toy.model, plans, known, noise, times).mean()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_it_turns_to_what_pays_and_demonstrations_hold_it(toy):
    free = learner(RWRConfig, toy, rl=FIT, demo_fraction=0.5)
    held = learner(RWRConfig, toy, rl=FIT, demo_fraction=0.5, windows=shown(-1.0))
    for model in (free, held):
        model.learn(512)
    assert right(free) > 0.8  # the base has 0.5
    assert right(held) < right(free) - 0.2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_rwr_finds_the_mode_that_pays(toy, seed):
    model = learner(RWRConfig, toy, seed=seed, rl=FIT)
    model.learn(1280)
    assert right(model) >= 0.95


def test_where_all_plans_were_worth_the_same_nothing_is_learned(toy):
    model = learner(RWRConfig, toy, good=lambda a: False)
    before = weights(model.policy.learner)
    model.learn(256)
    assert torch.equal(weights(model.policy.learner), before)


@pytest.mark.parametrize("signal", ["return", "advantage", "progress"])
def test_a_plan_is_worth_what_the_signal_says(toy, signal):
    model = collected(learner(RWRConfig, toy, signal=signal))
    plans, returns = model._collected()
    paid = (plans.plans[:, 0, 0] > 0).float()
    torch.testing.assert_close(returns, paid)  # one decision per episode
    values = model.policy.predict_values(plans.obs).flatten().detach()
    expected = {"return": paid, "advantage": paid - values, "progress": paid}
    torch.testing.assert_close(plans.scores, expected[signal], atol=1e-6, rtol=0)
    assert (values.abs().max() > 0) == (signal != "progress")


def test_one_seed_repeats_and_a_checkpoint_goes_on_as_if_nothing_had_happened(toy, tmp_path):
    def fresh(seed=0, plans=128):
        model = learner(RWRConfig, toy, seed=seed, rl={"n_steps": 4, **FIT})
        return model.learn(plans) if plans else model

    first, again, other = fresh(), fresh(), fresh(1)
    assert torch.equal(weights(first.policy), weights(again.policy))
    assert not torch.equal(weights(first.policy), weights(other.policy))
    (tmp_path / "pretrained_model").mkdir()
    first.policy.tuned_actor().save(tmp_path / "pretrained_model")
    save_training_state(first, tmp_path, {})
    resumed = fresh(2, plans=0)
    load_training_state(resumed, tmp_path)
    assert len(resumed.memory) == 128
    for model in (first, resumed):
        torch.manual_seed(5)
        model._step(model.memory.kept)
    assert torch.equal(weights(first.policy), weights(resumed.policy))


def test_a_reward_that_is_no_number_changes_no_weight(toy):
    model = collected(learner(RWRConfig, toy))
    before = weights(model.policy)
    model.rollout_buffer.returns[3] = np.nan
    with pytest.raises(NonFiniteError, match="returns are not finite"):
        model.train()
    assert torch.equal(weights(model.policy), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "--finetune.temperature must be positive"),
        ({"max_weight": 0.5}, "--finetune.max_weight must be at least 1"),
        ({"demo_fraction": 1.0}, r"--finetune.demo_fraction must be in \[0, 1\)"),
        ({"signal": "retrun"}, "did you mean 'return'"),
        ({"buffer_size": 1}, "--finetune.buffer_size must be >= 2"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        RWRConfig(**changes).check()
