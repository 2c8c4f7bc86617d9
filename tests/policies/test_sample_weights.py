"""Weighed replay in SAC: which variant a row is from, what weights do, and that they resume."""

import dataclasses

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger

from embodied_reward.policies.checkpoint import save_policy, spec_of
from embodied_reward.policies.resume import load_training_state, save_training_state
from embodied_reward.policies.sac import DemoSAC, build_sac
from embodied_reward.training.decorrelation import BatchWeights
from embodied_reward.training.decorrelation_config import DecorrelationConfig

CONFIG = DecorrelationConfig(type="sgfd", warmup=2, steps=3, memory=128)


class Fixed:
    """Stands in for learned weights: a function of the variants."""

    logs: dict = {}  # noqa: RUF012

    def __init__(self, rule):
        self.rule, self.seen = rule, []

    def __call__(self, features, variant):
        self.seen.append((features, variant))
        return self.rule(variant)


@pytest.fixture
def build(make_learner, demos, small_sac):
    def make(weights=None, **changes):
        halves = dataclasses.replace(demos, variant=np.arange(len(demos)) % 2)
        model = build_sac(
            small_sac(**changes), make_learner(), demos=halves, seed=0, sample_weights=weights
        )
        model.set_logger(Logger(None, []))
        return model

    return make


def learned(kind="stablenet", seed=0):
    return BatchWeights(dataclasses.replace(CONFIG, type=kind), variants=2, seed=seed)


def parameters(model):
    return [p.detach().clone() for p in model.policy.parameters()]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def continued(model, updates=5):
    """Go on from the buffer alone; torch's global generator is the only other source."""
    model.set_logger(Logger(None, []))
    torch.manual_seed(0)
    for _ in range(updates):
        model.train(gradient_steps=2, batch_size=32)
    return parameters(model)


def test_rows_know_the_variant_that_the_environment_named(build):
    model = build(demo_fraction=0.5)
    buffer = model.replay_buffer
    for k in range(20):
        obs = np.full((1, 4), k, np.float32)
        done = np.array([False])
        buffer.add(obs, obs, np.zeros((1, 2)), np.zeros(1), done, [{"variant": k % 3}])
    (batch,), variants = buffer.sample_with_variants(1, 64)
    own = batch.observations[32:, 0].numpy().astype(int)
    assert (variants[32:] == own % 3).all()
    # Demonstrations come first and carry the number of their data set.
    first = batch.observations[:32].numpy()
    rows = [int(np.flatnonzero((buffer.demos.obs == row).all(1))[0]) for row in first]
    assert (variants[:32] == buffer.demos.variant[rows]).all()


def test_weights_reach_critic_and_actor_and_ones_change_nothing(build):
    """Rows of weight 0 do not matter: with all other rows alike, so are all parameters."""
    plain, ones = build(), build(Fixed(lambda v: torch.ones(len(v))))
    assert equal(parameters(plain), parameters(ones))
    a, b = continued(plain), continued(ones)
    assert all(torch.allclose(x, y, atol=1e-5) for x, y in zip(a, b, strict=True))

    only = Fixed(lambda v: 2.0 * (v == 0).float())
    first, second = build(only), build(Fixed(only.rule))
    table = second.replay_buffer._table
    odd = table["variants"] == 1
    table["observations"][odd], table["actions"][odd] = 0.1, -0.5
    first.actor_starts = second.actor_starts = -1
    # The entropy coefficient is not weighed, so it is fixed here.
    for model in (first, second):
        model.log_ent_coef = None
        model.ent_coef_tensor = torch.tensor(0.01)
    a, b = continued(first), continued(second)
    assert all(torch.allclose(x, y, atol=1e-5) for x, y in zip(a, b, strict=True))
    assert not equal(a, continued(build()))
    features, variants = only.seen[0]
    assert features.shape == (64, 4)  # both updates of a decision in one call
    assert variants.shape == (64,)


def test_learned_weights_are_logged_and_a_seed_fixes_them(build):
    runs = []
    for seed in (0, 0, 1):
        model = build(learned(seed=seed))
        model.learn(40)
        runs.append(parameters(model))
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])
    logs = model.sample_weights.logs
    assert 0.3 - 1e-6 <= logs["ess"] <= 1.0
    assert "correlation_after" in logs


@pytest.mark.parametrize("kind", ["sgfd", "stablenet"])
def test_a_restored_run_continues_bit_by_bit_and_the_zip_forgets_the_weights(
    kind, build, small_sac, reach, tmp_path
):
    model = build(learned(kind))
    model.learn(40)
    env = reach()
    spec = spec_of(small_sac(), (env.observation_space, env.action_space), {"env": {"id": "reach"}})
    save_policy(model, spec, tmp_path)
    save_training_state(model, tmp_path, {})
    again = build(learned(kind))
    load_training_state(again, tmp_path)
    assert again.sample_weights.calls == model.sample_weights.calls > CONFIG.warmup
    assert equal(continued(model), continued(again))
    assert DemoSAC.load(tmp_path / "sb3_model.zip", device="cpu").sample_weights is None
