"""DPPO: likelihoods of the chain, ends of episodes by hand, and the toy with two modes."""

import copy
import dataclasses
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.policies.config import DiffusionConfig
from embodied_reward.policies.diffusion.actor import DiffusionSpec, create_actor
from embodied_reward.policies.finetune.chain import Chain
from embodied_reward.policies.finetune.config import DPPOConfig
from embodied_reward.policies.finetune.dppo import build_dppo, clip_ranges
from embodied_reward.policies.finetune.env import PlanEnv
from embodied_reward.policies.finetune.steering import steering_of
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.frames import ProgressInInfo
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from tests.policies.two_modes import RANGE, STATE, WORLD, OneStep, actions_of, two_modes

GAMMA, LAM, KAPPA = 0.9, 0.8, 2.0


@pytest.fixture(scope="module")
def toy():
    return two_modes()


@pytest.fixture(scope="module")
def unet():
    """An untrained policy of LeRobot with two observations, two states and three actions."""
    torch.manual_seed(0)
    config = DiffusionConfig(
        horizon=4, n_action_steps=2, n_obs_steps=2, down_dims=(8, 8), diffusion_step_embed_dim=8,
        num_train_timesteps=20, num_inference_steps=5,
    )  # fmt: skip
    ones = np.ones(3, np.float32)
    spec = DiffusionSpec(config, {"agent_pos": (2,), "environment_state": (1,)}, -ones, ones)
    stats = {key: {"min": torch.full((n,), -2.0), "max": torch.full((n,), 3.0)}
             for key, n in ((STATE, 2), (WORLD, 1))}  # fmt: skip
    stats["action"] = {"min": torch.tensor(-ones), "max": torch.tensor(ones)}
    return create_actor(spec, stats)


def method_of(rl=None, **changes):
    fields = {"n_steps": 16, "batch_size": 512, "n_epochs": 10, "learning_rate": 1e-3,
              "clip_range": 0.2, "actor_starts": 0, "net_arch": (16,)}  # fmt: skip
    method = DPPOConfig(**{"min_std": 0.2, "clip_first": 0.2, **changes})
    return dataclasses.replace(
        method, rl=dataclasses.replace(method.rl, **{**fields, **(rl or {})})
    )


def learner(actor, good=lambda a: a > 0, count=16, seed=0, rl=None, **changes):
    torch.manual_seed(seed)
    method = method_of(rl, **changes)
    makers = [
        lambda i=i: PlanEnv(OneStep(good), steering_of(method, actor), i) for i in range(count)
    ]
    return build_dppo(method, method.rl.plain(), actor, DummyVecEnv(makers), seed=seed)


def collected(model):
    """Return the model after one rollout, before any update."""
    _, callback = model._setup_learn(model.n_steps)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model


def weights(module):
    return torch.cat([p.detach().ravel().clone() for p in module.parameters()])


