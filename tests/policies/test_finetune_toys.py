"""Fine-tuning where the diffusion policy is known exactly: what each method can and cannot."""

import dataclasses
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from scipy.stats import energy_distance
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.errors import ConfigError
from embodied_reward.math.expectile import expectile
from embodied_reward.policies.evaluate import evaluate
from embodied_reward.policies.finetune.actor import steered
from embodied_reward.policies.finetune.agents import build_agent
from embodied_reward.policies.finetune.config import (
    BestOfNConfig,
    DSRLConfig,
    DSRLNAConfig,
    NoiseSearchConfig,
    ResidualConfig,
)
from embodied_reward.policies.finetune.env import PlanEnv
from embodied_reward.policies.finetune.steering import NoiseSteering, Residual, steering_of

EVERYTHING = 1000  # learning never starts
SPREAD = 0.05
LEVELS = np.cos(np.linspace(0.96, 0.0, 11) * np.pi / 2) ** 2  # signal kept, noisiest first


class TwoModes:
    """DDIM (eta = 0) with the exact denoiser of half N(-1, SPREAD), half N(+1, SPREAD)."""

    noise_shape = (1, 1)
    width = 1

    def __init__(self):
        self.spec = SimpleNamespace(
            low=np.array([-2.0], np.float32),
            high=np.array([2.0], np.float32),
            observation={"agent_pos": (1,)},
            meta={},
            views=(),
            config=SimpleNamespace(n_action_steps=1, n_obs_steps=1),
        )

    def flat(self, obs):
        return obs["observation.state"].ravel().numpy()

    def plan(self, obs, noise):
        x = noise.numpy().astype(float)
        for kept, next_kept in zip(LEVELS[:-1], LEVELS[1:], strict=True):
            clean = self._clean(x, kept)
            eps = (x - np.sqrt(kept) * clean) / np.sqrt(1 - kept)
            x = np.sqrt(next_kept) * clean + np.sqrt(1 - next_kept) * eps
        return x.astype(np.float32)

    def unit_plans(self, flat, noise):
        assert flat.shape == (len(noise), 1)
        return (self.denoise({}, noise) / 2).clamp(-1, 1).flatten(1)

    def denoise(self, obs, noise):
        x = noise
        for kept, next_kept in zip(LEVELS[:-1], LEVELS[1:], strict=True):
            variance = kept * SPREAD**2 + 1 - kept
            mode = torch.tanh(x * np.sqrt(kept) / variance)
            clean = mode + np.sqrt(kept) * SPREAD**2 / variance * (x - np.sqrt(kept) * mode)
            eps = (x - np.sqrt(kept) * clean) / np.sqrt(1 - kept)
            x = np.sqrt(next_kept) * clean + np.sqrt(1 - next_kept) * eps
        return x

    def _clean(self, x, kept):
        """E[action | x], the mean of the posterior over both modes."""
        root, variance = np.sqrt(kept), kept * SPREAD**2 + 1 - kept
        mode = np.tanh(x * root / variance)  # posterior mean of the sign
        gain = root * SPREAD**2 / variance
        return mode + gain * (x - root * mode)


class OneStep(gym.Env):
    """Every episode is one action; `good` says whether it pays 1."""

    metadata = {"render_fps": 1.0}  # noqa: RUF012
    observation_space = gym.spaces.Dict({"agent_pos": gym.spaces.Box(-1, 1, (1,), np.float32)})
    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self, good):
        self.good, self.actions = good, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"agent_pos": np.zeros(1, np.float32)}, {"is_success": False}

    def step(self, action):
        won = bool(self.good(float(action[0])))
        self.actions.append(float(action[0]))
        return {"agent_pos": np.zeros(1, np.float32)}, float(won), True, False, {"is_success": won}


def base_actions(count, seed=0):
    noise = torch.randn((count, 1, 1), generator=torch.Generator().manual_seed(seed))
    return TwoModes().plan({}, noise)[:, 0, 0]


def learned(config, good, episodes, seed=0, deterministic=False):
    """Return the actions of the fine-tuned policy after so many one-step episodes."""
    torch.manual_seed(seed)
    fields = {"gradient_steps": 3, "batch_size": 48, "learning_starts": 64, "net_arch": (32, 32)}
    config = dataclasses.replace(config, rl=dataclasses.replace(config.rl, **fields))
    venv = DummyVecEnv([lambda: PlanEnv(OneStep(good), steering_of(config, TwoModes()), seed)])
    model = build_agent(config, config.rl, venv, seed=seed, base=TwoModes())
    model.learn(episodes)
    return acted(config, model, good, deterministic)


