"""Learners of the toy with two modes, for tests of methods that change a policy's weights."""

import dataclasses

import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.policies.finetune.config import ChainConfig
from embodied_reward.policies.finetune.env import PlanEnv
from embodied_reward.policies.finetune.learners import build_tuned
from embodied_reward.policies.finetune.steering import steering_of
from tests.policies.two_modes import OneStep, actions_of

COLLECTED = {"n_steps": 16, "batch_size": 1024, "n_epochs": 10, "learning_rate": 1e-3,
             "actor_starts": 0, "net_arch": (16,)}  # fmt: skip


def learner(kind, actor, good=lambda a: a > 0, count=16, seed=0, rl=None, windows=None, **changes):
    """Build the learner of a configuration's class on `count` one-step environments."""
    torch.manual_seed(seed)
    noise = {"min_std": 0.2} if issubclass(kind, ChainConfig) else {}
    method = kind(**{**noise, **changes})
    agent = dataclasses.replace(method.rl, **{**COLLECTED, **(rl or {})})
    method = dataclasses.replace(method, rl=agent)
    makers = [
        lambda i=i: PlanEnv(OneStep(good), steering_of(method, actor), i) for i in range(count)
    ]
    return build_tuned(
        method, agent.plain(), actor, DummyVecEnv(makers), seed=seed, windows=windows
    )


def right(model, count=2000):
    """Return the share of the saved policy's plans with a > 0."""
    return float((actions_of(model.policy.tuned_actor(), count) > 0).mean())


def collected(model):
    """Return the model after one rollout, before any update."""
    _, callback = model._setup_learn(model.n_steps)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model


def weights(module):
    """Return all parameters as one vector."""
    return torch.cat([p.detach().ravel().clone() for p in module.parameters()])
