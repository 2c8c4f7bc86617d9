"""What `--finetune.*` takes: `--finetune.type=` chooses the method.

dsrl, dsrl_na, residual, best_of_n and noise_search steer a frozen diffusion policy; dppo changes
its weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import draccus

from embodied_reward import config as configs
from embodied_reward.errors import CheckpointError, ConfigError

from ..config import ActorCriticConfig, PPOConfig, SACConfig


@dataclass(frozen=True)
class FinetuneConfig(draccus.ChoiceRegistry):
    """How a trained diffusion policy goes on learning."""

    @property
    def type(self) -> str:
        """Name under which the method is registered."""
        return self.get_choice_name(self.__class__)

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""


@FinetuneConfig.register_subclass("none")
@dataclass(frozen=True)
class NoFinetuneConfig(FinetuneConfig):
    """Train the policy itself."""


@dataclass(frozen=True)
class AgentConfig(SACConfig):
    """SAC that decides once per plan and has no demonstrations."""

    gamma: float = 0.95
    """discount per plan; shaping always uses this same one"""
    gradient_steps: int = 8
    """critic updates per plan (update-to-data ratio); the actor is updated once"""
    bc_steps: int = 0
    """there is nothing to clone: the agent begins untrained"""
    actor_starts: int = 0
    """decisions during which only the critic learns"""
    demo_fraction: float = 0.0
    """there are no demonstrations of steering"""
    bc_weight: float = 0.0
    """there are no demonstrations of steering"""

    def plain(self) -> SACConfig:
        """Return the same settings as a `SACConfig`, which is what checkpoints name."""
        return SACConfig(**{f.name: getattr(self, f.name) for f in fields(SACConfig)})


@dataclass(frozen=True)
class NoiseAgentConfig(AgentConfig):
    """The agent of DSRL."""

    target_entropy: float | None = 0.0
    """for learned entropy, as in the paper's own settings"""


@dataclass(frozen=True)
class SteeringConfig(FinetuneConfig):
    """A SAC agent that decides once per plan; the diffusion policy stays as it is."""

    rl: AgentConfig = field(default_factory=AgentConfig)
    """the agent; its gamma is the discount per plan"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        _check_agent(self.rl)


@FinetuneConfig.register_subclass("dsrl")
@dataclass(frozen=True)
class DSRLConfig(SteeringConfig):
    """DSRL (Wagenmaker et al. 2025): SAC chooses the noise that a plan is denoised from."""

    rl: NoiseAgentConfig = field(default_factory=NoiseAgentConfig)
    """the agent; its gamma is the discount per plan"""
    noise_bound: float = 1.5
    """largest absolute value of the noise; wider leaves the plans that were demonstrated"""
    noise_steps: int = 0
    """different noise vectors along the horizon, each repeated; 0 is the whole horizon"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        if not self.noise_bound > 0:
            raise ConfigError(f"--finetune.noise_bound must be positive, got {self.noise_bound}")
        if self.noise_steps < 0:
            raise ConfigError(f"--finetune.noise_steps must be >= 0, got {self.noise_steps}")


@dataclass(frozen=True)
class AliasedAgentConfig(NoiseAgentConfig):
    """The agent of DSRL-NA, whose updates denoise plans."""

    gradient_steps: int = 4
    """critic updates per plan (update-to-data ratio); each denoises a batch"""
    batch_size: int = 64
    """transitions per update"""


@FinetuneConfig.register_subclass("dsrl_na")
@dataclass(frozen=True)
class DSRLNAConfig(DSRLConfig):
    """DSRL, noise-aliased: a critic of plans teaches the critic of noises."""

    rl: AliasedAgentConfig = field(default_factory=AliasedAgentConfig)
    """the agent; its gamma is the discount per plan"""
    distill_steps: int = 4
    """gradient steps of the critic of noises per plan; each denoises a batch"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        if self.distill_steps < 1:
            raise ConfigError(f"--finetune.distill_steps must be >= 1, got {self.distill_steps}")


@FinetuneConfig.register_subclass("residual")
@dataclass(frozen=True)
class ResidualConfig(SteeringConfig):
    """Policy Decorator (Yuan et al. 2025): SAC adds a bounded correction to every plan."""

    bound: float = 0.3
    """largest correction, as a share of half the action range"""
    progressive_steps: int = 500
    """plans over which the share of corrected plans rises from none to all; 0 corrects all"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        if not 0 <= self.bound <= 2:
            raise ConfigError(f"--finetune.bound must be in [0, 2], got {self.bound}")
        if self.progressive_steps < 0:
            raise ConfigError("--finetune.progressive_steps must be at least 0")