def acted(config, model, good, deterministic):
    """Return the actions of 200 one-step episodes."""
    env = OneStep(good)
    actor = steered(config, steering_of(config, TwoModes()), model.policy, None)
    evaluate(actor if deterministic else _Sampling(actor), env, episodes=200, seed=50_000)
    return np.array(env.actions)


class _Sampling:
    def __init__(self, actor):
        self._actor = actor

    def reset(self, seed):
        torch.manual_seed(seed)
        self._actor.reset(seed)

    def predict(self, obs, deterministic=True):
        return self._actor.predict(obs, deterministic=False)


def test_the_base_has_both_modes():
    actions = base_actions(2000)
    assert abs((actions > 0).mean() - 0.5) < 0.05
    assert np.abs(np.abs(actions) - 1).mean() < 0.2


@pytest.mark.parametrize("config", [DSRLConfig(), DSRLNAConfig(distill_steps=3)])
def test_dsrl_finds_the_mode_that_pays_and_stays_on_it(config):
    actions = learned(config, lambda a: a > 0, episodes=320)
    assert (actions > 0).mean() >= 0.95
    assert abs(np.mean(actions[actions > 0]) - 1) < 0.15


@pytest.mark.slow
def test_dsrl_cannot_do_what_the_base_never_does_and_a_residual_can():
    def between(action):
        return abs(action) < 0.2

    base = np.mean([between(a) for a in base_actions(2000)])
    for config in (DSRLConfig(), DSRLNAConfig()):
        steered = learned(config, between, episodes=200)
        assert np.mean(np.abs(steered) < 0.2) <= base + 0.1
    config = ResidualConfig(bound=0.75, progressive_steps=100)
    assert np.mean(np.abs(learned(config, between, episodes=800)) < 0.2) >= 0.8


def test_normal_noise_is_the_base_policy():
    steering, rng = NoiseSteering(TwoModes(), bound=6.0), np.random.default_rng(3)
    noise = rng.normal(size=500).astype(np.float32) / 6.0
    ours = [steering.plan({}, np.array([w]))[0, 0] for w in noise]
    reference = base_actions(2000, seed=1)
    chance = [
        energy_distance(reference, rng.choice(reference, size=500, replace=False))
        for _ in range(50)
    ]
    assert energy_distance(ours, reference) <= max(chance) * 1.5


@pytest.mark.parametrize(("bound", "action"), [(0.0, 1.0), (0.5, 0.0)])
def test_a_residual_of_nothing_is_the_base_exactly(bound, action):
    steering = Residual(TwoModes(), bound)
    obs = {"observation.state": torch.zeros(1, 1, 1)}
    for seed in range(20):
        steering.begin(seed)
        seen = steering.observe(obs)
        noise = torch.randn((1, 1, 1), generator=torch.Generator().manual_seed(seed))
        expected = TwoModes().plan(obs, noise)[0]
        assert np.array_equal(steering.plan(obs, np.array([action], np.float32)), expected)
        assert seen[-1] == pytest.approx(expected[0, 0] / 2)


def test_a_residual_is_bounded_by_its_share_of_the_range():
    steering = Residual(TwoModes(), 0.25)
    obs = {"observation.state": torch.zeros(1, 1, 1)}
    steering.begin(0)
    steering.observe(obs)
    still = steering.plan(obs, np.zeros(1, np.float32))
    moved = steering.plan(obs, np.ones(1, np.float32))
    assert moved - still == pytest.approx(0.5)


def test_before_learning_starts_dsrl_acts_as_the_base():
    venv_env = OneStep(lambda a: False)
    config = DSRLConfig(noise_bound=4.0)
    steering = steering_of(config, TwoModes())
    torch.manual_seed(0)
    rl = dataclasses.replace(config.rl, learning_starts=EVERYTHING, net_arch=(8,))
    config = dataclasses.replace(config, rl=rl)
    model = build_agent(config, config.rl, DummyVecEnv([lambda: PlanEnv(venv_env, steering, 0)]))
    model.learn(400)
    assert energy_distance(venv_env.actions, base_actions(2000)) < 0.08
    assert energy_distance(np.abs(base_actions(400)), base_actions(2000)) > 0.3  # it can fail


