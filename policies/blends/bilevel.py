"""`bilevel`: a weight for the learned reward that is judged by the base reward alone."""

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from torch import Tensor

from embodied_reward.types import Float64

from ..bc import mean_action
from ..networks import LayerNormSACPolicy
from .base import Blend
from .episodes import Decisions, returns


class BilevelBlend(Blend):
    """Raise the weight of the learned reward while following it raises the base return.

    BARFI (Gupta et al. 2023) chooses the reward r_phi = phi_1 r + phi_2 F for which the policy
    that learns from it earns most of the *base* reward r. With one term of the Neumann series
    (`implicit.py`) the gradient of that is the agreement of two policy gradients,

        dJ/dw = step < g_r, g_F >,      w <- clip(w + rate c cos(g_r, g_F), 0, limit)

    where g_r and g_F are the score-function gradients of the base return and of the learned
    reward's. The cosine makes `rate` independent of their units. Both come from different
    episodes (odd and even ones), because noise that they share would look like agreement, and c is
    the cosine of the two halves' g_r: a base gradient that is noise, as when every attempt
    succeeds, moves nothing. Where no base reward was seen there is no g_r, and w stays: this blend
    needs some successes, and cannot bring a policy back that has none left.

    Deviations: one term of the series; the base's own weight stays 1, as only the ratio matters;
    the discount is not learned; there is no free reward phi(s, a); a Gaussian of fixed width
    around the mean action stands for the policy, so that one formula serves SAC, residual SAC and
    PPO; Monte-Carlo returns with a linear baseline, cut off at truncations.

    Optimal policy: kept where the reward mode keeps it, for any w >= 0. There is little to learn
    there: shaping by a potential leaves the expected policy gradient alone, and w follows noise.
    In the other modes it is *not* kept while w > 0; that w is driven to 0 where F misleads is what
    this blend is for.
    """

    about = "learns its weight from the base return: it keeps what the reward mode keeps"

    def _update(self, policy: BasePolicy, rounds: int) -> dict[str, float]:
        assert isinstance(policy, LayerNormSACPolicy | ActorCriticPolicy)
        halves = [list(self.window.episodes)[k::2] for k in (0, 1)]
        agreement = _agreement(policy, halves, self.gamma) if all(halves) else 0.0
        moved = self.weight + rounds * self.config.rate * agreement
        self.weight = float(np.clip(moved, 0.0, self.config.limit))
        return {"blend/weight": self.weight, "blend/agreement": agreement}


def _agreement(
    policy: LayerNormSACPolicy | ActorCriticPolicy, halves: list[list[Decisions]], gamma: float
) -> float:
    """Return in [-1, 1] how far the learned reward points where the base reward points."""
    base, learned = (
        [policy_gradient(policy, half, reward, gamma) for half in halves]
        for reward in ("base", "learned")
    )
    sure = max(0.0, _cosine(*base))
    return sure * (_cosine(base[0], learned[1]) + _cosine(base[1], learned[0])) / 2


def policy_gradient(
    policy: LayerNormSACPolicy | ActorCriticPolicy,
    episodes: list[Decisions],
    reward: str,
    gamma: float,
) -> Tensor:
    """Return the score-function gradient Tensor["p"] of one reward's return, up to a factor.

    mean_t of (R_t - baseline) (a_t - mu(s_t))^T d mu(s_t) / d theta, for a Gaussian of fixed width
    around the mean action mu.

    Args:
        policy: SB3's SAC or PPO policy.
        episodes: at least one.
        reward: "base" or "learned".
        gamma: discount of R_t.
    """
    gains = [returns(getattr(e, reward), gamma) for e in episodes]
    advantage = torch.from_numpy(np.concatenate(gains) - _baseline(episodes, gains)).float()
    obs = torch.from_numpy(np.concatenate([e.obs for e in episodes])).to(policy.device)
    action = torch.from_numpy(np.concatenate([e.action for e in episodes])).to(policy.device)
    mean = mean_action(policy, obs)
    score = ((action - mean).detach() * mean).sum(dim=1)
    parameters = [p for p in policy.parameters() if p.requires_grad]
    objective = (advantage.to(policy.device) * score).mean()
    if not objective.requires_grad:  # a cloned actor that still waits for its critic
        return torch.zeros(0)
    found = torch.autograd.grad(objective, parameters, allow_unused=True)
    return torch.cat([g.reshape(-1) for g in found if g is not None])


def _baseline(episodes: list[Decisions], gains: list[Float64]) -> Float64:
    """Return the least-squares fit of the returns by observations and time (Duan et al. 2016)."""
    rows = [_features(e) for e in episodes]
    x, y = np.concatenate(rows), np.concatenate(gains)
    ridge = 1e-3 * len(x) * np.eye(x.shape[1])
    return x @ np.linalg.solve(x.T @ x + ridge, x.T @ y)


def _features(episode: Decisions) -> Float64:
    obs = np.clip(episode.obs.astype(np.float64), -10, 10)
    time = np.arange(len(episode))[:, None] / 100
    return np.hstack([obs, obs**2, time, time**2, np.ones_like(time)])


def _cosine(a: Tensor, b: Tensor) -> float:
    """Return their agreement in [-1, 1], 0 where one of them vanishes."""
    lengths = float(a.norm() * b.norm())
    return float(a @ b) / lengths if lengths > 1e-12 else 0.0
