"""Blends around SAC and PPO: what is paid, what is learned, what a checkpoint keeps."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.errors import CheckpointError, ConfigError, NonFiniteError
from embodied_reward.policies.blends import NAMES, BlendConfig, about, check, make_blend
from embodied_reward.policies.blends.bilevel import policy_gradient
from embodied_reward.policies.blends.env import BlendCallback, BlendedVecEnv
from embodied_reward.policies.blends.episodes import Decisions, returns
from embodied_reward.policies.config import PPOConfig, SACConfig
from embodied_reward.policies.ppo import build_ppo
from embodied_reward.policies.sac import build_sac
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.frames import ProgressInInfo
from embodied_reward.shaping.vector import LearnedRewardVecEnv

GAMMA, KAPPA = 0.95, 0.3
# A learned reward that pays for being somewhere: it keeps no optimal policy.
MODE = dataclasses.replace(mode_named("absolute"), source="progress")
LEARNED = ("bilevel", "calibrated", "group", "exploration")


class Line(gym.Env):
    """Reach 1 from 0 in ten steps; `progress` rises towards `side` (1 helps, -1 misleads)."""

    observation_space = gym.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, side=1):
        self.side = side

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = 0.0, 0
        return self._obs(), {"is_success": False}

    def step(self, action):
        self.x += 0.3 * float(np.clip(action[0], -1, 1))
        self.t += 1
        won = self.x >= 1
        return self._obs(), float(won), won, self.t >= 10, {"is_success": won}

    def progress(self):
        return float(np.clip(0.5 + self.side * self.x / 4, 0, 1))

    def _obs(self):
        return np.array([self.x, self.t / 10], np.float32)


class Watch(BaseCallback):
    """Remember weights, successes and rewards."""

    def __init__(self):
        super().__init__()
        self.weights, self.won, self.rewards = [], [], []

    def _on_step(self):
        infos, dones = self.locals["infos"], self.locals["dones"]
        self.weights.append(infos[0].get("blend_weight", 1.0))
        self.rewards.append(np.array(self.locals["rewards"]))
        self.won += [i["is_success"] for i, done in zip(infos, dones, strict=True) if done]
        return True


def environment(side=1, count=4, mode=MODE, seed=0, kappa=KAPPA):
    vector = DummyVecEnv([lambda: ProgressInInfo(Line(side))] * count)
    vector.seed(seed)
    return LearnedRewardVecEnv(vector, mode, gamma=GAMMA, kappa=kappa)


def blend_named(name, count=4, seed=0, demos=None, **changes):
    config = BlendConfig(**{"window": 40, **changes})
    return make_blend(name, config, count=count, gamma=GAMMA, seed=seed, widths=(2, 1), demos=demos)


def learner(kind, env, blend, seed=0, **changes):
    if kind == "ppo":
        fields = dict(n_steps=64, batch_size=64, learning_rate=3e-3, target_kl=None, n_epochs=5)
        config = PPOConfig(net_arch=(32, 32), bc_steps=0, gamma=GAMMA, **{**fields, **changes})
        return build_ppo(config, env, seed=seed)

    mode = getattr(env, "mode", MODE)

    def relabel(base, phi, after, ended):
        weight = blend.weight if blend else 1.0
        if blend:
            phi, after = blend.potential(phi), blend.potential(after)
        return base + weight * mode.added(phi, after, ended, GAMMA, KAPPA)

    fields = dict(batch_size=64, buffer_size=5000, learning_starts=200, learning_rate=1e-3)
    fields |= dict(gradient_steps=1, net_arch=(32, 32), bc_steps=0, gamma=GAMMA)
    model = build_sac(SACConfig(**{**fields, **changes}), env, relabel=relabel, seed=seed)
    if blend is not None and blend.bonuses:
        model.replay_buffer.bonus = blend.bonus
    return model


def run(kind, name, side, steps, seed=0, **changes):
    blend = blend_named(name, **changes) if name != "fixed" else None
    env = environment(side, seed=seed)
    model = learner(kind, BlendedVecEnv(env, blend) if blend else env, blend, seed)
    watch = Watch()
    model.learn(steps, [*([BlendCallback(blend)] if blend else []), watch])
    return model, blend, watch


@pytest.mark.parametrize(("kind", "steps"), [("ppo", 4000), ("sac", 2400)])
@pytest.mark.slow
def test_a_reward_that_leads_astray_loses_its_weight_and_the_task_is_learned(kind, steps):
    """BARFI with small networks: weight < 0.1, success no worse than without the reward (1.0)."""
    *_, fixed = run(kind, "fixed", -1, steps)
    _, _, learned = run(kind, "bilevel", -1, steps)
    print(kind, "weights", np.round(learned.weights[:: len(learned.weights) // 10], 2))
    print("success", *(np.mean(watch.won[-50:]) for watch in (fixed, learned)))
    assert np.mean(fixed.won[-50:]) < 0.4
    assert min(learned.weights) < 0.1
    assert np.mean(learned.won[-50:]) > 0.9


def test_policy_gradients_of_a_linear_gaussian_match_the_formula():
    """F.11.2: reward -(a - 2 s)^2, mean w s + b; E[R (a - mu)] d mu = 2 var (2 s - mu) d mu."""
    n, std = 100_000, 0.5
    box = gym.spaces.Box(-9, 9, (1,), np.float32)
    policy = ActorCriticPolicy(box, box, lambda _: 1e-3, net_arch=[])
    with torch.no_grad():
        policy.action_net.weight.fill_(0.7)
        policy.action_net.bias.fill_(-0.2)
    rng = np.random.default_rng(0)
    s = rng.normal(size=(n, 1)).astype(np.float32)
    mean = 0.7 * s - 0.2
    a = (mean + std * rng.normal(size=(n, 1))).astype(np.float32)
    reward = -((a - 2 * s)[:, 0].astype(np.float64) ** 2)
    parts = [
        policy_gradient(policy, [Decisions(x, y, r, r, r)], "base", 0.0).numpy()
        for x, y, r in zip(*(np.array_split(v, 50) for v in (s, a, reward)), strict=True)
    ]
    slope = 2 * std**2 * (2 * s - mean)
    expected = np.array([(slope * s).mean(), slope.mean()])
    error = np.std(parts, axis=0) / np.sqrt(len(parts))
    assert (np.abs(np.mean(parts, axis=0) - expected) < 3 * error).all()
    assert (error < 0.1 * np.abs(expected)).all()  # three errors are a narrow gate


def test_returns_are_discounted_sums():
    np.testing.assert_allclose(returns(np.array([1.0, 0, 2]), 0.5), [1.5, 1.0, 2.0])


@pytest.mark.parametrize("name", LEARNED)
def test_what_is_paid_is_base_plus_weighted_reward_plus_bonus(name):
    blend = blend_named(name)
    blend.weight = 0.25
    env, plain = BlendedVecEnv(environment(), blend), environment()
    env.reset()
    plain.reset()
    rng = np.random.default_rng(0)
    bonuses = []
    for _ in range(100):
        action = rng.uniform(-1, 1, (4, 1)).astype(np.float32)
        _, rewards, _, infos = env.step(action)
        _, whole, _, others = plain.step(action)
        for r, w, info, other in zip(rewards, whole, infos, others, strict=True):
            expected = info["base_reward"] + 0.25 * other["shaping"] + info["blend_bonus"]
            assert r == pytest.approx(expected, abs=1e-6)
            assert w == pytest.approx(other["base_reward"] + other["shaping"], abs=1e-6)
            bonuses.append(info["blend_bonus"])
    assert (max(bonuses) > 0) == (name == "exploration")


def test_with_weight_one_and_no_bonus_every_number_is_that_of_the_fixed_blend():
    blend = blend_named("bilevel", every=40)
    blend.improve = lambda policy: {}  # never updated
    found = []
    for env in (BlendedVecEnv(environment(), blend), environment()):
        model = learner("ppo", env, None)
        model.learn(512)
        found.append(list(model.policy.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("n", [1, 3])
def test_replayed_rewards_hold_the_bonus_of_every_step_they_sum(n):
    blend = blend_named("exploration", count=1)
    env = BlendedVecEnv(environment(count=1), blend)
    model = learner("sac", env, blend, n_steps=n, learning_starts=10_000)
    model.learn(400)
    buffer = model.replay_buffer
    state = buffer.generator.bit_generator.state
    paid = buffer.sample(300)
    buffer.generator.bit_generator.state = state
    buffer.bonus = None
    without = buffer.sample(300)
    assert torch.equal(paid.observations, without.observations)
    extra = (paid.rewards - without.rewards)[:, 0].numpy()
    assert (extra > 0).mean() > 0.9
    # By hand, from the buffer's columns.
    size = buffer.size()
    obs, after, act = (
        getattr(buffer, k)[:size, 0] for k in ("observations", "next_observations", "actions")
    )
    ends = (buffer.dones[:size, 0] > 0) & ~(buffer.timeouts[:size, 0] > 0)
    single = blend.bonus(obs, act, after, ends)
    ids = buffer.episode_ids[:size, 0]
    key = {(*obs[i].tolist(), *act[i].tolist()): i for i in range(size)}
    for row in range(300):
        i = key[(*paid.observations[row].tolist(), *paid.actions[row].tolist())]
        window = [j for j in range(i, min(i + n, size)) if ids[j] == ids[i]]
        expected = sum(GAMMA ** (j - i) * single[j] for j in window)
        assert extra[row] == pytest.approx(expected, abs=1e-5)


def test_states_are_counted_and_terminal_ones_pay_nothing():
    blend = blend_named("exploration", bonus=0.5, designed=0.0)
    rng = np.random.default_rng(0)
    zeros = np.zeros((1, 1), np.float32)
    place = np.array([[0.3, 0.2]], np.float32)
    assert (
        blend.bonus(place, zeros, place, np.zeros(1, bool)) == 0
    )  # nothing is known of distances yet
    blend.saw(rng.normal(size=(256, 2)).astype(np.float32))
    assert blend.visits.sum() == 256
    paid = []
    for _ in range(50):
        paid.append(blend.bonus(place, zeros, place, np.zeros(1, bool))[0])
        blend.saw(place)
    assert (np.diff(paid) < 0).all()
    assert paid[-1] < 1 / np.sqrt(49)
    assert blend.bonus(place, zeros, place, np.ones(1, bool)) == 0
    new = np.array([[40.0, -60.0]], np.float32)
    assert blend.bonus(place, zeros, new, np.zeros(1, bool)) == pytest.approx(0.5)


@pytest.mark.slow
def test_the_self_designed_reward_prefers_what_returned_more_and_stays_small():
    model, blend, watch = run("ppo", "exploration", 1, 2000, bonus=1e-6, designed=0.02)
    assert np.mean(watch.won) > 0.05
    obs = np.repeat(np.array([[0.4, 0.3]], np.float32), 2, 0)
    right_left = np.array([[1.0], [-1.0]], np.float32)
    right, left = blend.bonus(obs, right_left, obs, np.ones(2, bool))
    assert right > left
    assert max(abs(right), abs(left)) <= 0.02


def test_groups_give_the_learned_reward_the_base_rewards_spread_whatever_its_unit():
    spreads = []
    for kappa in (0.01, 1.0, 40.0):
        blend = blend_named("group", every=40)
        env = BlendedVecEnv(environment(kappa=kappa), blend)
        env.reset()
        rng = np.random.default_rng(0)
        for _ in range(300):
            env.step(rng.uniform(-0.5, 1, (4, 1)).astype(np.float32))
        seen = blend.window.together()
        assert seen.base.std() > 0
        blend.improve(None)
        spreads.append(blend.weight * seen.learned.std() / seen.base.std())
    assert spreads[1] == pytest.approx(1.0)
    # 10 and 1/10 bound the weight: an unlimited ratio would follow one lucky success.
    assert spreads[0] < 1 < spreads[2]


def test_without_any_success_bilevel_and_group_leave_the_weight_alone():
    for name in ("bilevel", "group"):
        blend = blend_named(name, every=5)
        env = BlendedVecEnv(environment(), blend)
        model = learner("ppo", env, blend)
        env.reset()
        for _ in range(60):
            env.step(-np.ones((4, 1), np.float32))
        assert blend.improve(model.policy)["blend/weight"] == 1.0


@pytest.mark.parametrize("kind", ["sac", "ppo"])
@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers(kind, name):
    found = []
    for seed in (0, 0, 1):
        model, _, watch = run(kind, name, 1, 640, seed, every=3)
        found.append(
            (np.array(watch.rewards), torch.cat([p.ravel() for p in model.policy.parameters()]))
        )
    assert (found[0][0] == found[1][0]).all()
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][1], found[2][1])


@pytest.mark.parametrize("name", LEARNED)
def test_a_saved_blend_goes_on_bit_by_bit(name, tmp_path):
    model, blend, _ = run("ppo", name, 1, 1200, every=3)
    blend.save(tmp_path)
    other = blend_named(name, seed=9, every=3)
    other.load(tmp_path)
    rng, found = np.random.default_rng(5), []
    for one in (blend, other):
        torch.manual_seed(3)
        one.window.abandon()
        one._finished = 7
        found.append(one.improve(model.policy))
        found.append(one.weight)
    assert found[:2] == found[2:]
    points = rng.normal(size=(50, 2)).astype(np.float32)
    action = rng.uniform(-1, 1, (50, 1)).astype(np.float32)
    results = [b.bonus(points, action, points, np.zeros(50, bool)) for b in (blend, other)]
    np.testing.assert_array_equal(*results)
    wrong = blend_named("group" if name != "group" else "bilevel")
    with pytest.raises(CheckpointError, match="same --reward.blend"):
        wrong.load(tmp_path)


def test_a_bonus_that_is_not_finite_is_stopped_before_it_is_stored():
    blend = blend_named("exploration")
    blend.bonus = lambda *given: np.array([0.0, np.nan, 0.0, 0.0])
    env = BlendedVecEnv(environment(), blend)
    env.reset()
    with pytest.raises(NonFiniteError, match="environment 1 is nan"):
        env.step(np.zeros((4, 1), np.float32))


def test_every_blend_says_what_becomes_of_the_optimal_policy():
    assert set(NAMES) == {*LEARNED, "fixed", "uncertainty"}
    assert all(about(name) for name in NAMES)
    assert "NOT" in about("exploration")
    for name in LEARNED:
        assert "Optimal policy:" in type(blend_named(name)).__doc__


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("bilevl", {}, "did you mean 'bilevel'"),
        ("bilevel", {"every": 30}, "--blend.every"),
        ("bilevel", {"rate": 0.0}, "--blend.rate"),
        ("exploration", {"bits": 40}, "--blend.bits"),
        ("exploration", {"designed": -1.0}, "--blend.designed"),
        ("uncertainty", {"temperature": 0.0}, "--blend.temperature"),
    ],
)
def test_values_that_cannot_be_used_are_refused(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        check(name, BlendConfig(**changes))