def test_before_its_schedule_begins_a_residual_corrects_nothing():
    env = OneStep(lambda a: False)
    config = ResidualConfig(progressive_steps=10_000)
    rl = dataclasses.replace(config.rl, learning_starts=EVERYTHING, net_arch=(8,))
    config = dataclasses.replace(config, rl=rl)
    torch.manual_seed(0)
    venv = DummyVecEnv([lambda: PlanEnv(env, steering_of(config, TwoModes()), 0)])
    model = build_agent(config, config.rl, venv)
    model.learn(200)
    stored = model.replay_buffer.actions[:200, 0]
    assert (stored == 0).mean() > 0.95


def test_two_seeds_differ_and_one_seed_repeats():
    first = learned(DSRLConfig(), lambda a: a > 0, episodes=100)
    assert np.array_equal(first, learned(DSRLConfig(), lambda a: a > 0, episodes=100))
    assert not np.array_equal(first, learned(DSRLConfig(), lambda a: a > 0, episodes=100, seed=1))


def test_more_noise_vectors_than_the_horizon_are_refused():
    with pytest.raises(ConfigError, match="noise_steps=3 is more than the policy's horizon of 1"):
        steering_of(DSRLConfig(noise_steps=3), TwoModes())


def choosing(config, env, **fields):
    torch.manual_seed(0)
    fields = {"batch_size": 32, "learning_starts": 40, "net_arch": (16,), **fields}
    config = dataclasses.replace(config, rl=dataclasses.replace(config.rl, **fields))
    venv = DummyVecEnv([lambda: PlanEnv(env, steering_of(config, TwoModes()), 0)])
    return build_agent(config, config.rl, venv, seed=0)


def test_best_of_n_chooses_the_candidate_that_pays():
    # All sixteen candidates lie on the wrong side in one state of 65,536.
    config = BestOfNConfig()
    actions = learned(config, lambda a: a > 0, episodes=200, deterministic=True)
    assert (actions > 0).mean() >= 0.95
    assert abs(np.mean(actions[actions > 0]) - 1) < 0.1


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.slow
def test_noise_search_reaches_more_than_its_starts_and_repeats(gradient):
    config = NoiseSearchConfig(candidates=2, search_steps=3, search_gradient=gradient)
    actions = learned(config, lambda a: a > 0, episodes=200, deterministic=True)
    # The better of two candidates lies on the right side in three states of four (+- .03).
    assert (actions > 0).mean() >= 0.82
    assert abs(np.mean(actions[actions > 0]) - 1) < 0.15
    again = learned(config, lambda a: a > 0, episodes=200, deterministic=True)
    assert np.array_equal(actions, again)


def test_best_of_n_never_does_what_the_base_never_does():
    actions = learned(BestOfNConfig(), lambda a: abs(a) < 0.2, episodes=200, deterministic=True)
    base = np.mean(np.abs(base_actions(2000)) < 0.2)
    assert np.mean(np.abs(actions) < 0.2) <= 1 - (1 - base) ** 16 + 0.05


@pytest.mark.parametrize("deterministic", [False, True])
def test_best_of_one_is_the_base_policy(deterministic):
    config = BestOfNConfig(candidates=1)
    model = choosing(config, OneStep(lambda a: a > 0))
    model.learn(100)
    actions = acted(config, model, lambda a: a > 0, deterministic)
    assert energy_distance(actions, base_actions(2000)) < 0.15


def test_before_learning_starts_best_of_n_acts_as_the_base():
    env = OneStep(lambda a: a > 0)
    choosing(BestOfNConfig(), env, learning_starts=EVERYTHING).learn(400)
    assert energy_distance(env.actions, base_actions(2000)) < 0.08


def test_best_of_n_carries_out_what_was_proposed_and_values_states_by_an_expectile():
    model = choosing(BestOfNConfig(candidates=4), OneStep(lambda a: True))
    model.learn(80)
    batch = model.replay_buffer.sample(16)
    plans = model.policy.plans(batch.observations)
    assert (plans - batch.actions[:, None]).abs().sum(-1).amin(1).max() < 1e-6
    q = model.policy.judged(model.critic_target, batch.next_observations)
    assert q.shape == (16, 4)
    assert q.std(dim=1).min() > 0
    assert torch.allclose(model._future(batch, None, None), expectile(q, 0.8))


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"candidates": 0}, "--finetune.candidates"), ({"expectile": 1.0}, "--finetune.expectile")],
)
def test_bad_choices_are_named(changes, match):
    with pytest.raises(ConfigError, match=match):
        BestOfNConfig(**changes).check()
