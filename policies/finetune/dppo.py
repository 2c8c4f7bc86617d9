"""DPPO: PPO over the denoising steps of a diffusion policy, on Stable-Baselines3's PPO.

Source: Ren et al. 2024, arXiv:2409.00588. An environment's decision holds K denoising steps; the
last K' of them learn, and all of them share the advantage of the decision:

    A_k = gamma_den^(K'-1-k) A,   L = max(-A_k r_k, -A_k clip(r_k, 1 - e_k, 1 + e_k)),

with r_k the ratio of step k's likelihoods and e_k rising exponentially from the noisiest to the
last. Advantages are SB3's: GAE over decisions with a critic that sees the observations alone, the
value of the real last observation at a truncation, nothing after a termination.

Deviations: advantages are normalised over a whole rollout; likelihoods are not clamped; where
K' < K the learner is held at the start on the steps that do not learn, because one network is
saved and acts on all of them; a divergence from the start can be charged (`kl_weight`).
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from embodied_reward.errors import ConfigError, NonFiniteError

from ..config import PPOConfig
from ..diffusion.actor import DiffusionActor
from ..guard import refuse_rescaled_rewards
from ..ppo import ClonedPPO
from .chain import Chain
from .config import DPPOConfig, TuningConfig
from .tuned import ChainBuffer, DenoisingPolicy

CHUNK = 512  # chains whose likelihoods are worked out together


class Rollout(NamedTuple):
    """n decisions, as the update sees them.

    Attributes:
        obs: [n o].
        chains: [n K+1 h a].
        logs: [n K'], log-likelihoods when the update began.
        starts: [n K h a], means of the start; empty where nothing asks for them.
        advantages: [n], normalised.
        returns: [n], the critic's targets.
    """

    obs: Tensor
    chains: Tensor
    logs: Tensor
    starts: Tensor
    advantages: Tensor
    returns: Tensor


class ChainPPO(ClonedPPO):
    """PPO whose ratio is that of single denoising steps.

    `actor_starts` decisions pass before the network learns, so that the critic can catch up.

    Args:
        method: see `DPPOConfig`.
        pairs: of a decision and a step, per minibatch.
        kwargs: see `ClonedPPO`.
    """

    policy: DenoisingPolicy  # type: ignore[assignment]

    def __init__(self, *args: Any, method: DPPOConfig, pairs: int, **kwargs: Any) -> None:
        self.method, self.pairs = method, pairs
        super().__init__(*args, **kwargs)

    def train(self) -> None:
        """Update once; raises NonFiniteError, with nothing more changed, on a bad number."""
        self._refuse_bad_numbers()
        rollout, logs = self._rollout(), []
        for _ in range(self.n_epochs):
            logs += self._epoch(rollout)
            if self.target_kl is not None and logs[-1]["train/approx_kl"] > 1.5 * self.target_kl:
                break
        self._n_updates += self.n_epochs
        for key in logs[0]:
            self.logger.record(key, float(np.mean([row[key] for row in logs])))
        values, returns = self.rollout_buffer.values, self.rollout_buffer.returns
        spread = np.var(returns)
        explained = 1 - np.var(returns - values) / spread if spread > 0 else math.nan
        self.logger.record("train/explained_variance", float(explained))

    def _epoch(self, rollout: Rollout) -> list[dict[str, float]]:
        """Pass over all pairs of a decision and a step that learns; stops early at `target_kl`."""
        tuned, logs = self.policy.tuned, []
        every = torch.randperm(len(rollout.obs) * tuned)
        for rows in every.split(self.pairs):
            logs.append(self._update(rollout, rows // tuned, rows % tuned))
            if self.target_kl is not None and logs[-1]["train/approx_kl"] > 1.5 * self.target_kl:
                break
        return logs

    def _update(self, rollout: Rollout, rows: Tensor, k: Tensor) -> dict[str, float]:
        policy = self.policy
        obs, step = rollout.obs[rows], policy.frozen + k
        mean = self._mean(rollout, rows, step)
        new = policy.chain.log_prob(mean, rollout.chains[rows, step + 1], step)
        change = new - rollout.logs[rows, k]
        loss, logs = self._clipped(change, rollout.advantages[rows], k)
        value_loss = nn.functional.mse_loss(
            policy.predict_values(obs).flatten(), rollout.returns[rows]
        )
        anchor = self._anchor(rollout, rows, step, mean)
        learns = self.num_timesteps > self.actor_starts
        total = value_loss * self.vf_coef + (loss + anchor if learns else 0.0)
        self._descend(total)
        with torch.no_grad():
            logs["train/approx_kl"] = float((change.exp() - 1 - change).mean()) if learns else 0.0
        logs |= {"train/value_loss": value_loss.item(), "train/anchor_loss": anchor.item()}
        return logs

    def _clipped(
        self, change: Tensor, advantages: Tensor, k: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """Return PPO's loss of a change of log-likelihood [b], and what is logged."""
        last = self.policy.tuned - 1
        advantages = advantages * self.method.denoising_gamma ** (last - k)
        schedule = self.clip_range
        assert callable(schedule)
        clip = clip_ranges(self.policy.tuned, self.method.clip_first, schedule(1.0))[k]
        ratio = change.exp()
        clipped = torch.minimum(torch.maximum(ratio, 1 - clip), 1 + clip)
        loss = torch.maximum(-advantages * ratio, -advantages * clipped).mean()
        share = float(((ratio - 1).abs() > clip).float().mean())
        return loss, {"train/policy_gradient_loss": loss.item(), "train/clip_fraction": share}

    def _mean(self, rollout: Rollout, rows: Tensor, step: Tensor) -> Tensor:
        policy = self.policy
        condition = policy.condition(rollout.obs[rows])
        return policy.chain.mean(
            policy.learner.diffusion.unet, rollout.chains[rows, step], step, condition
        )

    def _anchor(self, rollout: Rollout, rows: Tensor, step: Tensor, mean: Tensor) -> Tensor:
        """Return what the distance from the start costs: as asked where steps learn, else fully."""
        chain, frozen, cost = self.policy.chain, self.policy.frozen, torch.zeros(())
        if self.method.kl_weight:
            apart = chain.divergence(mean, rollout.starts[rows, step], step)
            cost = cost + self.method.kl_weight * apart.mean()
        if frozen:
            early = step % frozen
            held = self._mean(rollout, rows, early)
            cost = cost + chain.divergence(held, rollout.starts[rows, early], early).mean()
        return cost

    def _descend(self, loss: Tensor) -> None:
        """Take a gradient step. Raises NonFiniteError before anything is changed."""
        self.policy.optimizer.zero_grad()
        loss.backward()
        groups = (self.policy.learner, self.policy.critic)
        # Apart, because the critic's gradient would shrink the network's.
        norms = [nn.utils.clip_grad_norm_(g.parameters(), self.max_grad_norm) for g in groups]
        if not all(torch.isfinite(x) for x in (loss, *norms)):
            raise NonFiniteError(
                f"the update at decision {self.num_timesteps} has loss {loss.item()} and gradient "
                f"norms {[n.item() for n in norms]}; it was not made"
            )
        self.policy.optimizer.step()

    @torch.no_grad()
    def _rollout(self) -> Rollout:
        policy, buffer = self.policy, self.rollout_buffer
        batch = next(buffer.get())
        n, shape = len(batch.observations), policy.actor.noise_shape
        chains = batch.actions.view(n, policy.chain.steps + 1, *shape)
        parts = list(zip(chains.split(CHUNK), batch.observations.split(CHUNK), strict=True))
        logs = torch.cat([policy.log_probs(c, o) for c, o in parts])
        every = torch.arange(policy.chain.steps)
        anchored = bool(self.method.kl_weight or policy.frozen)
        asked = parts if anchored else []
        starts = [policy.means(policy.start, c, o, every) for c, o in asked]
        advantages = batch.advantages
        if n > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        empty = torch.zeros(0, device=logs.device)
        return Rollout(
            batch.observations,
            chains,
            logs,
            torch.cat(starts) if starts else empty,
            advantages,
            batch.returns,
        )


def clip_ranges(steps: int, first: float, last: float) -> Tensor:
    """Return e_k [k] = e0 + (e1 - e0) (exp(3 k / (K'-1)) - 1) / (e^3 - 1), noisiest step first."""
    share = torch.arange(steps) / max(1, steps - 1)
    share = share if steps > 1 else torch.ones(1)
    return first + (last - first) * (torch.exp(3 * share) - 1) / (math.e**3 - 1)


def build_dppo(
    method: DPPOConfig, rl: PPOConfig, actor: DiffusionActor, env: VecEnv, *, seed: int = 0
) -> ChainPPO:
    """Build the learner.

    Args:
        method: see `DPPOConfig`.
        rl: its agent, the discount worked out.
        actor: the diffusion policy to begin with.
        env: of `PlanEnv`s that carry plans out, usually inside a `LearnedRewardVecEnv`.
        seed: of everything the learner draws.

    Raises:
        ConfigError: more steps shall learn than the policy denoises.
    """
    rl.check()
    refuse_rescaled_rewards(env)
    chain = Chain(actor.model, eta=method.eta, min_std=method.min_std)
    tuned = method.denoising_steps or chain.steps
    if tuned > chain.steps:
        raise ConfigError(
            f"--finetune.denoising_steps={tuned} is more than the policy's "
            f"num_inference_steps of {chain.steps}"
        )
    return ChainPPO(
        DenoisingPolicy,
        env,
        method=method,
        learning_rate=rl.learning_rate,
        n_steps=rl.n_steps,
        batch_size=rl.n_steps * env.num_envs,  # SB3's own minibatches are not drawn
        pairs=rl.batch_size,
        n_epochs=rl.n_epochs,
        gamma=rl.gamma,
        gae_lambda=rl.gae_lambda,
        clip_range=rl.clip_range,
        target_kl=rl.target_kl,
        max_grad_norm=method.max_grad_norm,
        rollout_buffer_class=ChainBuffer,
        rollout_buffer_kwargs={"length": (chain.steps + 1) * int(np.prod(actor.noise_shape))},
        policy_kwargs=policy_kwargs(method, rl, actor, chain, tuned),
        actor_starts=rl.actor_starts,
        seed=seed,
        device=rl.device,
    )


def policy_kwargs(
    method: TuningConfig, rl: PPOConfig, actor: DiffusionActor, chain: Chain, tuned: int
) -> dict[str, Any]:
    """Return the arguments of `DenoisingPolicy`."""
    return {
        "actor": actor,
        "chain": chain,
        "tuned": tuned,
        "net_arch": tuple(rl.net_arch),
        "critic_learning_rate": method.critic_learning_rate,
    }
