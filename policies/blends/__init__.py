"""Blends of base reward, learned reward and bonuses; `--reward.blend` chooses one."""

from typing import Any

from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.policies.demos import Transitions
from embodied_reward.policies.networks import input_statistics

from .base import Blend
from .bilevel import BilevelBlend
from .calibrated import CalibratedBlend
from .config import BlendConfig
from .exploration import ExplorationBlend
from .group import GroupBlend

BLENDS: dict[str, type[Blend]] = {
    "bilevel": BilevelBlend,
    "calibrated": CalibratedBlend,
    "group": GroupBlend,
    "exploration": ExplorationBlend,
}
"""Blends that learn from the learner's episodes."""

OTHERS = {
    "fixed": "kappa as given",
    "uncertainty": "steps of the potential count by how sure the reward model is "
    "(`shaping.trust`): it keeps what the reward mode keeps",
}
"""Blends that need nothing of the learner."""

NAMES = ("fixed", "bilevel", "calibrated", "exploration", "group", "uncertainty")


def check(name: str, config: BlendConfig) -> None:
    """Raise ConfigError for an unknown blend or values that cannot be used."""
    if name not in NAMES:
        raise ConfigError(f"unknown --reward.blend '{name}'; {did_you_mean(name, NAMES)}")
    config.check()


def about(name: str) -> str:
    """Return what a blend does to the optimal policy, in one line."""
    return BLENDS[name].about if name in BLENDS else OTHERS[name]


def make_blend(
    name: str,
    config: BlendConfig,
    *,
    count: int,
    gamma: float,
    seed: int,
    widths: tuple[int, int],
    demos: Transitions | None = None,
) -> Blend | None:
    """Return the blend of a run, None for those that need nothing of the learner.

    Args:
        name: one of `NAMES`.
        config: see `BlendConfig`.
        count: environments.
        gamma: the learner's discount.
        seed: of whatever the blend draws.
        widths: entries of observation and action.
        demos: demonstrations of the task, where there are any.
    """
    kind = BLENDS.get(name)
    if kind is None:
        return None
    shared: dict[str, Any] = {"count": count, "gamma": gamma, "seed": seed}
    if kind is ExplorationBlend:
        shared |= {"widths": widths, **({} if demos is None else input_statistics(demos.obs))}
    if kind is CalibratedBlend:
        shared |= {"demos": demos}
    return kind(config, **shared)
