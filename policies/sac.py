"""Soft actor-critic that learns from few decisions, on Stable-Baselines3's interfaces.

Where it leaves SB3's SAC (Haarnoja et al. 2018), and why:

- LayerNorm ensembles, demonstrations in half of every batch, several critic updates per
  decision and no entropy in the target: RLPD (Ball et al. 2023) and HIL-SERL.
- A cloned actor is frozen for `actor_starts` decisions while the critic learns its value:
  a fresh critic's gradient would destroy it in a few hundred steps.
- Own episodes that succeeded may join the demonstrations (`replay_successes`), and a running
  average of the actor's weights may act where nothing is explored (`ema_decay`).
- n-step returns (`n_steps`) come from the buffer, with SB3's own discount column.
- A cloning term on the demonstrations of the batch keeps the actor near them.
- With `sample_weights` the losses of critic, actor and cloning term are weighed per transition
  (SGFD, StableNet: `training/decorrelation.py`); the entropy coefficient's and the cloning before
  RL are not.
- A non-finite loss or gradient raises before any parameter changes.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.training.decorrelation import BatchWeights

from .actors import SquashedActor
from .bc import LARGEST_TARGET, clone
from .config import SACConfig
from .demos import Transitions
from .guard import refuse_rescaled_rewards
from .networks import EnsembleCritic, LayerNormSACPolicy, input_statistics
from .replay import DemoReplayBuffer, Relabel
from .replay_rows import Trajectory

MAX_GRADIENT = 10.0


class DemoSAC(SAC):
    """SAC with the changes of the module docstring; `build_sac` makes one from a config.

    Args:
        actor_starts: decisions before the actor and the entropy coefficient are updated.
        warm_start: act with the policy from the first decision (it was cloned).
        backup_entropy: entropy bonus in the critic's target, as in the SAC paper.
        target_critics: random critics whose minimum is an update's target; 0 takes all.
        bc_weight: weight of the cloning term.
        bc_decay_steps: decisions until that weight reaches zero; 0 keeps it.
        ema_decay: of the actor's running average, where its policy keeps one.
        sample_weights: gives the transitions of all updates of a decision their weights, from the
            critic's features; None weighs all alike.
        kwargs: see SB3's `SAC`.
    """

    replay_buffer: DemoReplayBuffer  # type: ignore[assignment]
    policy: LayerNormSACPolicy
    actor: SquashedActor
    critic: EnsembleCritic  # type: ignore[assignment]
    critic_target: EnsembleCritic  # type: ignore[assignment]

    def __init__(
        self,
        *args: Any,
        actor_starts: int = 0,
        warm_start: bool = False,
        backup_entropy: bool = True,
        target_critics: int = 0,
        bc_weight: float = 0.0,
        bc_decay_steps: int = 0,
        ema_decay: float = 0.0,
        sample_weights: BatchWeights | None = None,
        **kwargs: Any,
    ) -> None:
        self.sample_weights = sample_weights
        self.actor_starts, self.warm_start = actor_starts, warm_start
        self.backup_entropy, self.target_critics = backup_entropy, target_critics
        self.bc_weight, self.bc_decay_steps = bc_weight, bc_decay_steps
        self.ema_decay = ema_decay
        super().__init__(*args, **kwargs)

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        # SB3 would act at random until learning starts; a cloned policy is the better explorer.
        return super()._sample_action(0 if self.warm_start else learning_starts, None, n_envs)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Update the critics `gradient_steps` times and then the actor once."""
        self.policy.set_training_mode(True)
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])
        batches, variants = self.replay_buffer.sample_with_variants(gradient_steps, batch_size)
        drawn = (*self._next(batches), self._weights(batches, variants))
        losses = [self._update_critic(*given) for given in zip(batches, *drawn, strict=True)]
        self._n_updates += len(losses)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if not batches:
            return
        loss, value = losses[-1]
        self.logger.record("train/critic_loss", loss.item())
        self.logger.record("train/q_mean", value.item())
        if self.num_timesteps > self.actor_starts:
            self._update_actor(batches[-1], drawn[-1][-1])

    @torch.no_grad()
    def _next(self, batches: list[ReplayBufferSamples]) -> tuple[Sequence[Tensor], ...]:
        """Draw all batches' next actions and their entropy bonus: the actor stands still."""
        if not batches:
            return (), ()
        obs = torch.cat([batch.next_observations for batch in batches])
        action, log_prob = self.actor.sample(obs)
        bonus = -self._alpha() * log_prob if self.backup_entropy else torch.zeros_like(log_prob)
        size = len(batches[0].next_observations)
        return action.split(size), bonus.split(size)

    def _weights(
        self, batches: list[ReplayBufferSamples], variants: np.ndarray
    ) -> Sequence[Tensor | None]:
        """Return the weights Tensor["b"] of every batch's rows, from all of them together."""
        if self.sample_weights is None or not batches:
            return [None] * len(batches)
        with torch.no_grad():
            obs = torch.cat([batch.observations for batch in batches])
            features = self.critic.extract_features(obs, self.critic.features_extractor)
        weights = self.sample_weights(features, torch.from_numpy(variants))
        for name, value in self.sample_weights.logs.items():
            self.logger.record(f"train/decorrelation_{name}", value)
        return weights.split(len(batches[0].observations))

    def exchange_potential(
        self, own: Trajectory, version: str, demo: Trajectory | None = None
    ) -> float:
        """Exchange the potential behind the replayed rewards; see `DemoReplayBuffer.exchange`.

        The environment must pay the same version from the next decision on
        (`LearnedRewardVecEnv.exchange`). Targets jump by up to the returned max |Delta|, logged
        as `reward/potential_jump`: exchange often and by little rather than seldom and by much.
        """
        jump = self.replay_buffer.exchange(own, version, demo)
        self.logger.record("reward/potential_jump", jump)
        return jump

    def _update_critic(
        self, batch: ReplayBufferSamples, action: Tensor, bonus: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            discount = self.gamma if batch.discounts is None else batch.discounts[:, 0]
            future = self._future(batch, action, bonus)
            target = batch.rewards[:, 0] + (1 - batch.dones[:, 0]) * discount * future
        predicted = self.critic.values(batch.observations, batch.actions)
        loss = 0.5 * _weighed((predicted - target).square(), weights).mean(dim=1).sum()
        self._descend(self.critic, self.critic.optimizer, loss, "critic")
        self._update_target()
        return loss.detach(), predicted.detach().mean()

    def _future(self, batch: ReplayBufferSamples, action: Tensor, bonus: Tensor) -> Tensor:
        """Return the target critics' value [b] of the next states."""
        value = self.critic_target.values(batch.next_observations, action, self._subset())
        return value.amin(dim=0) + bonus

    def _subset(self) -> Tensor | None:
        """Draw the critics whose minimum is the target, anew for every update; None for all."""
        n, count = self.critic.n_critics, self.target_critics
        return torch.randperm(n, device=self.device)[:count] if 0 < count < n else None

    def _update_actor(self, batch: ReplayBufferSamples, weights: Tensor | None) -> None:
        obs, alpha = batch.observations, self._alpha()
        action, log_prob = self.actor.sample(obs)
        critic = self._guide()
        critic.requires_grad_(False)
        values = critic.values(obs, action)
        # With random subsets the actor climbs the ensemble's mean, as in REDQ.
        value = values.amin(dim=0) if self._subset() is None else values.mean(dim=0)
        loss = _weighed(alpha * log_prob - value, weights).mean()
        loss = loss + self._cloning_term(batch, weights)
        self._descend(self.actor, self.actor.optimizer, loss, "actor")
        self.actor.follow(self.ema_decay)
        critic.requires_grad_(True)
        entropy = -log_prob.detach().mean()
        self._update_alpha(entropy)
        self.logger.record("train/actor_loss", loss.item())
        self.logger.record("train/entropy", entropy.item())
        self.logger.record("train/ent_coef", float(alpha))

    def _guide(self) -> EnsembleCritic:
        """Return the critic that the actor climbs."""
        return self.critic

    def _cloning_term(self, batch: ReplayBufferSamples, weights: Tensor | None) -> Tensor | float:
        n, weight = self.replay_buffer.demo_rows(len(batch.actions)), self._cloning_weight()
        if n == 0 or weight == 0:
            return 0.0
        mean = self.actor.aim(batch.observations[:n])
        target = batch.actions[:n].clamp(-LARGEST_TARGET, LARGEST_TARGET)
        if weights is None:
            return weight * F.mse_loss(mean, target)
        return weight * _weighed((mean - target).square().mean(dim=1), weights[:n]).mean()

    def _cloning_weight(self) -> float:
        if self.bc_decay_steps <= 0:
            return self.bc_weight
        gone = (self.num_timesteps - self.actor_starts) / self.bc_decay_steps
        return self.bc_weight * max(0.0, 1.0 - gone)

    def _alpha(self) -> Tensor:
        if self.log_ent_coef is None:
            return self.ent_coef_tensor
        return self.log_ent_coef.detach().exp()

    def _update_alpha(self, entropy: Tensor) -> None:
        if self.log_ent_coef is None or self.ent_coef_optimizer is None:
            return
        loss = (self.log_ent_coef * (entropy - float(self.target_entropy))).mean()
        self.ent_coef_optimizer.zero_grad()
        loss.backward()
        self.ent_coef_optimizer.step()

    @torch.no_grad()
    def _update_target(self) -> None:
        theirs: list[Tensor] = list(self.critic_target.parameters())
        ours: list[Tensor] = list(self.critic.parameters())
        get_ema_multi_avg_fn(1 - self.tau)(theirs, ours, 0)

    def _descend(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, name: str
    ) -> None:
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), MAX_GRADIENT, foreach=True)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise NonFiniteError(
                f"the {name}'s loss is {loss.item()} (gradient norm {norm.item()}) at decision "
                f"{self.num_timesteps}; its parameters were not changed"
            )
        optimizer.step()


