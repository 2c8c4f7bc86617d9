"""`best_of_n`: a critic chooses among plans that the frozen diffusion policy proposes.

IDQL (Hansen-Estruch et al. 2023, arXiv:2304.10573) with the policy's own rollouts: a base policy
that imitates, a critic, and choice among N samples. No gradient passes through the denoising, and
nothing is carried out that the base policy does not propose.

Deviation: the candidates of a state are part of what is replayed, so IDQL's value network is
replaced by what it estimates, the expectile of Q over the base policy's plans, taken over these
N: V(s) = expectile_tau(min_k Q_k(s, a_1..N)). Demonstrations are not replayed: they have no
candidates.
"""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor

from embodied_reward.math.expectile import asymmetry, expectile
from embodied_reward.types import Float32

from ..networks import LayerNormSACPolicy
from ..sac import DemoSAC


class StatePart(BaseFeaturesExtractor):
    """The first `width` numbers of an observation: what precedes the candidates."""

    def __init__(self, observation_space: spaces.Box, width: int) -> None:
        super().__init__(observation_space, width)
        self.width = width

    def forward(self, observations: Tensor) -> Tensor:
        """Cut [b o] to [b width]."""
        return observations[:, : self.width]


class ChoosingPolicy(LayerNormSACPolicy):
    """Acts by the critic alone; SB3's interface wants an actor, which stays a stub.

    Args:
        candidates: N.
        tau: expectile of V, and of exploration.
        net_arch: hidden widths of the critic.
        kwargs: see `LayerNormSACPolicy`.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        *args: Any,
        candidates: int,
        tau: float,
        net_arch: Any = None,
        **kwargs: Any,
    ) -> None:
        self.candidates, self.tau = candidates, tau
        size = int(np.prod(action_space.shape))
        width = int(np.prod(observation_space.shape)) - candidates * size
        kwargs["features_extractor_class"] = StatePart
        kwargs["features_extractor_kwargs"] = {"width": width}
        arch = net_arch if isinstance(net_arch, dict) else {"pi": [], "qf": list(net_arch or ())}
        super().__init__(observation_space, action_space, *args, net_arch=arch, **kwargs)

    def plans(self, obs: Tensor) -> Tensor:
        """Return the candidates [b N a] of observations [b o]."""
        size = int(np.prod(self.action_space.shape or ()))
        return obs[:, -self.candidates * size :].reshape(len(obs), self.candidates, size)

    def judged(self, critic: Any, obs: Tensor, members: Tensor | None = None) -> Tensor:
        """Return the ensemble's smallest Q [b N] of the candidates."""
        plans = self.plans(obs)
        states = obs.repeat_interleave(self.candidates, dim=0)
        return critic.values(states, plans.flatten(0, 1), members).amin(dim=0).view(plans.shape[:2])

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        q = self.judged(self.critic, observation)
        if deterministic:
            chosen = q.argmax(dim=1)
        else:
            weights = asymmetry(q, expectile(q, self.tau), self.tau)
            chosen = torch.multinomial(weights, 1).squeeze(1)
        return self.plans(observation)[torch.arange(len(chosen)), chosen]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        ours = {"candidates": self.candidates, "tau": self.tau}
        return {**super()._get_constructor_parameters(), **ours}


class ChoosingSAC(DemoSAC):
    """Learns the critic; explores with IDQL's weights |tau - 1[Q < V]| over the candidates."""

    policy: ChoosingPolicy  # type: ignore[assignment]

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[Float32, Float32]:
        if self.num_timesteps >= learning_starts:
            return super()._sample_action(0, action_noise, n_envs)
        # The first candidate is a plain sample of the base policy.
        obs = torch.as_tensor(np.asarray(self._last_obs), device=self.device)
        action = self.policy.plans(obs)[:, 0].cpu().numpy()
        return action, action

    @torch.no_grad()
    def _next(self, batches: list[ReplayBufferSamples]) -> tuple[Any, ...]:
        nothing = [None] * len(batches)
        return nothing, nothing

    def _future(self, batch: ReplayBufferSamples, action: Any, bonus: Any) -> Tensor:
        q = self.policy.judged(self.critic_target, batch.next_observations, self._subset())
        return expectile(q, self.policy.tau)

    def _update_actor(self, batch: ReplayBufferSamples, weights: Tensor | None) -> None:
        """There is no actor to update."""
