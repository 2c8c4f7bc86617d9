"""How an agent's action in [-1, 1] steers a frozen diffusion policy's plan.

All ways are pure functions of (observation, action) but for the base plans' noise in `Residual` and
`Choosing`, which comes from their own generators; those plans are part of what the agent observes.
Where the learner denoises the plans itself (`Carrying`) nothing is steered.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import ConfigError
from embodied_reward.types import Float32

from .config import (
    BestOfNConfig,
    DSRLConfig,
    DSRLNAConfig,
    FinetuneConfig,
    ResidualConfig,
    TuningConfig,
)


class Base(Protocol):
    """What steering needs of a diffusion policy; `DiffusionActor` has it."""

    spec: Any

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(horizon, action size)."""
        ...

    @property
    def width(self) -> int:
        """Length of `flat`."""
        ...

    def flat(self, obs: Mapping[str, Tensor]) -> Float32:
        """Return one stack of observations as the vector Float32["o"] that agents see."""
        ...

    def plan(self, obs: Mapping[str, Tensor], noise: Tensor) -> Float32:
        """Denoise [b h a] to the plans Float32["b n a"] in the environment's units."""
        ...

    def denoise(self, obs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """Return what `plan` does before it is cut to the action range, with its gradient."""
        ...

    def unit_plans(self, flat: Tensor, noise: Tensor) -> Tensor:
        """Denoise [b h a] to plans [b n*a] in [-1, 1], given normalised observations [b o]."""
        ...


class Steering(Protocol):
    """Between an agent that decides once per plan and the diffusion policy."""

    base: Base
    width: int  # of the agent's observation
    actions: int  # of its action

    def begin(self, seed: int) -> None:
        """Begin an episode."""
        ...

    def observe(self, obs: Mapping[str, Tensor]) -> Float32:
        """Return what the agent sees before the next plan, Float32["width"]."""
        ...

    def plan(self, obs: Mapping[str, Tensor], action: Float32) -> Float32:
        """Return the steered plan Float32["n a"] for the agent's action in [-1, 1]."""
        ...


class NoiseSteering:
    """DSRL: the action, times a bound, is the noise that the plan is denoised from.

    The plans stay among those that the base policy can produce: what it never does, no noise
    makes it do. Source: Wagenmaker et al. 2025, arXiv:2506.15799, the DSRL-SAC variant.

    Args:
        base: see `Base`.
        bound: largest absolute noise.
        steps: different noise vectors along the horizon, each repeated; 0 for all.
    """

    def __init__(self, base: Base, bound: float, steps: int = 0) -> None:
        horizon, size = base.noise_shape
        _check_noise_steps(steps, base)
        self.base, self.bound, self._steps = base, bound, steps or horizon
        self.width, self.actions = base.width, self._steps * size

    def begin(self, seed: int) -> None:
        """Nothing is remembered."""

    def observe(self, obs: Mapping[str, Tensor]) -> Float32:
        """Return the observations as a vector."""
        return self.base.flat(obs)

    def plan(self, obs: Mapping[str, Tensor], action: Float32) -> Float32:
        """Return the plan that this noise leads to."""
        return self.base.plan(obs, self.noise(action)[None])[0]

    def noise(self, action: Float32) -> Tensor:
        """Return the noise [h a] that an action stands for."""
        horizon, size = self.base.noise_shape
        rows = torch.as_tensor(action, dtype=torch.float32).reshape(self._steps, size)
        return self.bound * spread(rows[None], horizon)[0]


class Residual:
    """Policy Decorator: a = clip(a_base + bound * action), in units of half the action range.

    The agent observes the base plan, because the correction depends on it. Bound 0 or action 0
    is exactly the base policy. Source: Yuan et al. 2025, arXiv:2412.13630. Deviation: one
    decision per plan, not per step, so that one discount per plan fits the shaping.

    Args:
        base: see `Base`.
        bound: alpha.
    """

    def __init__(self, base: Base, bound: float) -> None:
        self.base, self.bound = base, bound
        low, high = base.spec.low, base.spec.high
        self._middle, self._half = (high + low) / 2, (high - low) / 2
        self._count = base.spec.config.n_action_steps
        self.actions = self._count * len(low)
        self.width = base.width + self.actions
        self._generator = torch.Generator()
        self._planned = np.zeros((self._count, len(low)), np.float32)

    def begin(self, seed: int) -> None:
        """Seed the base plans' noise."""
        self._generator.manual_seed(seed)

    def observe(self, obs: Mapping[str, Tensor]) -> Float32:
        """Draw the next base plan; return the normalised observations and that plan."""
        noise = torch.randn((1, *self.base.noise_shape), generator=self._generator)
        self._planned = self.base.plan(obs, noise)[0]
        unit = (self._planned - self._middle) / self._half
        return np.concatenate([self.base.flat(obs), unit.ravel()]).astype(np.float32)

    def plan(self, obs: Mapping[str, Tensor], action: Float32) -> Float32:
        """Return the corrected plan that `observe` has drawn last."""
        added = self.bound * self._half * np.reshape(action, self._planned.shape)
        low, high = self.base.spec.low, self.base.spec.high
        return (self._planned + added).clip(low, high).astype(np.float32)


class Choosing:
    """The agent sees N plans of the base policy, and its action is the plan to carry out.

    Plans are in units of half the action range, so an action of [-1, 1] is any plan; the agents
    below only ever name one that was proposed.

    Args:
        base: see `Base`.
        count: N.
    """

    def __init__(self, base: Base, count: int) -> None:
        self.base, self.count = base, count
        low, high = base.spec.low, base.spec.high
        self._middle, self._half = (high + low) / 2, (high - low) / 2
        self._steps = base.spec.config.n_action_steps
        self.actions = self._steps * len(low)
        self.width = base.width + count * self.actions
        self._generator = torch.Generator()
        self.noise = torch.zeros((count, *base.noise_shape))  # of the newest candidates

    def begin(self, seed: int) -> None:
        """Seed the candidates' noise."""
        self._generator.manual_seed(seed)

    def observe(self, obs: Mapping[str, Tensor]) -> Float32:
        """Return the normalised observations and N plans drawn anew."""
        shape = (self.count, *self.base.noise_shape)
        self.noise = torch.randn(shape, generator=self._generator)
        plans = self.base.plan(repeated(obs, self.count), self.noise)
        unit = (plans - self._middle) / self._half
        seen = np.concatenate([self.base.flat(obs), unit.clip(-1, 1).ravel()])
        return seen.astype(np.float32)

    def plan(self, obs: Mapping[str, Tensor], action: Float32) -> Float32:
        """Return the plan that an action names, Float32["n a"] in the environment's units."""
        unit = np.reshape(action, (self._steps, len(self._half)))
        return (self._middle + self._half * unit).astype(np.float32)

    def denoise(self, obs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """Return actions [b a] in [-1, 1] that noise [b h a] leads to, with their gradient."""
        plans = self.base.denoise(repeated(obs, len(noise)), noise)
        middle, half = torch.as_tensor(self._middle), torch.as_tensor(self._half)
        return ((plans - middle) / half).clamp(-1, 1).flatten(1)


class Carrying:
    """The action is the plan itself, in units of half the action range; the base only observes.

    Args:
        base: see `Base`.
    """

    def __init__(self, base: Base) -> None:
        self.base, self.width = base, base.width
        low, high = base.spec.low, base.spec.high
        self._middle, self._half = (high + low) / 2, (high - low) / 2
        self.actions = base.spec.config.n_action_steps * len(low)

    def begin(self, seed: int) -> None:
        """Nothing is remembered."""

    def observe(self, obs: Mapping[str, Tensor]) -> Float32:
        """Return the normalised observations."""
        return self.base.flat(obs)

    def plan(self, obs: Mapping[str, Tensor], action: Float32) -> Float32:
        """Return the plan Float32["n a"] in the environment's units."""
        unit = np.reshape(action, (-1, len(self._half)))
        return (self._middle + self._half * unit).astype(np.float32)


def spread(rows: Tensor, horizon: int) -> Tensor:
    """Repeat noise vectors [b k a] along a horizon, [b h a]."""
    return rows[:, torch.arange(horizon, device=rows.device) * rows.shape[1] // horizon]


def repeated(obs: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return one stack of observations [1 ...] as a batch [count ...]."""
    return {key: x.expand(count, *x.shape[1:]) for key, x in obs.items()}


def steering_of(config: FinetuneConfig, base: Base) -> Steering:
    """Build what `--finetune.type` names. Raises ConfigError."""
    if isinstance(config, TuningConfig):
        return Carrying(base)
    if isinstance(config, DSRLNAConfig):
        _check_noise_steps(config.noise_steps, base)
        return Carrying(base)
    if isinstance(config, DSRLConfig):
        return NoiseSteering(base, config.noise_bound, config.noise_steps)
    if isinstance(config, BestOfNConfig):
        return Choosing(base, config.candidates)
    assert isinstance(config, ResidualConfig)
    return Residual(base, config.bound)


def _check_noise_steps(steps: int, base: Base) -> None:
    horizon = base.noise_shape[0]
    if steps > horizon:
        raise ConfigError(
            f"--finetune.noise_steps={steps} is more than the policy's horizon of {horizon}"
        )
