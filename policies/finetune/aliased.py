"""`dsrl_na`: DSRL whose critic knows plans, and teaches a critic of noises.

Noise-aliased DSRL (Wagenmaker et al. 2025, arXiv:2506.15799). Many noises lead to one plan; a
critic of noises must learn each from rewards, one of plans sees that they are the same:

    Q_A(s, a)  <-  r + gamma min_k Q_A,k(s', plan(s', w')),   w' ~ actor(s')
    Q_W(s, w)  <-  Q_A(s, plan(s, w)),                        w ~ N(0, 1)
    actor      ->  max Q_W(s, w) + entropy

SB3's action is the plan, so what is replayed may come from any policy; only the actor and Q_W work
in noise. The diffusion policy stays frozen and no gradient passes through it.

Deviations: Q_W has as many members as Q_A and member k learns from member k; noises beyond the
actor's bound are cut to it.
"""

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from embodied_reward.types import Float32

from ..networks import EnsembleCritic, LayerNormSACPolicy
from ..sac import DemoSAC
from .steering import Base, spread


class AliasedPolicy(LayerNormSACPolicy):
    """An actor and a critic of noises beside the critic of plans; acts with plans.

    Args:
        noise_shape: (horizon, action size) of the noise that a plan is denoised from.
        noise_steps: different noise vectors along the horizon, each repeated; 0 for all.
        noise_bound: largest absolute noise.
        kwargs: see `LayerNormSACPolicy`.

    Attributes:
        base: the frozen diffusion policy. It is not part of the weights, so whoever builds or
            loads this policy sets it.
    """

    base: Base | None = None
    noise_critic: EnsembleCritic

    def __init__(
        self,
        *args: Any,
        noise_shape: tuple[int, int],
        noise_steps: int,
        noise_bound: float,
        **kwargs: Any,
    ) -> None:
        horizon, size = noise_shape
        self.noise_shape, self.noise_bound = (horizon, size), noise_bound
        self.noise_steps = noise_steps or horizon
        self.noise_space = spaces.Box(-1.0, 1.0, (self.noise_steps * size,))
        super().__init__(*args, **kwargs)

    def denoised(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return the plans [b n*a] that noises [b k] in units of the bound lead to."""
        assert self.base is not None, "set `base` to the diffusion policy"
        horizon, size = self.noise_shape
        rows = self.noise_bound * action.view(len(action), self.noise_steps, size)
        with torch.no_grad():
            return self.base.unit_plans(obs, spread(rows, horizon))

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """Return an actor that chooses noise."""
        self.actor_kwargs["action_space"] = self.noise_space
        return super().make_actor(features_extractor)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        kwargs = self._update_features_extractor(self.critic_kwargs, None)
        kwargs["action_space"] = self.noise_space
        critic = EnsembleCritic(**kwargs, layer_norm=self._layer_norm)
        self.noise_critic = critic.to(self.device)
        self.noise_critic.optimizer = self.optimizer_class(
            self.noise_critic.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        return self.denoised(observation, self.actor(observation, deterministic))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        names = ("noise_shape", "noise_steps", "noise_bound")
        return {**super()._get_constructor_parameters(), **{n: getattr(self, n) for n in names}}


class AliasedSAC(DemoSAC):
    """Until learning starts the base policy itself fills the buffer.

    Attributes:
        distill_steps: gradient steps of the critic of noises per decision.
    """

    policy: AliasedPolicy  # type: ignore[assignment]
    distill_steps = 1

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[Float32, Float32]:
        if self.num_timesteps >= learning_starts:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        # Torch's generator, because a resumed run gets that one back.
        noise = torch.randn((n_envs, *self.policy.noise_shape), device=self.device)
        obs = torch.as_tensor(self._last_obs, device=self.device)
        assert self.policy.base is not None
        with torch.no_grad():
            action = self.policy.base.unit_plans(obs, noise).cpu().numpy()
        return action, action

    @torch.no_grad()
    def _next(self, batches: list[ReplayBufferSamples]) -> tuple[Any, ...]:
        noises, bonus = super()._next(batches)
        if not batches:
            return noises, bonus
        # One call for all batches: denoising is what costs here.
        obs = torch.cat([batch.next_observations for batch in batches])
        plans = self.policy.denoised(obs, torch.cat(list(noises)))
        return plans.split(len(noises[0])), bonus

    def _guide(self) -> EnsembleCritic:
        return self.policy.noise_critic

    def _update_actor(self, batch: ReplayBufferSamples, weights: Tensor | None) -> None:
        self._distill(len(batch.observations))
        super()._update_actor(batch, weights)

    def _distill(self, size: int) -> None:
        """Teach the critic of noises what the critic of plans says of where they lead."""
        batches, _ = self.replay_buffer.sample_with_variants(self.distill_steps, size)
        obs = torch.cat([batch.observations for batch in batches])
        noise = torch.randn((len(obs), *(self.policy.noise_space.shape)), device=self.device)
        noise = (noise / self.policy.noise_bound).clamp(-1, 1)
        with torch.no_grad():
            target = self.critic.values(obs, self.policy.denoised(obs, noise))
        critic = self.policy.noise_critic
        loss = torch.zeros(())
        for s, w, t in zip(obs.split(size), noise.split(size), target.split(size, 1), strict=True):
            loss = 0.5 * (critic.values(s, w) - t).square().mean(dim=1).sum()
            self._descend(critic, critic.optimizer, loss, "critic of noises")
        self.logger.record("train/noise_critic_loss", loss.item())
