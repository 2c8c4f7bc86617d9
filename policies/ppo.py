"""Proximal policy optimisation with a cloned start, on Stable-Baselines3's PPO.

SB3 already bootstraps truncated episodes from the real final observation; the reward comes
shaped from the vector environment. Added here: standardised inputs, cloning, an actor that
waits for the critic, and a check that refuses non-finite advantages before any update.
"""

import math
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from embodied_reward.errors import ConfigError, NonFiniteError

from .bc import clone
from .config import PPOConfig
from .demos import Transitions
from .guard import refuse_rescaled_rewards
from .networks import StandardizedInput, input_statistics


class ClonedPPO(PPO):
    """PPO whose actor is frozen for `actor_starts` decisions, so that its critic can catch up.

    Args:
        actor_starts: decisions before the first update of the actor.
        kwargs: see SB3's `PPO`.
    """

    policy: ActorCriticPolicy

    def __init__(self, *args: Any, actor_starts: int = 0, **kwargs: Any) -> None:
        self.actor_starts = actor_starts
        self._versions: set[str] = set()
        super().__init__(*args, **kwargs)

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> bool:
        """Collect one rollout under one potential.

        Raises:
            ConfigError: the potential was exchanged meanwhile. The buffer holds shaped rewards,
                which cannot be told apart afterwards: exchange when a rollout begins.
        """
        self._versions.clear()
        going_on = super().collect_rollouts(*args, **kwargs)
        if len(self._versions) > 1:
            raise ConfigError(
                f"the potential changed within a rollout, whose rewards mix the versions "
                f"{sorted(self._versions)}; exchange it in a callback's _on_rollout_start"
            )
        return going_on

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: Any = None) -> None:
        # SB3 hands every step's infos to this one method.
        self._versions |= {info.get("potential_version", "") for info in infos}
        super()._update_info_buffer(infos, dones)

    def train(self) -> None:
        """Update once; raises NonFiniteError, with nothing changed, on a bad rollout."""
        self._refuse_bad_numbers()
        self._let_actor_learn(self.num_timesteps > self.actor_starts)
        super().train()

    def _refuse_bad_numbers(self) -> None:
        for name in ("advantages", "returns"):
            if not np.isfinite(getattr(self.rollout_buffer, name)).all():
                raise NonFiniteError(
                    f"the rollout's {name} are not finite at decision {self.num_timesteps}; "
                    "no parameter was changed"
                )

    def _let_actor_learn(self, learn: bool) -> None:
        for module in (self.policy.mlp_extractor.policy_net, self.policy.action_net):
            assert isinstance(module, nn.Module)
            module.requires_grad_(learn)
        self.policy.log_std.requires_grad_(learn)


def build_ppo(
    config: PPOConfig,
    env: VecEnv,
    *,
    demos: Transitions | None = None,
    seed: int = 0,
    cloning: bool = True,
) -> ClonedPPO:
    """Build PPO on a vector environment with a flat observation and actions in [-1, 1].

    Args:
        config: see `PPOConfig`.
        env: usually a `LearnedRewardVecEnv`.
        demos: for cloning and input statistics.
        seed: of everything the learner draws.
        cloning: False skips behaviour cloning (parameters will be restored).
    """
    config.check()
    refuse_rescaled_rewards(env)
    warm = demos is not None and config.bc_steps > 0
    model = ClonedPPO(
        ActorCriticPolicy,
        env,
        learning_rate=config.learning_rate,
        n_steps=config.n_steps,
        # A last minibatch of another size would be noisier than the rest.
        batch_size=math.gcd(config.batch_size, config.n_steps * env.num_envs),
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        ent_coef=config.ent_coef,
        target_kl=config.target_kl,
        policy_kwargs=policy_kwargs(config, demos),
        actor_starts=config.actor_starts if warm else 0,
        seed=seed,
        device=config.device,
    )
    if warm and cloning:
        assert demos is not None
        clone(
            model.policy,
            demos.obs,
            demos.action,
            steps=config.bc_steps,
            learning_rate=config.bc_learning_rate,
            std=config.bc_std,
            seed=seed,
        )
    return model


def policy_kwargs(config: PPOConfig, demos: Transitions | None = None) -> dict[str, Any]:
    """Return the arguments of SB3's `ActorCriticPolicy`."""
    return {
        "net_arch": list(config.net_arch),
        "features_extractor_class": StandardizedInput,
        "features_extractor_kwargs": {} if demos is None else input_statistics(demos.obs),
    }
