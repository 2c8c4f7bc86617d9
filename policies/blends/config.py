"""What `--blend.*` takes; `--reward.blend=NAME` chooses the blend."""

from dataclasses import dataclass

from embodied_reward.errors import ConfigError


@dataclass(frozen=True)
class BlendConfig:
    """How a blend learns. Blends look at whole episodes that ended."""

    every: int = 5
    """bilevel, calibrated, group, exploration: episodes between two updates of the blend"""
    window: int = 20
    """newest episodes that an update looks at"""
    rate: float = 0.2
    """bilevel: step size of the weight of the learned reward, which starts at 1"""
    limit: float = 1.0
    """bilevel: largest weight, in units of --reward.kappa"""
    bonus: float = 0.05
    """exploration: largest count bonus, paid for a new state"""
    designed: float = 0.01
    """exploration: bound of the self-designed reward; 0 leaves the count bonus alone"""
    bits: int = 16
    """exploration: states are told apart by so many random hyperplanes"""
    prior: float = 2.0
    """calibrated: episodes that all demonstrations together count as"""
    temperature: float = 0.1
    """uncertainty: standard deviation of the progress at which a step counts 1/e"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        if not 1 <= self.every <= self.window:
            raise ConfigError(
                f"--blend.every must be in [1, --blend.window={self.window}], got {self.every}"
            )
        for name in ("rate", "limit", "bonus", "prior", "temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"--blend.{name} must be positive, got {getattr(self, name)}")
        if self.designed < 0:
            raise ConfigError(f"--blend.designed must be at least 0, got {self.designed}")
        if not 1 <= self.bits <= 24:
            raise ConfigError(f"--blend.bits must be in [1, 24], got {self.bits}")
