"""Plans that are kept with what they were worth, and learners of the cloning loss on them.

They explore by the sampler's first noise alone, as the saved policy acts, and follow no likelihood.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from embodied_reward.errors import NonFiniteError

from ..config import PPOConfig
from ..diffusion.actor import DiffusionActor
from ..diffusion.windows import Windows
from .chain import Chain
from .plan_options import PlanConfig
from .tuned import DenoisingPolicy
from .weights import WeightPPO, build_learner

TOGETHER = 256  # windows of demonstrations that are encoded at once


class Plans(NamedTuple):
    """n plans.

    Attributes:
        obs: [n o], normalised.
        plans: [n h a], whole horizons in [-1, 1].
        scores: [n], what they were worth.
    """

    obs: Tensor
    plans: Tensor
    scores: Tensor

    def at(self, rows: Tensor) -> "Plans":
        """Return some of them."""
        return Plans(*(column[rows] for column in self))


class PlanMemory:
    """The newest plans that one version of the potential paid.

    Args:
        size: plans that are kept.
    """

    def __init__(self, size: int) -> None:
        self.size, self.version = size, ""
        self.kept: Plans | None = None

    def __len__(self) -> int:
        return 0 if self.kept is None else len(self.kept.obs)

    def add(self, fresh: Plans, version: str) -> Plans:
        """Keep plans that this version of the potential paid, and return all that are kept."""
        both = [fresh] if self.kept is None or version != self.version else [self.kept, fresh]
        columns = (torch.cat(parts)[-self.size :] for parts in zip(*both, strict=True))
        self.kept, self.version = Plans(*columns), version
        return self.kept

    def arrays(self) -> dict[str, Tensor]:
        """Return what is kept, for a checkpoint; `version` goes beside it."""
        return {} if self.kept is None else {k: v.clone() for k, v in self.kept._asdict().items()}

    def restore(self, arrays: dict[str, Tensor], version: str) -> None:
        """Take `arrays()` back."""
        self.version = version
        self.kept = Plans(**arrays) if arrays else None


class PlanPolicy(DenoisingPolicy):
    """A diffusion policy that learns; SB3's action is the plan alone.

    Args:
        valued: whether a critic learns; otherwise every value is 0, and nothing is bootstrapped.
        kwargs: see `DenoisingPolicy`.
    """

    def __init__(self, *args: Any, valued: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.valued = valued

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return plans [b h*a], values [b 1] and zeros [b]: no likelihood is asked for."""
        plans = self.sample(obs)[:, -1].clamp(-1, 1)
        return plans.flatten(1), self.predict_values(obs), torch.zeros(len(obs))

    def predict_values(self, obs: Tensor) -> Tensor:
        """Return what the critic expects [b 1]."""
        return super().predict_values(obs) if self.valued else torch.zeros(len(obs), 1)


def denoising_errors(
    model: Any, plans: Tensor, condition: Tensor, noise: Tensor, times: Tensor
) -> Tensor:
    """Return the squared errors [b h a] of LeRobot's cloning loss.

    Args:
        model: LeRobot's `DiffusionPolicy`.
        plans: [b h a], normalised.
        condition: [b c], see `DenoisingPolicy.condition`.
        noise: [b h a], standard normal.
        times: Int64[b], diffusion steps.
    """
    diffusion = model.diffusion
    noisy = diffusion.noise_scheduler.add_noise(plans, noise, times)
    target = noise if model.config.prediction_type == "epsilon" else plans
    return (diffusion.unet(noisy, times, global_cond=condition) - target).square()


