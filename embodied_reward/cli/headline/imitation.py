"""Self-imitation: explore with the clone, keep what succeeded, clone again. No reward is needed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.policies import BasePolicy

from embodied_reward.cli.headline.config import HeadlineConfig
from embodied_reward.cli.policy_run import PolicyRun
from embodied_reward.policies.bc import clone
from embodied_reward.policies.config import SACConfig
from embodied_reward.policies.evaluate import Acts, evaluate
from embodied_reward.policies.sac import DemoSAC
from embodied_reward.training.run import Tracker
from embodied_reward.types import Float32


@dataclass(frozen=True)
class Rollout:
    """One episode: obs Float32["n o"], action Float32["n a"] in [-1, 1], and how it ended."""

    obs: Float32
    action: Float32
    success: bool


def imitate_itself(run: PolicyRun, config: HeadlineConfig, tracker: Tracker) -> Acts:
    """Spend `config.rollouts` episodes; returns the last policy.

    After every `config.imitate_every` of them the policy is cloned again, going on from its
    present weights, on the demonstration and all its own successes. The demonstration weighs as
    much as any other episode of its length. Logged under the names of `er train-policy`.
    """
    assert run.demos is not None
    assert isinstance(run.model, DemoSAC)
    rng, seed = np.random.default_rng(run.config.seed), run.config.seed
    kept = [Rollout(run.demos.obs, run.demos.action, success=True)]
    decisions = 0
    _evaluate(run, tracker, decisions, 0)
    obs: Any = run.env.reset()
    for number in range(1, config.rollouts + 1):
        noise = config.imitate_noise[(number - 1) % len(config.imitate_noise)]
        rollout, obs = _roll_out(run, obs, noise, rng)
        decisions += len(rollout.obs)
        ended = {"length": float(len(rollout.obs)), "true_success": float(rollout.success)}
        tracker.log(decisions, {f"episode/{name}": value for name, value in ended.items()})
        kept += [rollout] if rollout.success else []
        last = number == config.rollouts
        if number % config.imitate_every == 0 or last:
            _clone_again(run, kept, seed + number)
        if number % config.eval_every == 0 or last:
            _evaluate(run, tracker, decisions, number)
    return run.acting()


def _roll_out(
    run: PolicyRun, obs: Any, noise: float, rng: np.random.Generator
) -> tuple[Rollout, Any]:
    """Act from `obs` to the end; the vector environment has then begun the next episode."""
    policy: BasePolicy = run.model.policy
    seen, done = [], []
    while True:
        action, _ = policy.predict(obs, deterministic=True)
        action = np.clip(action + noise * rng.standard_normal(action.shape), -1, 1)
        seen.append(obs[0].copy())
        done.append(action[0].astype(np.float32))
        obs, _, ended, infos = run.env.step(action.astype(np.float32))
        if ended[0]:
            success = bool(infos[0]["is_success"])
            return Rollout(np.array(seen, np.float32), np.array(done), success), obs


def _clone_again(run: PolicyRun, kept: list[Rollout], seed: int) -> None:
    policy = run.policy
    assert isinstance(policy, SACConfig)
    clone(
        run.model.policy,  # type: ignore[arg-type]
        np.concatenate([r.obs for r in kept]),
        np.concatenate([r.action for r in kept]),
        steps=policy.bc_steps,
        learning_rate=policy.bc_learning_rate,
        std=policy.bc_std,
        seed=seed,
    )


def _evaluate(run: PolicyRun, tracker: Tracker, decisions: int, rollouts: int) -> None:
    eval_config = run.config.eval
    result = evaluate(
        run.acting(), run.eval_env, episodes=eval_config.n_episodes, seed=eval_config.seed
    )
    tracker.log(decisions, {**result.summary(), "eval/rollouts": rollouts})