def observations(actor, count):
    shapes = {STATE: (count, 2, 2), WORLD: (count, 2, 1)}
    generator = torch.Generator().manual_seed(1)
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def test_without_noise_a_chain_ends_in_lerobots_own_plan(unet):
    obs = observations(unet, 6)
    noise = torch.randn(6, *unet.noise_shape)
    model = learner(unet, count=1, rl={"n_steps": 2}, eta=0.0)
    flat = torch.cat([torch.from_numpy(unet.flat({k: v[i : i + 1] for k, v in obs.items()}))[None]
                      for i in range(6)])  # fmt: skip
    batch = unet.before(dict(obs))
    condition = model.policy.condition(flat)
    theirs = unet.model.diffusion._prepare_global_conditioning(batch)
    torch.testing.assert_close(condition, theirs)
    chain = Chain(unet.model, eta=0.0, min_std=0.0)
    end = chain.sample([unet.model.diffusion.unet] * 5, noise, condition)[:, -1, chain.used]
    with torch.no_grad():
        plan = unet.model.diffusion.generate_actions(batch, noise=noise)
    torch.testing.assert_close(end, plan, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_means_and_deviations_are_those_of_diffusers(toy, eta):
    chain, scheduler = Chain(toy.model, eta=eta, min_std=0.0), toy.model.diffusion.noise_scheduler
    net, x = toy.model.diffusion.unet, torch.randn(32, *toy.noise_shape)
    for step, time in enumerate(chain.times):
        k, out = torch.full((32,), step), net(x, time.repeat(32))
        drawn = [scheduler.step(out, time, x, eta=eta, variance_noise=torch.full_like(x, z))[0]
                 for z in (0.0, 1.0)]  # fmt: skip
        mean = chain.mean(net, x, k, torch.zeros(32, 0))
        torch.testing.assert_close(mean, drawn[0], atol=1e-5, rtol=1e-5)
        spread = chain.std[step].expand_as(x)
        torch.testing.assert_close(drawn[1] - drawn[0], spread, atol=1e-5, rtol=1e-4)


def test_the_first_update_sees_the_likelihoods_that_acted(toy):
    """F.11.1: likelihoods recomputed in the update are those of the rollout."""
    model = collected(learner(toy))
    acted = model.rollout_buffer.log_probs.copy()
    order = np.random.get_state()  # noqa: NPY002 (SB3 shuffles with it)
    rollout = model._rollout()
    np.random.set_state(order)  # noqa: NPY002
    shuffled = np.random.permutation(acted.size)  # noqa: NPY002
    again = rollout.logs.mean(dim=1).numpy()
    np.testing.assert_allclose(again, acted.swapaxes(0, 1).ravel()[shuffled], atol=1e-5)
    again = model.policy.log_probs(rollout.chains, rollout.obs)
    assert (again - rollout.logs).abs().max() < 1e-5
    assert rollout.logs.std() > 0.1


def test_policy_gradients_of_the_likelihood_agree_with_the_analytic_one(toy):
    """F.11.2: x ~ N(theta, std^2) and reward -(x - 1)^2 have the gradient -2 (theta - 1)."""
    chain, count = Chain(toy.model, eta=0.0, min_std=0.3), 100_000
    last = torch.full((count,), chain.steps - 1)
    theta = torch.full((count, 2, 1), 0.4, requires_grad=True)
    x = theta.detach() + chain.std[-1] * torch.randn(count, 2, 1)
    reward = -(x[:, 0, 0] - 1).square()
    log = chain.log_prob(theta, x, last)
    (grad,) = torch.autograd.grad((reward - reward.mean()) @ log, theta)
    each = grad[:, 0, 0]
    assert abs(each.mean() - 1.2) < 3 * each.std() / math.sqrt(count)
    assert grad[:, 1].abs().max() == 0  # never carried out


@pytest.fixture(scope="module")
def tuned(toy):
    model = learner(toy)
    model.learn(2560)
    return model


def test_dppo_finds_the_mode_that_pays(toy, tuned):
    assert abs((actions_of(toy) > 0).mean() - 0.5) < 0.05
    assert (actions_of(tuned.policy.tuned_actor()) > 0).mean() >= 0.95


def test_the_price_of_divergence_keeps_the_policy_at_its_start(toy, tuned):
    def right(model):
        return (actions_of(model.policy.tuned_actor()) > 0).mean()

    held, drawn = learner(toy, kl_weight=30.0), learner(toy, kl_weight=1.0)
    for model in (held, drawn):
        model.learn(768)
    start = (actions_of(toy) > 0).mean()
    assert abs(right(held) - start) < 0.02
    assert start + 0.02 < right(drawn) < right(tuned) - 0.2


def test_the_start_denoises_what_does_not_learn_and_holds_the_learner_there(toy):
    model = learner(toy, denoising_steps=4)
    policy = model.policy
    model.learn(512)
    assert (weights(policy.learner) - weights(policy.start)).norm() > 0.01
    obs = torch.zeros(256, 2)
    torch.manual_seed(3)
    ours = policy.sample(obs)
    torch.manual_seed(3)
    alone = policy.chain.sample(
        [policy.start.diffusion.unet] * 10, torch.randn(256, 2, 1), policy.condition(obs)
    )
    assert torch.equal(ours[:, :7], alone[:, :7])
    assert not torch.equal(ours[:, 7:], alone[:, 7:])
    assert policy.log_probs(ours, obs).shape == (256, 4)
    free = learner(toy, denoising_steps=4)
    free._anchor = lambda *_: torch.zeros(())
    free.learn(512)
    assert strayed(policy, ours[:, :7]) < 0.5 * strayed(free.policy, ours[:, :7])


def strayed(policy, chains):
    """Return how far the learner is from the start on the steps that do not learn."""
    obs, k = torch.zeros(len(chains), 2), torch.arange(6)
    means = [policy.means(model, chains, obs, k) for model in (policy.learner, policy.start)]
    return (means[0] - means[1]).abs().mean().item()


def test_the_network_waits_for_the_critic(toy):
    model = learner(toy, rl={"actor_starts": 256})
    model.learn(256)
    before = weights(model.policy.start)
    assert torch.equal(weights(model.policy.learner), before)
    model.learn(256, reset_num_timesteps=False)
    assert not torch.equal(weights(model.policy.learner), before)


def test_two_seeds_differ_and_one_seed_repeats(toy):
    def after(seed):
        model = learner(toy, seed=seed, rl={"n_steps": 4})
        model.learn(64)
        return weights(model.policy.learner)

    assert torch.equal(after(0), after(0))
    assert not torch.equal(after(0), after(1))


def test_clip_ranges_rise_to_the_last_step():
    found = clip_ranges(3, 0.01, 0.1)
    expected = [0.01, 0.01 + 0.09 * (math.exp(1.5) - 1) / (math.exp(3) - 1), 0.1]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert clip_ranges(1, 0.01, 0.1).tolist() == pytest.approx([0.1])


PHI = np.array([0.1, 0.5, 0.9, 0.3])  # potential of states 0, 1, 2, and 3, another first state
VALUE = np.array([0.7, -0.4, 1.1, 5.0])  # what the critic believes of them
REWARD = np.array([0.25, 0.5])  # of the two decisions of an episode


class Two(OneStep):
    """0 -> 1 -> 2 and the episode is over; later ones may begin in another state."""

    def __init__(self, terminates=False, later=0):
        super().__init__(lambda a: True)
        self.terminates, self.later, self.episodes = terminates, later, 0

    def reset(self, *, seed=None, options=None):
        gym.Env.reset(self, seed=seed)
        self.x, self.t = (self.later if self.episodes else 0), 0
        self.episodes += 1
        return self._obs(), {"is_success": False}

    def step(self, action):
        reward = float(REWARD[self.t])
        self.t += 1
        self.x = self.t
        over = self.t == 2
        return self._obs(), reward, over and self.terminates, over, {"is_success": False}

    def progress(self):
        return float(PHI[self.x])

    def _obs(self):
        return {k: np.float32([self.x / 4]) for k in self.observation_space.spaces}


class Table(nn.Module):
    """A critic that looks the state up."""

    def forward(self, obs):
        return torch.as_tensor(VALUE, dtype=torch.float32)[(obs[:, :1] * 4).round().long()]


def advantages(actor, env):
    method = method_of({"n_steps": 8, "gamma": GAMMA, "gae_lambda": LAM})
    inner = DummyVecEnv([lambda: ProgressInInfo(PlanEnv(env, steering_of(method, actor), 0))])
    shaped = LearnedRewardVecEnv(inner, mode_named("oracle"), gamma=GAMMA, kappa=KAPPA)
    model = build_dppo(method, method.rl.plain(), actor, shaped)
    model.policy.critic = Table()
    return collected(model).rollout_buffer.advantages[:, 0]


def by_hand(last_potential, last_value):
    """GAE of one episode; what follows its second decision is given."""
    paid = REWARD + KAPPA * (GAMMA * np.array([PHI[1], last_potential]) - PHI[:2])
    delta = paid + GAMMA * np.array([VALUE[1], last_value]) - VALUE[:2]
    return np.array([delta[0] + GAMMA * LAM * delta[1], delta[1]])


def test_a_truncated_episode_bootstraps_from_its_real_last_observation(toy):
    found = advantages(toy, Two()).reshape(4, 2)
    np.testing.assert_allclose(found, [by_hand(PHI[2], VALUE[2])] * 4, atol=1e-5)
    usual, other = (advantages(toy, Two(later=later))[:2] for later in (0, 3))
    np.testing.assert_array_equal(usual, other)


def test_a_terminated_episode_bootstraps_from_nothing(toy):
    found = advantages(toy, Two(terminates=True)).reshape(4, 2)
    np.testing.assert_allclose(found, [by_hand(0, 0)] * 4, atol=1e-5)
    assert np.abs(by_hand(0, 0) - by_hand(PHI[2], VALUE[2])).min() > 0.1


class Spoiled(BaseCallback):
    def _on_rollout_end(self):
        self.model.policy.critic[0].weight.data.fill_(np.nan)

    def _on_step(self):
        return True


def test_a_number_that_is_not_finite_changes_no_weight(toy):
    model = learner(toy)
    before = weights(model.policy.learner)
    with pytest.raises(NonFiniteError, match="it was not made"):
        model.learn(256, Spoiled())
    assert torch.equal(weights(model.policy.learner), before)
    model = learner(toy, good=lambda a: True)
    collected(model)
    model.rollout_buffer.advantages[3] = np.inf
    with pytest.raises(NonFiniteError, match="advantages are not finite"):
        model.train()


def test_the_saved_policy_is_the_learner_and_the_start_stays(toy, tuned):
    assert torch.equal(weights(tuned.policy.tuned_actor().model), weights(tuned.policy.learner))
    assert np.array_equal(actions_of(toy, 50), actions_of(two_modes(), 50))
    assert not np.array_equal(actions_of(toy, 50), actions_of(tuned.policy.tuned_actor(), 50))


def test_what_the_environment_gets_is_the_plan_at_the_chains_end(toy):
    model = learner(toy, good=lambda a: True, count=1, rl={"n_steps": 4})
    env = model.env.envs[0].env
    collected(model)
    ends = model.rollout_buffer.actions.reshape(4, 11, 2, 1)[:, -1, 0, 0]
    np.testing.assert_allclose(env.actions, RANGE * ends.clip(-1, 1), atol=1e-6)


def test_what_cannot_be_tuned_is_refused(toy):
    with pytest.raises(ConfigError, match="denoising_steps=11 is more than"):
        learner(toy, denoising_steps=11)
    other = copy.deepcopy(toy.model)
    other.config.noise_scheduler_type = "DDPM"
    with pytest.raises(ConfigError, match="follows DDIM, the policy has DDPM"):
        Chain(other, eta=0.0, min_std=0.1)


@pytest.mark.parametrize(
    "changes",
    [{"denoising_steps": -1}, {"kl_weight": -0.1}, {"min_std": 0.0}, {"eta": 1.5},
     {"denoising_gamma": 0.0}, {"clip_first": 2.0}, {"max_grad_norm": 0.0}],
)  # fmt: skip
def test_bad_settings_are_named(changes):
    with pytest.raises(ConfigError, match=f"--finetune.{next(iter(changes))}"):
        DPPOConfig(**changes).check()