class PlanPPO(WeightPPO):
    """Keeps plans with what they were worth; a subclass learns from minibatches of them."""

    policy: PlanPolicy  # type: ignore[assignment]
    method: PlanConfig
    memory: PlanMemory  # type: ignore[assignment]

    def __init__(self, *args: Any, method: PlanConfig, **kwargs: Any) -> None:
        super().__init__(*args, method=method, **kwargs)
        self.memory = PlanMemory(method.buffer_size)

    def train(self) -> None:
        """Update once; raises NonFiniteError, with nothing more changed, on a bad number."""
        self._refuse_bad_numbers()
        fresh, returns = self._collected()
        logs = self._learn_values(fresh.obs, returns) if self.policy.valued else {}
        kept = self.memory.add(fresh, next(iter(self._versions), ""))
        steps = self.n_epochs * math.ceil(len(fresh.obs) / self.pairs)
        # Plans that were all worth the same say nothing, and would only narrow the policy.
        if self._learns and float(kept.scores.max() - kept.scores.min()) > 0:
            rows = [self._step(kept) for _ in range(steps)]
            logs |= {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        self._n_updates += self.n_epochs
        for key, value in {**logs, "train/plans_kept": float(len(kept.obs))}.items():
            self.logger.record(key, value)

    def _step(self, kept: Plans) -> dict[str, float]:
        """Take one gradient step and return what is logged."""
        raise NotImplementedError

    def _collected(self) -> tuple[Plans, Tensor]:
        """Return the rollout's plans and their returns [n]."""
        buffer, shape = self.rollout_buffer, (-1, *self.policy.actor.noise_shape)
        signals = {
            "return": buffer.returns,
            "advantage": buffer.advantages,
            "progress": buffer.rewards,
        }
        columns = buffer.observations, buffer.actions, signals[self.method.signal], buffer.returns
        obs, plans, scores, returns = (
            torch.as_tensor(buffer.swap_and_flatten(c), device=self.device) for c in columns
        )
        return Plans(obs, plans.view(shape), scores.flatten()), returns.flatten()

    def _learn_values(self, obs: Tensor, returns: Tensor) -> dict[str, float]:
        loss = torch.zeros(())
        for _ in range(self.n_epochs):
            for rows in torch.randperm(len(obs)).split(self.pairs):
                values = self.policy.predict_values(obs[rows]).flatten()
                loss = nn.functional.mse_loss(values, returns[rows])
                self._descend(loss)
        return {"train/value_loss": loss.item()}

    def _drawn(self, plans: Tensor) -> tuple[Tensor, Tensor]:
        """Draw noise [b h a] and diffusion steps Int64[b] for plans [b h a]."""
        count = self.policy.learner.diffusion.noise_scheduler.config.num_train_timesteps
        return torch.randn_like(plans), torch.randint(count, (len(plans),), device=plans.device)


class Demonstrations(NamedTuple):
    """w windows of demonstrations, normalised.

    Attributes:
        obs: [w o].
        plans: [w h a].
        known: [w h 1], 1 where the action lies inside its episode.
    """

    obs: Tensor
    plans: Tensor
    known: Tensor


def demonstrations(actor: DiffusionActor, windows: Windows) -> Demonstrations:
    """Return windows as a learner of plans takes them.

    Raises:
        NonFiniteError: they hold numbers that are not finite.
    """
    every, parts = np.arange(len(windows)), []
    for start in range(0, len(every), TOGETHER):
        batch: Mapping[str, Any] = actor.before(windows.batch(every[start : start + TOGETHER]))
        counts = (~batch["action_is_pad"])[..., None].float()
        parts.append((actor.encoded(batch), batch["action"], counts))
    found = Demonstrations(*(torch.cat(column) for column in zip(*parts, strict=True)))
    if not all(torch.isfinite(column).all() for column in found):
        raise NonFiniteError("the demonstrations hold numbers that are not finite")
    return found


def build_plans(
    method: PlanConfig,
    rl: PPOConfig,
    actor: DiffusionActor,
    env: VecEnv,
    *,
    algorithm: type[PlanPPO],
    seed: int = 0,
    **more: Any,
) -> PlanPPO:
    """Build a learner from plans; see `build_learner`."""
    chain = Chain(actor.model, eta=0.0, min_std=0.0)
    length = int(np.prod(actor.noise_shape))
    return build_learner(
        algorithm, PlanPolicy, method, rl, actor, env, chain,
        tuned=chain.steps, length=length, seed=seed,
        network_options={"valued": method.signal != "progress"}, **more,
    )  # fmt: skip
