"""PRDP: its regression on a policy whose best answer is known, and the toy with two modes."""

import numpy as np
import pytest
import torch

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.policies.finetune.options import PRDPConfig
from embodied_reward.policies.finetune.prdp import pair_loss
from tests.policies.tuning import collected, learner, right, weights
from tests.policies.two_modes import two_modes

BETA = 0.5


@pytest.fixture(scope="module")
def toy():
    return two_modes()


class Tabular:
    """A policy of two steps with four choices each: sixteen outcomes, every reward known."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.reward = torch.rand(16, generator=self.generator)
        tables = (torch.randn(shape, generator=self.generator) / 2 for shape in ((4,), (4, 4)))
        self.start = tuple(tables)
        self.now = tuple(t.clone().requires_grad_() for t in self.start)

    def logs(self, tables):
        """Return log-likelihoods of both steps, [16 2]."""
        first, second = tables
        return torch.stack(
            [first.log_softmax(0).repeat_interleave(4), second.log_softmax(1).flatten()], 1
        )

    def apart(self):
        """Return KL(best, now) in nats; best ~ start exp(reward / beta)."""
        now = self.logs(self.now).sum(1).detach()
        best = (self.logs(self.start).sum(1) + self.reward / BETA).log_softmax(0)
        return float(best.exp() @ (best - now))

    def learn(self, rounds, offset=0.0):
        optimizer = torch.optim.Adam(self.now, 0.02)
        for _ in range(rounds):
            acted = self.logs(self.now).detach()
            drawn = torch.multinomial(acted.sum(1).exp(), 64, True, generator=self.generator)
            for _ in range(5):
                new, start = self.logs(self.now)[drawn], self.logs(self.start)[drawn]
                reward = self.reward[drawn] + offset
                loss = pair_loss(new, acted[drawn], start, reward, beta=BETA, clip=0.2)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return self


@pytest.mark.parametrize("seed", range(3))
def test_the_regression_finds_the_best_policy_at_its_price(seed):
    policy = Tabular(seed)
    assert policy.apart() > 0.05
    assert abs(policy.learn(150).apart()) <= 1e-4


def test_a_constant_added_to_every_reward_changes_nothing():
    plain, moved = (torch.cat([t.detach().ravel() for t in Tabular(0).learn(10, c).now])
                    for c in (0.0, 2.0))  # fmt: skip
    torch.testing.assert_close(plain, moved, atol=1e-3, rtol=0)
    assert (plain - torch.cat([t.ravel() for t in Tabular(0).start])).norm() > 0.1


def test_the_loss_is_the_larger_of_both_and_stops_pulling_past_the_clip():
    new = torch.tensor([[0.5], [0.0]], requires_grad=True)
    zeros, reward = torch.zeros(2, 1), torch.tensor([1.0, 0.0])
    loss = pair_loss(new, zeros, zeros, reward, beta=1.0, clip=0.2)
    assert loss.item() == pytest.approx((0.2 - 1) ** 2)  # free: (0.5 - 1)^2
    loss.backward()
    assert new.grad[0] == 0
    beyond = torch.tensor([[1.5], [0.0]], requires_grad=True)
    loss = pair_loss(beyond, zeros, zeros, torch.tensor([0.1, 0.0]), beta=1.0, clip=0.2)
    assert loss.item() == pytest.approx(1.4**2)
    loss.backward()
    assert beyond.grad[0] > 0  # descent brings it back


@pytest.mark.slow
def test_prdp_finds_the_mode_that_pays_and_a_high_price_holds_it(toy):
    tuned, held = learner(PRDPConfig, toy, beta=0.01), learner(PRDPConfig, toy, beta=3.0)
    tuned.learn(2560)
    held.learn(768)
    assert right(tuned) >= 0.95
    assert abs(right(held) - 0.5) < 0.05


def test_the_start_holds_the_steps_that_do_not_learn(toy):
    model = learner(PRDPConfig, toy, denoising_steps=4)
    model.learn(512)
    policy, obs, k = model.policy, torch.zeros(256, 2), torch.arange(6)
    chains = policy.sample(obs)
    means = [policy.means(net, chains, obs, k) for net in (policy.learner, policy.start)]
    assert (weights(policy.learner) - weights(policy.start)).norm() > 0.01
    assert (means[0] - means[1]).abs().mean() < 0.01


def test_the_first_regression_sees_the_likelihoods_that_acted(toy):
    model = collected(learner(PRDPConfig, toy))
    rollout = model._rollout()
    again = model.policy.log_probs(rollout.chains, rollout.obs)
    assert (again - rollout.logs).abs().max() < 1e-5
    start = model.policy.chain_logs(rollout.starts, rollout.chains)
    assert (start - again).abs().max() < 1e-5  # nothing was learned yet
    spread = np.ptp(model.rollout_buffer.advantages)
    assert float(rollout.advantages.max() - rollout.advantages.min()) == pytest.approx(spread)


def test_one_seed_repeats_and_two_differ(toy):
    def after(seed):
        model = learner(PRDPConfig, toy, seed=seed, rl={"n_steps": 4})
        model.learn(64)
        return weights(model.policy.learner)

    assert torch.equal(after(0), after(0))
    assert not torch.equal(after(0), after(1))


def test_a_reward_that_is_no_number_changes_no_weight(toy):
    model = collected(learner(PRDPConfig, toy))
    before = weights(model.policy)
    model.rollout_buffer.advantages[3] = np.nan
    with pytest.raises(NonFiniteError, match="advantages are not finite"):
        model.train()
    assert torch.equal(weights(model.policy), before)


@pytest.mark.parametrize("changes", [{"beta": 0.0}, {"clip": -0.1}])
def test_bad_settings_are_named(changes):
    with pytest.raises(ConfigError, match=f"--finetune.{next(iter(changes))} must be positive"):
        PRDPConfig(**changes).check()
