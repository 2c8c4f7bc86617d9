"""Soft actor-critic that learns from few decisions, on Stable-Baselines3's interfaces.

Where it leaves SB3's SAC (Haarnoja et al. 2018), and why:

- LayerNorm ensembles, demonstrations in half of every batch, several critic updates per
  decision and no entropy in the target: RLPD (Ball et al. 2023) and HIL-SERL.
- A cloned actor is frozen for `actor_starts` decisions while the critic learns its value:
  a fresh critic's gradient would destroy it in a few hundred steps.
- n-step returns (`n_steps`) come from the buffer, with SB3's own discount column.
- A cloning term on the demonstrations of the batch keeps the actor near them.
- With `sample_weights` the losses of critic, actor and cloning term are weighed per transition
  (SGFD, StableNet: `training/decorrelation.py`); the entropy coefficient's and the cloning before
  RL are not.
- A non-finite loss or gradient raises before any parameter changes.
"""

import math
from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_reward.errors import NonFiniteError
from embodied_reward.training.decorrelation import BatchWeights

from .bc import LARGEST_TARGET, clone
from .config import SACConfig
from .demos import Transitions
from .guard import refuse_rescaled_rewards
from .networks import EnsembleCritic, LayerNormSACPolicy, input_statistics
from .replay import DemoReplayBuffer, Relabel, Trajectory

_LOG_2PI_HALF = 0.5 * math.log(2 * math.pi)
MAX_GRADIENT = 10.0


class DemoSAC(SAC):
    """SAC with the changes of the module docstring; `build_sac` makes one from a config.

    Args:
        actor_starts: decisions before the actor and the entropy coefficient are updated.
        warm_start: act with the policy from the first decision (it was cloned).
        backup_entropy: entropy bonus in the critic's target, as in the SAC paper.
        bc_weight: weight of the cloning term.
        bc_decay_steps: decisions until that weight reaches zero; 0 keeps it.
        sample_weights: gives the transitions of all updates of a decision their weights, from the
            critic's features; None weighs all alike.
        kwargs: see SB3's `SAC`.
    """

    replay_buffer: DemoReplayBuffer  # type: ignore[assignment]
    critic: EnsembleCritic  # type: ignore[assignment]
    critic_target: EnsembleCritic  # type: ignore[assignment]

    def __init__(
        self,
        *args: Any,
        actor_starts: int = 0,
        warm_start: bool = False,
        backup_entropy: bool = True,
        bc_weight: float = 0.0,
        bc_decay_steps: int = 0,
        sample_weights: BatchWeights | None = None,
        **kwargs: Any,
    ) -> None:
        self.sample_weights = sample_weights
        self.actor_starts, self.warm_start = actor_starts, warm_start
        self.backup_entropy = backup_entropy
        self.bc_weight, self.bc_decay_steps = bc_weight, bc_decay_steps
        super().__init__(*args, **kwargs)

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        # SB3 would act at random until learning starts; a cloned policy is the better explorer.
        return super()._sample_action(0 if self.warm_start else learning_starts, None, n_envs)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Update the critics `gradient_steps` times and then the actor once."""
        self.policy.set_training_mode(True)
        optimizers = [self.actor.optimizer, self.critic.optimizer]
        self._update_learning_rate(optimizers)
        batch, weights, critic_loss, values = None, None, 0.0, 0.0
        for batch, weights in self._batches(gradient_steps, batch_size):
            critic_loss, values = self._update_critic(batch, weights)
            self._update_target()
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/critic_loss", critic_loss)
        self.logger.record("train/q_mean", values)
        if batch is not None and self.num_timesteps > self.actor_starts:
            self._update_actor(batch, weights)

    def _batches(
        self, count: int, batch_size: int
    ) -> list[tuple[ReplayBufferSamples, Tensor | None]]:
        """Draw the batches of one decision, and the weights Tensor["b"] of their rows."""
        drawn = [self.replay_buffer.sample_with_variants(batch_size) for _ in range(count)]
        batches = [batch for batch, _ in drawn]
        if self.sample_weights is None or not drawn:
            return [(batch, None) for batch in batches]
        with torch.no_grad():
            obs = torch.cat([batch.observations for batch in batches])
            features = self.critic.extract_features(obs, self.critic.features_extractor)
        variants = torch.from_numpy(np.concatenate([rows for _, rows in drawn]))
        weights = self.sample_weights(features, variants).split(batch_size)
        for name, value in self.sample_weights.logs.items():
            self.logger.record(f"train/decorrelation_{name}", value)
        return list(zip(batches, weights, strict=True))

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
        self, batch: ReplayBufferSamples, weights: Tensor | None = None
    ) -> tuple[float, float]:
        with torch.no_grad():
            action, log_prob = sample_action(self.actor, batch.next_observations)
            value = self.critic_target.values(batch.next_observations, action).amin(dim=0)
            if self.backup_entropy:
                value = value - self._alpha() * log_prob
            discount = self.gamma if batch.discounts is None else batch.discounts[:, 0]
            target = batch.rewards[:, 0] + (1 - batch.dones[:, 0]) * discount * value
        predicted = self.critic.values(batch.observations, batch.actions)
        loss = 0.5 * _weighed((predicted - target).square(), weights).mean(dim=1).sum()
        self._descend(self.critic, self.critic.optimizer, loss, "critic")
        return loss.item(), predicted.detach().mean().item()

    def _update_actor(self, batch: ReplayBufferSamples, weights: Tensor | None) -> None:
        obs, alpha = batch.observations, self._alpha()
        action, log_prob = sample_action(self.actor, obs)
        for p in self.critic.parameters():
            p.requires_grad_(False)
        value = self.critic.values(obs, action).amin(dim=0)
        loss = _weighed(alpha * log_prob - value, weights).mean()
        loss = loss + self._cloning_term(batch, weights)
        self._descend(self.actor, self.actor.optimizer, loss, "actor")
        for p in self.critic.parameters():
            p.requires_grad_(True)
        entropy = -log_prob.detach().mean()
        self._update_alpha(entropy)
        self.logger.record("train/actor_loss", loss.item())
        self.logger.record("train/entropy", entropy.item())
        self.logger.record("train/ent_coef", float(alpha))

    def _cloning_term(self, batch: ReplayBufferSamples, weights: Tensor | None) -> Tensor | float:
        n, weight = self.replay_buffer.demo_rows(len(batch.actions)), self._cloning_weight()
        if n == 0 or weight == 0:
            return 0.0
        mean = torch.tanh(self.actor.get_action_dist_params(batch.observations[:n])[0])
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
        pairs = zip(self.critic_target.parameters(), self.critic.parameters(), strict=True)
        for theirs, ours in pairs:
            theirs.lerp_(ours, self.tau)

    def _descend(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, name: str
    ) -> None:
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), MAX_GRADIENT)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise NonFiniteError(
                f"the {name}'s loss is {loss.item()} (gradient norm {norm.item()}) at decision "
                f"{self.num_timesteps}; its parameters were not changed"
            )
        optimizer.step()


def _weighed(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Multiply losses Tensor["... b"] by the weights of their rows, where there are any."""
    return losses if weights is None else losses * weights


