"""PPO at the ends of episodes and rollouts, against numbers worked out by hand."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.policies.config import PPOConfig
from embodied_reward.policies.ppo import build_ppo
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.frames import ProgressInInfo
from embodied_reward.shaping.vector import LearnedRewardVecEnv

GAMMA, LAM, KAPPA = 0.9, 0.8, 2.0
PHI = np.array([0.1, 0.5, 0.9, 0.3])  # potential of states 0, 1, 2, and 3, another first state
VALUE = np.array([0.7, -0.4, 1.1, 5.0])  # what the critic believes of them
REWARD = np.array([0.25, 0.5])  # of the two decisions of an episode


class Two(gym.Env):
    """0 -> 1 -> 2 and the episode is over; later ones may begin in another state."""

    observation_space = gym.spaces.Box(-1, 9, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, terminates=False, later=0):
        self.terminates, self.later, self.episodes = terminates, later, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = (self.later if self.episodes else 0), 0
        self.episodes += 1
        return self._obs(), {}

    def step(self, action):
        reward = float(REWARD[self.t])
        self.t += 1
        self.x = self.t
        over = self.t == 2
        return self._obs(), reward, over and self.terminates, over, {"is_success": False}

    def progress(self):
        return float(PHI[self.x])

    def _obs(self):
        return np.array([self.x], np.float32)


def table(values):
    """A critic that looks the state up."""
    known = torch.as_tensor(values, dtype=torch.float32)
    return lambda obs: known[obs[:, 0].long()][:, None]


def learner(env, critic, mode="oracle", steps=8, **changes):
    vector = DummyVecEnv([lambda: ProgressInInfo(env)])
    shaped = LearnedRewardVecEnv(vector, mode_named(mode), gamma=GAMMA, kappa=KAPPA)
    fields = dict(n_steps=steps, batch_size=steps, n_epochs=1, net_arch=(8, 8), bc_steps=0)
    config = PPOConfig(gamma=GAMMA, gae_lambda=LAM, **{**fields, **changes})
    model = build_ppo(config, shaped, seed=0)
    act = model.policy.forward

    def forward(obs, deterministic=False):
        action, _, log_prob = act(obs, deterministic)
        return action, critic(obs), log_prob

    model.policy.forward, model.policy.predict_values = forward, critic
    _, callback = model._setup_learn(steps)
    model.collect_rollouts(shaped, callback, model.rollout_buffer, steps)
    return model


def by_hand(last_potential, last_value):
    """GAE of one episode; what follows its second decision is given."""
    paid = REWARD + KAPPA * (GAMMA * np.array([PHI[1], last_potential]) - PHI[:2])
    delta = paid + GAMMA * np.array([VALUE[1], last_value]) - VALUE[:2]
    return np.array([delta[0] + GAMMA * LAM * delta[1], delta[1]])


def advantages(env):
    return learner(env, table(VALUE)).rollout_buffer.advantages[:, 0]


def test_a_truncated_episode_bootstraps_from_the_real_last_state_with_its_own_potential():
    found = advantages(Two())
    np.testing.assert_allclose(found.reshape(4, 2), [by_hand(PHI[2], VALUE[2])] * 4, atol=1e-6)


def test_a_terminated_episode_bootstraps_from_nothing_and_loses_its_potential():
    found = advantages(Two(terminates=True))
    np.testing.assert_allclose(found.reshape(4, 2), [by_hand(0, 0)] * 4, atol=1e-6)


@pytest.mark.parametrize(
    ("potential", "value"),
    [
        (PHI[0], VALUE[0]),
        (PHI[2], VALUE[0]),
        (PHI[0], VALUE[2]),
        (0, VALUE[2]),
        (PHI[2], 0),
        (0, 0),
    ],
)
def test_every_wrong_end_would_give_another_number(potential, value):
    """Of the next episode's first state, masked, or cut off: in potential, value or both."""
    wrong, right = by_hand(potential, value), by_hand(PHI[2], VALUE[2])
    assert np.abs(wrong - right).min() > 0.1


def test_the_next_episodes_first_state_does_not_matter_to_the_one_before():
    """F.11.7 with an environment that resets itself: state 3 has another value and potential."""
    usual, other = (advantages(Two(later=later))[:2] for later in (0, 3))
    np.testing.assert_array_equal(usual, other)
    with_it = [advantages(Two(later=later))[2] for later in (0, 3)]
    assert abs(with_it[0] - with_it[1]) > 1  # it matters to its own episode


def test_a_rollout_that_is_cut_in_an_episode_goes_on_with_the_state_it_reached():
    found = learner(Two(), table(VALUE), steps=3).rollout_buffer.advantages[:, 0]
    paid = REWARD[0] + KAPPA * (GAMMA * PHI[1] - PHI[0])
    assert found[2] == pytest.approx(paid + GAMMA * VALUE[1] - VALUE[0], abs=1e-6)


class Walk(Two):
    """Right where the action is positive; four decisions, or until state 3 if that terminates."""

    phi = np.array([0.1, 0.7, 0.2, 0.9, 0.4])

    def step(self, action):
        self.t += 1
        self.x += int(action[0] > 0)
        won = self.x == 3
        return self._obs(), float(won), won and self.terminates, self.t == 4, {"is_success": won}

    def progress(self):
        return float(self.phi[self.x])


def actor_gradient(mode, values, terminates):
    model = learner(Walk(terminates), table(values), mode, steps=64)
    model.max_grad_norm = 1e9  # one norm over actor and critic would couple them
    model.train()
    actor = [*model.policy.mlp_extractor.policy_net.parameters(), model.policy.log_std]
    actor += model.policy.action_net.parameters()
    return torch.cat([p.grad.ravel() for p in actor])


@pytest.mark.parametrize("terminates", [False, True])
def test_shaping_with_an_exact_critic_leaves_the_first_update_of_the_actor_alone(terminates):
    """F.11.6: the critic of the shaped problem is V - kappa Phi; gradients agree to 1e-6."""
    values = np.array([0.7, -0.4, 1.1, 0.2, -1.5])
    plain = actor_gradient("success", values, terminates)
    shaped = actor_gradient("oracle", values - KAPPA * Walk.phi, terminates)
    assert plain.abs().max() > 1e-2
    torch.testing.assert_close(shaped, plain, atol=1e-6, rtol=0)
    assert (actor_gradient("oracle", values, terminates) - plain).abs().max() > 1e-3


def test_the_first_update_sees_the_probabilities_that_acted():
    """F.11.1: log-probabilities recomputed in the update are those of the rollout, ratio 1."""
    model = learner(Two(), table(VALUE), steps=64)
    batch = next(model.rollout_buffer.get(64))
    _, log_prob, _ = model.policy.evaluate_actions(batch.observations, batch.actions)
    assert (log_prob - batch.old_log_prob).abs().max() < 1e-5
    ratio = (log_prob - batch.old_log_prob).exp()
    assert ((ratio - 1) - ratio.log()).mean().abs() < 1e-6  # SB3's approximate KL
