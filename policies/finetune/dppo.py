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
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from embodied_reward.errors import ConfigError

from ..config import PPOConfig
from ..diffusion.actor import DiffusionActor
from .chain import Chain
from .config import ChainConfig
from .rollout import Rollout, SelectiveBuffer
from .tuned import DenoisingPolicy
from .weights import WeightPPO, build_learner

CHUNK = 512  # chains whose likelihoods are worked out together


class ChainPPO(WeightPPO):
    """PPO whose ratio is that of single denoising steps.

    `actor_starts` decisions pass before the network learns, so that the critic can catch up.

    Args:
        method: see `DPPOConfig`; other methods over the chain bring their own.
        pairs: of a decision and a step, per minibatch.
        kwargs: see `WeightPPO`.
    """

    memory: SelectiveBuffer | None

    def __init__(self, *args: Any, method: ChainConfig, pairs: int, **kwargs: Any) -> None:
        super().__init__(*args, method=method, pairs=pairs, **kwargs)
        if method.replay_size:
            self.memory = SelectiveBuffer(
                method.replay_size, method.replay_age, method.replay_threshold
            )

    def train(self) -> None:
        """Update once; raises NonFiniteError, with nothing more changed, on a bad number."""
        self._refuse_bad_numbers()
        if self.memory is not None:
            self._learn_values()
        rollout, logs = self._rollout(), []
        # With a memory the critic has learned already, and there may be nothing else to do.
        idle = self.memory is not None and not (self._learns and len(rollout.obs))
        for _ in range(0 if idle else self.n_epochs):
            logs += self._epoch(rollout)
            if self._far(logs):
                break
        self._n_updates += self.n_epochs
        for key in logs[0] if logs else ():
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
            if self._far(logs):
                break
        return logs

    def _far(self, logs: list[dict[str, float]]) -> bool:
        """Return whether the newest update left the policy that acted too far behind."""
        limit = math.inf if self.target_kl is None else 1.5 * self.target_kl
        return bool(logs) and logs[-1]["train/approx_kl"] > limit

    def _update(self, rollout: Rollout, rows: Tensor, k: Tensor) -> dict[str, float]:
        policy = self.policy
        step = policy.frozen + k
        mean = self._mean(rollout, rows, step)
        drawn = rollout.chains[rows, step + 1]
        new = policy.chain.log_prob(self._acting(mean, rows, k), drawn, step)
        change = new - rollout.logs[rows, k]
        loss, logs = self._clipped(change, self._advantages(rollout, rows, k), k)
        value_loss = self._value_loss(rollout, rows)
        anchor = self._anchor(rollout, rows, step, mean)
        self._descend(value_loss * self.vf_coef + (loss + anchor if self._learns else 0.0))
        far = float((change.exp() - 1 - change).detach().mean()) if self._learns else 0.0
        logs["train/approx_kl"] = far
        logs |= {"train/value_loss": value_loss.item(), "train/anchor_loss": anchor.item()}
        return logs

    def _acting(self, mean: Tensor, rows: Tensor, k: Tensor) -> Tensor:
        """Return what steps k (of those that learn) are drawn around, of the network's mean."""
        return mean

    def _advantages(self, rollout: Rollout, rows: Tensor, k: Tensor) -> Tensor:
        """Return the advantage [b] of steps k (of those that learn): that of their decision."""
        return rollout.advantages[rows]

    def _value_loss(self, rollout: Rollout, rows: Tensor) -> Tensor:
        """Return the critic's squared error; 0 where it has learned from the rollout already."""
        if self.memory is not None:
            return torch.zeros(())
        values = self.policy.predict_values(rollout.obs[rows]).flatten()
        return nn.functional.mse_loss(values, rollout.returns[rows])

    def _learn_values(self) -> None:
        """Teach the critic every fresh decision: the selected ones alone would mislead it."""
        batch, count = next(self.rollout_buffer.get()), max(1, self.pairs // self.policy.tuned)
        for _ in range(self.n_epochs):
            for rows in torch.randperm(len(batch.observations)).split(count):
                values = self.policy.predict_values(batch.observations[rows]).flatten()
                self._descend(nn.functional.mse_loss(values, batch.returns[rows]))

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
            cost = cost + self._held(rollout, rows, step % frozen)
        return cost

    def _held(self, rollout: Rollout, rows: Tensor, early: Tensor) -> Tensor:
        """Return the learner's divergence from the start on steps that do not learn."""
        mean = self._mean(rollout, rows, early)
        return self.policy.chain.divergence(mean, rollout.starts[rows, early], early).mean()

    @property
    def _anchored(self) -> bool:
        """Whether the update asks for the means of the start."""
        return bool(self.method.kl_weight or self.policy.frozen)

    def _scaled(self, advantages: Tensor) -> Tensor:
        """Return the advantages [n] of a rollout as the update takes them."""
        if len(advantages) < 2:
            return advantages
        # Selected advantages have no mean of zero, and their signs are what was learned.
        centre = advantages.mean() if self.memory is None else 0.0
        return (advantages - centre) / (advantages.std() + 1e-8)

    @torch.no_grad()
    def _rollout(self) -> Rollout:
        policy, buffer = self.policy, self.rollout_buffer
        batch = next(buffer.get())
        n, shape = len(batch.observations), policy.actor.noise_shape
        chains = batch.actions.view(n, policy.chain.steps + 1, *shape)
        parts = zip(chains.split(CHUNK), batch.observations.split(CHUNK), strict=True)
        logs = torch.cat([policy.log_probs(c, o) for c, o in parts])
        found = Rollout(
            batch.observations,
            chains,
            logs,
            torch.zeros(0, device=logs.device),
            batch.advantages,
            batch.returns,
        )
        if self.memory is not None:
            found = self.memory.mix(found, next(iter(self._versions), ""))
            self.logger.record("train/decisions", len(found.obs))
        every, starts = torch.arange(policy.chain.steps), found.starts
        if self._anchored and len(found.obs):
            parts = zip(found.chains.split(CHUNK), found.obs.split(CHUNK), strict=True)
            starts = torch.cat([policy.means(policy.start, c, o, every) for c, o in parts])
        return found._replace(starts=starts, advantages=self._scaled(found.advantages))


def clip_ranges(steps: int, first: float, last: float) -> Tensor:
    """Return e_k [k] = e0 + (e1 - e0) (exp(3 k / (K'-1)) - 1) / (e^3 - 1), noisiest step first."""
    share = torch.arange(steps) / max(1, steps - 1)
    share = share if steps > 1 else torch.ones(1)
    return first + (last - first) * (torch.exp(3 * share) - 1) / (math.e**3 - 1)


def build_dppo(
    method: ChainConfig,
    rl: PPOConfig,
    actor: DiffusionActor,
    env: VecEnv,
    *,
    seed: int = 0,
    algorithm: type[ChainPPO] = ChainPPO,
    network: type[DenoisingPolicy] = DenoisingPolicy,
    network_options: Mapping[str, Any] | None = None,
) -> ChainPPO:
    """Build the learner.

    Args:
        method: see `DPPOConfig`, or the configuration of another `algorithm`.
        rl: its agent, the discount worked out.
        actor: the diffusion policy to begin with.
        env: of `PlanEnv`s that carry plans out, usually inside a `LearnedRewardVecEnv`.
        seed: of everything the learner draws.
        algorithm: DPPO, or what changes it.
        network: what the algorithm trains.
        network_options: what the network takes beyond `DenoisingPolicy`.

    Raises:
        ConfigError: more steps shall learn than the policy denoises.
    """
    chain = Chain(actor.model, eta=method.eta, min_std=method.min_std)
    tuned = method.denoising_steps or chain.steps
    if tuned > chain.steps:
        raise ConfigError(
            f"--finetune.denoising_steps={tuned} is more than the policy's "
            f"num_inference_steps of {chain.steps}"
        )
    length = (chain.steps + 1) * int(np.prod(actor.noise_shape))
    return build_learner(
        algorithm, network, method, rl, actor, env, chain,
        tuned=tuned, length=length, seed=seed, network_options=network_options,
    )  # fmt: skip