def sample_action(actor: Any, obs: Tensor) -> tuple[Tensor, Tensor]:
    """Draw reparametrised actions [b a] in (-1, 1) and their log-density [b].

    The density of a = tanh(u) is that of u times 1 / (1 - tanh(u)^2), written as
    2 (log 2 - u - softplus(-2u)), which does not lose precision where tanh saturates.
    """
    mean, log_std, _ = actor.get_action_dist_params(obs)
    noise = torch.randn_like(mean)
    u = mean + log_std.exp() * noise
    log_normal = -0.5 * noise.square() - log_std - _LOG_2PI_HALF
    log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return torch.tanh(u), (log_normal - log_slope).sum(dim=1)


def build_sac(
    config: SACConfig,
    env: VecEnv,
    *,
    demos: Transitions | None = None,
    replay_demos: bool = True,
    relabel: Relabel | None = None,
    seed: int = 0,
    cloning: bool = True,
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
        sample_weights: see `DemoSAC`.
    """
    config.check()
    refuse_rescaled_rewards(env)
    warm = demos is not None and config.bc_steps > 0
    model = DemoSAC(
        LayerNormSACPolicy,
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
        replay_buffer_kwargs={
            "demos": demos if replay_demos else None,
            "demo_fraction": config.demo_fraction,
            "relabel": relabel,
            "n_steps": config.n_steps,
            "gamma": config.gamma,
            "seed": seed,
        },
        policy_kwargs=policy_kwargs(config, demos),
        actor_starts=config.actor_starts if warm else 0,
        warm_start=warm,
        backup_entropy=config.backup_entropy,
        bc_weight=config.bc_weight if replay_demos else 0.0,
        bc_decay_steps=config.bc_decay_steps,
        sample_weights=sample_weights,
        seed=seed,
        device=config.device,
    )
    if warm and cloning:
        assert demos is not None
        _warm_start(model, config, demos, seed)
    return model


def _target_entropy(config: SACConfig, env: VecEnv) -> float:
    size = math.prod(env.action_space.shape or (1,))
    return -size / 2 if config.target_entropy is None else config.target_entropy


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
        "features_extractor_kwargs": {} if demos is None else input_statistics(demos.obs),
        "optimizer_kwargs": {"fused": config.device == "cpu"},
    }