@FinetuneConfig.register_subclass("best_of_n")
@dataclass(frozen=True)
class BestOfNConfig(SteeringConfig):
    """IDQL's choice (Hansen-Estruch et al. 2023): a critic picks one of N plans."""

    candidates: int = 16
    """plans that the diffusion policy proposes for every decision"""
    expectile: float = 0.8
    """of Q over the plans, a state's value: .5 is the base policy's, near 1 the best plan's"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        if self.candidates < 1:
            raise ConfigError(f"--finetune.candidates must be at least 1, got {self.candidates}")
        if not 0.5 <= self.expectile < 1:
            raise ConfigError(f"--finetune.expectile must be in [.5, 1), got {self.expectile}")


@FinetuneConfig.register_subclass("noise_search")
@dataclass(frozen=True)
class NoiseSearchConfig(BestOfNConfig):
    """Learns the critic as best_of_n does; when evaluated, climbs on it from every plan's noise."""

    candidates: int = 4
    """plans that the diffusion policy proposes, and noises that the search starts from"""
    search_steps: int = 4
    """steps of every start; calls per decision: candidates * (1 + 2 * search_steps)"""
    search_rate: float = 5.0
    """step size (ReNO's), with gradients cut to a norm of 0.1"""
    search_gradient: bool = True
    """climb along gradients through the denoising; false: along two-sided differences"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        if self.search_steps < 0:
            raise ConfigError(f"--finetune.search_steps must be >= 0, got {self.search_steps}")
        if not self.search_rate > 0:
            raise ConfigError(f"--finetune.search_rate must be positive, got {self.search_rate}")


@dataclass(frozen=True)
class ChainAgentConfig(PPOConfig):
    """PPO that decides once per plan, by denoising it."""

    gamma: float = 0.95
    """discount per plan; shaping always uses this same one"""
    learning_rate: float = 1e-4
    """Adam's step size for the diffusion policy"""
    n_steps: int = 256
    """plans per environment and update"""
    batch_size: int = 512
    """pairs of a plan and one of its denoising steps per minibatch"""
    n_epochs: int = 5
    """passes over each rollout"""
    clip_range: float = 0.02
    """clipping of the probability ratio at the last denoising step; likelihoods are averages over
    the numbers of a plan, so that ratios lie close to 1"""
    target_kl: float | None = None
    """stops a round of updates early; empty never does"""
    bc_steps: int = 0
    """there is nothing to clone: the diffusion policy is the start"""
    actor_starts: int = 256
    """plans during which only the critic learns"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        for name, least in (("n_steps", 2), ("batch_size", 1), ("n_epochs", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"--policy.{name} must be at least {least}, got {getattr(self, name)}"
                )

    def plain(self) -> PPOConfig:
        """Return the same settings as a `PPOConfig`."""
        return PPOConfig(**{f.name: getattr(self, f.name) for f in fields(PPOConfig)})


@dataclass(frozen=True)
class TuningConfig(FinetuneConfig):
    """The weights of the diffusion policy themselves learn, once per plan."""

    rl: ChainAgentConfig = field(default_factory=ChainAgentConfig)
    """how plans are collected and valued; its gamma is the discount per plan"""
    critic_learning_rate: float = 1e-3
    """Adam's step size for the critic"""
    max_grad_norm: float = 1.0
    """largest norm of a gradient; longer ones are shortened to it"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        _check_agent(self.rl)
        for name in ("critic_learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"--finetune.{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True)
class ChainConfig(TuningConfig):
    """What methods share that follow the likelihood of every denoising step (`chain.py`)."""

    denoising_steps: int = 0
    """the last denoising steps, which learn; 0 lets all learn"""
    eta: float = 0.0
    """noise of DDIM while exploring, 1 draws as much as DDPM. What is saved acts without: above 0
    the policy that explores and the one that is saved drift apart (docs/diffusion.md)"""
    min_std: float = 0.1
    """floor of a denoising step's standard deviation while exploring, in half action ranges"""
    replay_size: int = 0
    """plans kept to replace those that turned out as expected; 0 learns from fresh ones only"""
    replay_age: int = 4
    """updates that a plan is kept for; a new potential drops all at once"""
    replay_threshold: float = 0.05
    """plans whose advantage is not larger teach nothing; in units of reward"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        least = {"denoising_steps": 0, "replay_size": 0, "replay_age": 1, "replay_threshold": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ConfigError(
                    f"--finetune.{name} must be >= {smallest}, got {getattr(self, name)}"
                )
        if not 0 < self.min_std <= 1:
            raise ConfigError(f"--finetune.min_std must be in (0, 1], got {self.min_std}")
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"--finetune.eta must be in [0, 1], got {self.eta}")


@FinetuneConfig.register_subclass("dppo")
@dataclass(frozen=True)
class DPPOConfig(ChainConfig):
    """DPPO (Ren et al. 2024): PPO over the denoising steps of every plan."""

    denoising_gamma: float = 0.99
    """discount of the advantage per denoising step before the last"""
    clip_first: float = 0.002
    """clipping of the probability ratio at the noisiest step that learns; rises to rl.clip_range"""
    kl_weight: float = 0.0
    """price of the divergence from the policy that fine-tuning began with; 0 charges nothing"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        if self.kl_weight < 0:
            raise ConfigError(f"--finetune.kl_weight must be >= 0, got {self.kl_weight}")
        for name in ("denoising_gamma", "clip_first"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"--finetune.{name} must be in (0, 1], got {getattr(self, name)}")


def _check_agent(rl: ActorCriticConfig) -> None:
    try:
        rl.check()
    except ConfigError as error:
        raise ConfigError(str(error).replace("--policy.", "--finetune.rl.")) from error


def finetune_of(meta: Mapping[str, Any]) -> FinetuneConfig:
    """Read the method back from a checkpoint's `meta`. Raises CheckpointError."""
    tree = meta.get("finetune")
    if not isinstance(tree, dict) or "type" not in tree:
        raise CheckpointError("the checkpoint holds a base policy, but not how it is steered")
    given = {key: value for key, value in tree.items() if key != "type"}
    return configs.decode(FinetuneConfig.get_choice_class(tree["type"]), given)
