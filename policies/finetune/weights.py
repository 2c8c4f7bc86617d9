"""What all learners share that train the weights of a diffusion policy, on SB3's PPO.

They take PPO's collection, its critic and its estimates of returns and advantages; how the network
learns from them is a method's own.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from embodied_reward.errors import NonFiniteError

from ..config import PPOConfig
from ..diffusion.actor import DiffusionActor
from ..guard import refuse_rescaled_rewards
from ..ppo import ClonedPPO
from .chain import Chain
from .config import TuningConfig
from .tuned import ChainBuffer, DenoisingPolicy


class Memory(Protocol):
    """Decisions that are learned from again; a checkpoint keeps them."""

    version: str

    def arrays(self) -> dict[str, Tensor]:
        """Return what is kept."""
        ...

    def restore(self, arrays: dict[str, Tensor], version: str) -> None:
        """Take `arrays()` back."""
        ...


class WeightPPO(ClonedPPO):
    """Collects plans; a subclass says in `train` how the network learns from them.

    Args:
        method: its configuration.
        pairs: size of a minibatch, as the method counts it.
        kwargs: see `ClonedPPO`.
    """

    policy: DenoisingPolicy  # type: ignore[assignment]
    method: Any
    memory: Memory | None

    def __init__(self, *args: Any, method: TuningConfig, pairs: int, **kwargs: Any) -> None:
        self.method, self.pairs = method, pairs
        self.memory = None
        super().__init__(*args, **kwargs)

    @property
    def _learns(self) -> bool:
        """Whether the network learns, not the critic alone."""
        return self.num_timesteps > self.actor_starts

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


def build_learner[Learner: WeightPPO](
    algorithm: type[Learner],
    network: type[DenoisingPolicy],
    method: TuningConfig,
    rl: PPOConfig,
    actor: DiffusionActor,
    env: VecEnv,
    chain: Chain,
    *,
    tuned: int,
    length: int,
    seed: int,
    network_options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Learner:
    """Build a learner.

    Args:
        algorithm: the learner's class.
        network: what it trains.
        method: its configuration.
        rl: its agent, the discount worked out.
        actor: the diffusion policy to begin with.
        env: of `PlanEnv`s that carry plans out, usually inside a `LearnedRewardVecEnv`.
        chain: the sampler's steps.
        tuned: how many of the last steps the learner denoises.
        length: numbers of a decision in the rollout buffer.
        seed: of everything the learner draws.
        network_options: what the network takes beyond `DenoisingPolicy`.
        more: what the algorithm takes beyond that.
    """
    rl.check()
    refuse_rescaled_rewards(env)
    return algorithm(
        network,
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
        rollout_buffer_kwargs={"length": length},
        policy_kwargs={
            "actor": actor,
            "chain": chain,
            "tuned": tuned,
            "net_arch": tuple(rl.net_arch),
            "critic_learning_rate": method.critic_learning_rate,
            **(network_options or {}),
        },
        actor_starts=rl.actor_starts,
        seed=seed,
        device=rl.device,
        **more,
    )
