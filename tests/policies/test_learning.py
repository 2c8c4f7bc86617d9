"""Cloning, SAC and PPO on the small reaching task."""

import numpy as np
import pytest
import torch
from torch import nn

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.policies.bc import clone, mean_action
from embodied_reward.policies.checkpoint import Policy, spec_of
from embodied_reward.policies.evaluate import evaluate
from embodied_reward.policies.networks import SCALE_FLOOR, input_statistics
from embodied_reward.policies.ppo import build_ppo
from embodied_reward.policies.sac import build_sac
from embodied_reward.shaping import mode_named


def relabel(base, phi, after, ended):
    return mode_named("oracle").total(base, phi, after, ended, 0.95)


def parameters(module):
    return [p.detach().clone() for p in module.parameters()]


def same(before, module):
    return all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


@pytest.fixture
def build(make_learner, demos, small_sac, small_ppo):
    def make(kind, **changes):
        if kind == "ppo":
            return build_ppo(small_ppo, make_learner(), demos=demos, seed=0)
        changes = {"relabel": relabel, **changes}
        config = small_sac(**changes.pop("config", {}))
        return build_sac(config, make_learner(), demos=demos, seed=0, **changes)

    return make


@pytest.mark.parametrize("kind", ["sac", "ppo"])
def test_the_clone_imitates_and_reaches_the_goal(kind, build, demos, reach):
    model = build(kind)
    obs, action = torch.from_numpy(demos.obs), torch.from_numpy(demos.action).clamp(-0.97, 0.97)
    with torch.no_grad():
        assert (mean_action(model.policy, obs) - action).square().mean() < 5e-3
    env = reach()
    spec = spec_of(model_config(kind), (env.observation_space, env.action_space), {})
    result = evaluate(Policy(model.policy, spec), env, episodes=20, seed=100)
    assert result.success_rate >= 0.8


def model_config(kind):
    from embodied_reward.policies.config import PPOConfig, SACConfig

    return SACConfig() if kind == "sac" else PPOConfig()


def test_exploration_has_the_asked_spread_in_every_state(build, demos):
    model = build("sac", config={"bc_std": 0.07})
    with torch.no_grad():
        _, log_std, _ = model.actor.get_action_dist_params(torch.from_numpy(demos.obs))
    assert torch.allclose(log_std.exp(), torch.tensor(0.07))
    ppo = build("ppo")
    assert torch.allclose(ppo.policy.log_std.exp(), torch.tensor(0.15))


def test_input_scale_is_floored():
    obs = np.zeros((5, 2), np.float32)
    obs[:, 1] = [0, 10, 0, 10, 0]
    statistics = input_statistics(obs)
    assert statistics["scale"][0] == np.float32(SCALE_FLOOR)
    assert statistics["scale"][1] == pytest.approx(obs[:, 1].std())


def test_cloning_refuses_bad_numbers(build):
    model = build("sac", config={"bc_steps": 0})
    with pytest.raises(NonFiniteError, match="step 0"):
        clone(model.policy, np.full((4, 4), np.nan, np.float32), np.zeros((4, 2), "f"), steps=3)


def test_log_density_matches_the_transformed_normal(build, demos):
    model = build("sac", config={"bc_std": 0.5})
    obs = torch.from_numpy(demos.obs)
    torch.manual_seed(0)
    with torch.no_grad():
        action, log_prob = model.actor.sample(obs)
        mean, log_std, _ = model.actor.get_action_dist_params(obs)
    normal = torch.distributions.Normal(mean, log_std.exp())
    squash = torch.distributions.transforms.TanhTransform(cache_size=0)
    expected = torch.distributions.TransformedDistribution(normal, [squash])
    inside = (action.abs() < 0.99).all(dim=1)  # atanh of float32 loses precision beyond
    assert inside.any()
    torch.testing.assert_close(
        log_prob[inside], expected.log_prob(action).sum(1)[inside], atol=2e-3, rtol=1e-3
    )


def test_the_ensemble_equals_separate_networks(build, demos):
    critic = build("sac").critic
    obs, action = torch.from_numpy(demos.obs), torch.from_numpy(demos.action)
    features = torch.cat([critic.features_extractor(obs), action], dim=1)
    for k, value in enumerate(critic(obs, action)):
        x = features
        for i, layer in enumerate(critic.layers):
            plain = nn.Linear(*layer.weight.shape[1:])
            plain.weight.data, plain.bias.data = layer.weight[k].T, layer.bias[k, 0]
            x = plain(x)
            if i < len(critic.layers) - 1:
                x = torch.relu(nn.functional.layer_norm(x, x.shape[-1:]))
        torch.testing.assert_close(value, x)


def test_a_cloned_actor_waits_while_the_critic_learns(build):
    model = build("sac", config={"actor_starts": 40})
    actor, critic = parameters(model.actor), parameters(model.critic)
    model.learn(40)
    assert same(actor, model.actor)
    assert not same(critic, model.critic)
    model.learn(10, reset_num_timesteps=False)
    assert not same(actor, model.actor)


def test_ppo_freezes_its_actor_too(make_learner, demos, small_ppo):
    import dataclasses

    config = dataclasses.replace(small_ppo, actor_starts=32)
    model = build_ppo(config, make_learner(), demos=demos, seed=0)
    actor, critic = parameters(model.policy.action_net), parameters(model.policy.value_net)
    model.learn(32)
    assert same(actor, model.policy.action_net)
    assert not same(critic, model.policy.value_net)
    model.learn(32, reset_num_timesteps=False)
    assert not same(actor, model.policy.action_net)


def test_a_bad_reward_stops_the_update_and_changes_nothing(build):
    model = build("sac", relabel=lambda base, phi, after, ended: base + np.nan)
    before = parameters(model.policy)
    with pytest.raises(NonFiniteError, match="critic.*decision 11"):
        model.learn(50)
    assert same(before, model.policy)


def test_ppo_refuses_bad_advantages(build):
    model = build("ppo")
    before = parameters(model.policy)
    model.learn(0)
    model.rollout_buffer.reset()
    model.rollout_buffer.advantages[3] = np.inf
    with pytest.raises(NonFiniteError, match="advantages"):
        model.train()
    assert same(before, model.policy)


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sac_improves_a_spoiled_clone(count, make_learner, demos, small_sac, reach):
    config = small_sac(bc_steps=8, actor_starts=50, bc_weight=0.5)
    model = build_sac(config, make_learner(count), demos=demos, relabel=relabel, seed=0)
    env = reach()
    spec = spec_of(config, (env.observation_space, env.action_space), {})
    policy = Policy(model.policy, spec)
    before = evaluate(policy, env, episodes=20, seed=50)
    model.learn(900 * count)
    after = evaluate(policy, env, episodes=20, seed=50)
    assert before.success_rate < 0.5
    assert after.success_rate > 0.8


@pytest.mark.parametrize(
    "change", [{"gamma": 0.0}, {"demo_fraction": 1.5}, {"net_arch": ()}, {"bc_std": 0.0}]
)
def test_values_that_cannot_be_used_are_refused(build, change):
    with pytest.raises(ConfigError, match="--policy." + next(iter(change))):
        build("sac", config=change)
