"""What `--finetune.*` takes for the further methods that follow the denoising chain."""

import math
from dataclasses import dataclass

from embodied_reward.errors import ConfigError

from .config import ChainConfig, DPPOConfig, FinetuneConfig


@FinetuneConfig.register_subclass("prdp")
@dataclass(frozen=True)
class PRDPConfig(ChainConfig):
    """PRDP (Deng et al. 2024): regress differences of likelihood onto differences of reward."""

    beta: float = 0.02
    """price of the divergence from the policy that fine-tuning began with, in rewards per nat: the
    smaller, the further it goes"""
    clip: float = 0.2
    """largest change of a denoising step's log-likelihood, summed over the plan, per rollout"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        _positive(self, "beta", "clip")


@FinetuneConfig.register_subclass("preference")
@dataclass(frozen=True)
class PreferenceConfig(ChainConfig):
    """D3PO (Yang et al. 2023): raise the better of two plans over the start, worse ones below."""

    beta: float = 0.1
    """per nat, how soon a pair is settled: the smaller, the further the policy goes for it"""
    margin: float = 0.05
    """plans whose advantages are closer are no pair; in units of reward"""
    keep: float = 3.0
    """weight of the better plans' own likelihood beside the order; 0 is plain D3PO, which can leave
    both (docs/diffusion.md)"""
    error_beta: float = 1.0
    """of --preferences: how soon a pair is settled, per unit of squared denoising error"""
    error_keep: float = 1.0
    """of --preferences: weight of the better episodes' own denoising loss; 0 is plain DPO"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        _positive(self, "beta", "error_beta")
        for name in ("margin", "keep", "error_keep"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--finetune.{name} must be >= 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class JudgedConfig(DPPOConfig):
    """DPPO beside a critic of plans."""

    judge_steps: int = 100
    """gradient steps per rollout of the critic that judges plans"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        _positive(self, "judge_steps")


@FinetuneConfig.register_subclass("tp_grpo")
@dataclass(frozen=True)
class TPGRPOConfig(JudgedConfig):
    """TurningPoint-GRPO (2026): every denoising step earns what it changed."""

    turning: bool = True
    """at turning points a step earns all that follows, instead of its own change alone"""


@FinetuneConfig.register_subclass("euphonium")
@dataclass(frozen=True)
class EuphoniumConfig(JudgedConfig):
    """Euphonium (2026): denoise along a critic's gradient, and learn to do so without it."""

    guidance: float = 0.5
    """how far the critic pushes a denoising step while exploring, in the step's standard
    deviations (root mean square over the plan); 0 is DPPO beside a critic of plans"""
    distill: float = 0.5
    """price of the divergence from the pushed steps, which teaches the policy to go there by
    itself; 0 teaches it by what its plans were worth alone"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        if self.replay_size:
            raise ConfigError(
                f"--finetune.replay_size={self.replay_size} keeps plans that an older critic "
                "pushed, whose likelihood is then unknown; leave it at 0 with euphonium"
            )
        for name in ("guidance", "distill"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"--finetune.{name} must be >= 0, got {getattr(self, name)}")


def _positive(config: ChainConfig, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ConfigError(f"--finetune.{name} must be positive, got {getattr(config, name)}")