def _weighed(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Multiply losses Tensor["... b"] by the weights of their rows, where there are any."""
    return losses if weights is None else losses * weights


def build_sac(
    config: SACConfig,
    env: VecEnv,
    *,
    demos: Transitions | None = None,
    replay_demos: bool = True,
    relabel: Relabel | None = None,
    seed: int = 0,
    cloning: bool = True,
    algorithm: type[DemoSAC] = DemoSAC,
    network: tuple[type[LayerNormSACPolicy], dict[str, Any]] = (LayerNormSACPolicy, {}),
    sample_weights: BatchWeights | None = None,
) -> DemoSAC:
    """Build SAC on a vector environment with a flat observation and actions in [-1, 1].

    Args:
        config: see `SACConfig`.
        env: usually a `LearnedRewardVecEnv`.
        demos: for cloning, input statistics and replay.
        replay_demos: False where the demonstrations' base reward is unknown.
        relabel: base reward and potentials -> reward, applied when a batch is drawn.
        seed: of everything the learner draws.
        cloning: False skips behaviour cloning (parameters will be restored).
        algorithm: the class, where a method explores in its own way.
        network: the policy's class and what it takes beyond `policy_kwargs`.
        sample_weights: see `DemoSAC`.
    """
    config.check()
    refuse_rescaled_rewards(env)
    _check_demos(config, demos, replay_demos)
    warm = demos is not None and config.bc_steps > 0
    model = algorithm(
        network[0],
        env,
        learning_rate=config.learning_rate,
        buffer_size=config.buffer_size,
        learning_starts=config.learning_starts,
        batch_size=config.batch_size,
        tau=config.tau,
        gamma=config.gamma,
        gradient_steps=config.gradient_steps,
        ent_coef=config.ent_coef,
        target_entropy=_target_entropy(config, env),
        replay_buffer_class=DemoReplayBuffer,
        replay_buffer_kwargs=_replay_kwargs(config, demos if replay_demos else None, relabel, seed),
        policy_kwargs={**policy_kwargs(config, demos), **network[1]},
        actor_starts=config.actor_starts if warm else 0,
        warm_start=warm,
        backup_entropy=config.backup_entropy,
        target_critics=config.target_critics,
        bc_weight=config.bc_weight if replay_demos else 0.0,
        bc_decay_steps=config.bc_decay_steps,
        ema_decay=config.ema_decay,
        sample_weights=sample_weights,
        seed=seed,
        device=config.device,
    )
    if warm and cloning:
        assert demos is not None
        _warm_start(model, config, demos, seed)
    return model


def _check_demos(config: SACConfig, demos: Transitions | None, replay_demos: bool) -> None:
    if config.residual_bound and demos is None:
        raise ConfigError(
            "--policy.residual_bound corrects a cloned policy: give demonstrations to clone "
            "(--dataset.root=DEMOS)"
        )
    if config.replay_successes and not replay_demos:
        raise ConfigError(
            "--policy.replay_successes=true knows success by the reward, and this --reward.mode "
            "pays the environment's own dense one: leave one of them out"
        )


def _target_entropy(config: SACConfig, env: VecEnv) -> float:
    size = math.prod(env.action_space.shape or (1,))
    return -size / 2 if config.target_entropy is None else config.target_entropy


def _replay_kwargs(
    config: SACConfig, demos: Transitions | None, relabel: Relabel | None, seed: int
) -> dict[str, Any]:
    return {
        "demos": demos,
        "demo_fraction": config.demo_fraction,
        "relabel": relabel,
        "n_steps": config.n_steps,
        "gamma": config.gamma,
        "replay_successes": config.replay_successes,
        "seed": seed,
    }


def _warm_start(model: DemoSAC, config: SACConfig, demos: Transitions, seed: int) -> None:
    clone(
        model.policy,
        demos.obs,
        demos.action,
        steps=config.bc_steps,
        learning_rate=config.bc_learning_rate,
        std=config.bc_std,
        seed=seed,
    )


def policy_kwargs(config: SACConfig, demos: Transitions | None = None) -> dict[str, Any]:
    """Return the arguments of `LayerNormSACPolicy`; inputs are standardised by the demos."""
    return {
        "net_arch": list(config.net_arch),
        "n_critics": config.n_critics,
        "layer_norm": config.layer_norm,
        "residual_bound": config.residual_bound,
        "averaged": config.ema_decay > 0,
        "features_extractor_kwargs": {} if demos is None else input_statistics(demos.obs),
        "optimizer_kwargs": {"fused": config.device == "cpu"},
    }
