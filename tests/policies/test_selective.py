"""The selective sample buffer: what it keeps, what it drops, and a policy that learns with it."""

import pytest
import torch

from embodied_reward.errors import ConfigError
from embodied_reward.policies.finetune.config import DPPOConfig
from embodied_reward.policies.finetune.options import PRDPConfig, TPGRPOConfig
from embodied_reward.policies.finetune.rollout import Rollout, SelectiveBuffer
from tests.policies.tuning import collected, learner, right, weights
from tests.policies.two_modes import two_modes

CLIP = {"clip_first": 0.2, "rl": {"clip_range": 0.2, "batch_size": 512}}


@pytest.fixture(scope="module")
def toy():
    return two_modes()


def rollout(advantages, mark=0.0):
    """Return decisions with these advantages, told apart by `mark` in their observations."""
    n = len(advantages)
    found = torch.as_tensor(advantages, dtype=torch.float32)
    zeros = torch.zeros(0)
    return Rollout(
        torch.full((n, 1), mark), torch.zeros(n, 3, 2, 1), torch.zeros(n, 2), zeros, found, found
    )


def saturated(seed, count=100):
    """Return decisions of which 80 in a hundred turned out as expected."""
    drawn = torch.randn(count, generator=torch.Generator().manual_seed(seed)).sign()
    return rollout(torch.where(torch.arange(count) % 5 == 0, drawn, 0.0), mark=float(seed))


def test_updates_hold_three_times_the_decisions_that_teach():
    torch.manual_seed(0)
    buffer = SelectiveBuffer(size=200, max_age=5, threshold=0.05)
    sizes = []
    for seed in range(8):
        mixed = buffer.mix(saturated(seed), "a")
        assert (mixed.advantages.abs() > 0.05).all()
        assert len(mixed.obs) <= 100
        sizes.append(len(mixed.obs))
    assert sizes[0] == 20  # what is fresh, alone
    assert min(sizes[3:]) >= 3 * 20


def test_larger_advantages_come_back_more_often():
    torch.manual_seed(0)
    large = 0
    for _ in range(200):
        buffer = SelectiveBuffer(size=10, max_age=5, threshold=0.1)
        buffer.mix(rollout([0.2, 1.8]), "a")
        large += int(buffer.mix(rollout([0.0]), "a").advantages.item() > 1)
    assert 165 < large < 195  # 9 times in 10


def test_decisions_age_and_go_with_their_potential():
    buffer = SelectiveBuffer(size=100, max_age=2, threshold=0.0)
    buffer.mix(rollout([1.0, -1.0], mark=7.0), "a")
    for _ in range(2):
        assert len(buffer.mix(rollout([0.0, 0.0]), "a").obs) == 2
    assert len(buffer.mix(rollout([0.0, 0.0]), "a").obs) == 0
    buffer.mix(rollout([1.0, -1.0]), "a")
    assert len(buffer.mix(rollout([0.0, 0.0]), "another potential").obs) == 0
    assert len(buffer) == 0


def test_the_newest_are_kept_within_its_size():
    buffer = SelectiveBuffer(size=3, max_age=9, threshold=0.0)
    for mark in (1.0, 2.0):
        buffer.mix(rollout([1.0, 1.0], mark=mark), "a")
    assert len(buffer) == 3
    assert sorted(buffer.arrays()["obs"].flatten().tolist()) == [1.0, 2.0, 2.0]


def test_a_restored_buffer_goes_on_as_the_old_one():
    buffers = [SelectiveBuffer(100, 3, 0.05) for _ in range(2)]
    for seed in range(3):
        buffers[0].mix(saturated(seed), "a")
    buffers[1].restore({k: v.clone() for k, v in buffers[0].arrays().items()}, "a")
    found = []
    for buffer in buffers:
        torch.manual_seed(1)
        found.append([buffer.mix(saturated(seed), "a") for seed in (3, 4)])
    for old, new in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
    empty = SelectiveBuffer(100, 3, 0.05)
    empty.restore(SelectiveBuffer(100, 3, 0.05).arrays(), "")
    assert len(empty.mix(saturated(0), "a").obs) == 20


@pytest.mark.parametrize("kind", [DPPOConfig, PRDPConfig, TPGRPOConfig])
def test_where_all_is_expected_the_critic_learns_and_the_network_rests(toy, kind):
    model = collected(learner(kind, toy, good=lambda a: True, replay_size=64, replay_threshold=9))
    network, critic = weights(model.policy.learner), weights(model.policy.critic)
    model.train()
    assert torch.equal(weights(model.policy.learner), network)
    assert not torch.equal(weights(model.policy.critic), critic)


def test_the_critic_learns_alone_until_the_network_may(toy):
    model = learner(DPPOConfig, toy, replay_size=64, rl={"actor_starts": 256})
    before = weights(model.policy.learner)
    model.learn(256)
    assert torch.equal(weights(model.policy.learner), before)
    model.learn(256, reset_num_timesteps=False)
    assert not torch.equal(weights(model.policy.learner), before)


@pytest.mark.slow
def test_dppo_finds_the_mode_that_pays_with_it(toy):
    model = learner(DPPOConfig, toy, replay_size=512, **CLIP)
    model.learn(2560)
    assert right(model) >= 0.95
    assert 0 < len(model.memory) <= 512


@pytest.mark.parametrize(
    "changes", [{"replay_size": -1}, {"replay_age": 0}, {"replay_threshold": -0.1}]
)
def test_bad_settings_are_named(changes):
    with pytest.raises(ConfigError, match=f"--finetune.{next(iter(changes))} must be >="):
        DPPOConfig(**changes).check()
