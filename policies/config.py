"""What `--policy.*` takes: `--policy.type=sac|ppo|diffusion` chooses the algorithm."""

from dataclasses import dataclass, replace
from typing import Self

import draccus

from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.math.discount import gamma_of_rate

GAMMA = 0.98


@dataclass(frozen=True)
class PolicyConfig(draccus.ChoiceRegistry):
    """Fields that all algorithms share."""

    gamma: float = GAMMA
    """discount per decision; shaping always uses this same one"""
    discount_rate: float | None = None
    """instead of gamma: lambda [1/s] in gamma = exp(-lambda h), h the time between two decisions"""
    learning_rate: float = 3e-4
    """Adam's step size for all networks"""
    device: str = "cpu"
    """torch device; networks of this size are fastest on the CPU"""

    @property
    def type(self) -> str:
        """Name under which the algorithm is registered."""
        return self.get_choice_name(self.__class__)

    def at_rate(self, decisions_per_second: float) -> Self:
        """Return this configuration with `gamma` worked out from `discount_rate`, where given."""
        if self.discount_rate is None:
            return self
        gamma = gamma_of_rate(self.discount_rate, 1 / decisions_per_second)
        return replace(self, gamma=gamma, discount_rate=None)

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"--policy.gamma must be in (0, 1], got {self.gamma}")
        if self.discount_rate is not None:
            if self.gamma != GAMMA:
                raise ConfigError("give --policy.gamma or --policy.discount_rate, not both")
            gamma_of_rate(self.discount_rate, 1.0)
        if not self.learning_rate > 0:
            raise ConfigError(f"--policy.learning_rate must be positive, got {self.learning_rate}")


@dataclass(frozen=True)
class ActorCriticConfig(PolicyConfig):
    """What SAC and PPO share: networks and their cloned start."""

    net_arch: tuple[int, ...] = (128, 128)
    """hidden widths of actor and critic"""
    bc_steps: int = 1500
    """gradient steps of behaviour cloning before RL; needs a dataset, 0 turns it off"""
    bc_learning_rate: float = 1e-3
    """Adam's step size while cloning"""
    bc_std: float = 0.15
    """exploration of the cloned policy: standard deviation in the action range [-1, 1]"""
    actor_starts: int = 300
    """decisions during which a cloned actor only collects data while the critic learns"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        if not self.net_arch or min(self.net_arch) < 1:
            raise ConfigError(f"--policy.net_arch must be positive widths, got {self.net_arch}")
        if self.bc_std <= 0:
            raise ConfigError(f"--policy.bc_std must be positive, got {self.bc_std}")


@PolicyConfig.register_subclass("sac")
@dataclass(frozen=True)
class SACConfig(ActorCriticConfig):
    """Soft actor-critic, sized for two CPU cores; see `sac.py` for where it leaves SB3's."""

    gradient_steps: int = 4
    """critic updates per decision (update-to-data ratio); the actor is updated once"""
    batch_size: int = 128
    """transitions per update"""
    buffer_size: int = 100_000
    """transitions kept of the agent's own experience"""
    n_steps: int = 1
    """rewards summed before the critic's own estimate takes over; not corrected off-policy"""
    learning_starts: int = 100
    """decisions before the first update"""
    tau: float = 0.01
    """Polyak step of the target critics"""
    n_critics: int = 2
    """critics in the ensemble"""
    target_critics: int = 0
    """random critics whose minimum is an update's target (REDQ); 0 takes all of them"""
    layer_norm: bool = True
    """LayerNorm in the critics, which tames their extrapolation"""
    ent_coef: str = "auto_0.002"
    """entropy coefficient: a number, or auto_<initial value> to learn it"""
    target_entropy: float | None = None
    """for learned entropy; empty takes -|A|/2"""
    backup_entropy: bool = False
    """whether the critic's target holds the entropy bonus"""
    demo_fraction: float = 0.5
    """share of every batch that comes from the demonstrations"""
    replay_successes: bool = False
    """whether the agent's own episodes that succeeded count among the demonstrations"""
    ema_decay: float = 0.0
    """running average of the actor's weights, which acts where actions are deterministic
    (evaluation, checkpoints), per update of the actor; 0 acts by the weights themselves"""
    bc_weight: float = 1.0
    """weight of the cloning loss in the actor's, on the demonstrations of the batch"""
    bc_decay_steps: int = 0
    """decisions over which bc_weight falls linearly to zero; 0 keeps it"""
    residual_bound: float = 0.0
    """freeze the clone and learn a correction of at most this size, in the action range [-1, 1];
    0 fine-tunes the clone itself"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        if not 0 <= self.demo_fraction <= 1:
            raise ConfigError(f"--policy.demo_fraction must be in [0, 1], got {self.demo_fraction}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"--policy.ema_decay must be in [0, 1), got {self.ema_decay}")
        if self.replay_successes and not self.demo_fraction:
            raise ConfigError(
                "--policy.replay_successes=true adds to the demonstrations, of which "
                "--policy.demo_fraction=0 draws none: set one of them"
            )
        if self.n_steps < 1:
            raise ConfigError(f"--policy.n_steps must be at least 1, got {self.n_steps}")
        if self.gradient_steps < 1 or self.batch_size < 2:
            raise ConfigError("--policy.gradient_steps must be >= 1 and --policy.batch_size >= 2")
        if not 0 <= self.target_critics <= self.n_critics or self.n_critics < 1:
            raise ConfigError(
                f"--policy.target_critics must be in [0, {self.n_critics}], the --policy.n_critics "
                f"there are, got {self.target_critics}"
            )
        if not 0 <= self.residual_bound <= 2:
            raise ConfigError(
                f"--policy.residual_bound must be in [0, 2], got {self.residual_bound}; 2 reaches "
                "every action from any other"
            )
        if self.residual_bound and self.bc_steps == 0:
            raise ConfigError(
                "--policy.residual_bound corrects a cloned policy, and --policy.bc_steps=0 clones "
                "none: leave one of them out"
            )


@PolicyConfig.register_subclass("ppo")
@dataclass(frozen=True)
class PPOConfig(ActorCriticConfig):
    """Proximal policy optimisation with a cloned start."""

    n_steps: int = 512
    """decisions per environment and update"""
    batch_size: int = 128
    """transitions per minibatch"""
    n_epochs: int = 10
    """passes over each rollout"""
    gae_lambda: float = 0.95
    """GAE's trade of bias against variance"""
    clip_range: float = 0.2
    """clipping of the probability ratio"""
    ent_coef: float = 0.0
    """entropy bonus"""
    target_kl: float | None = 0.03
    """stops a round of updates early; empty never does"""


@PolicyConfig.register_subclass("diffusion")
@dataclass(frozen=True)
class DiffusionConfig(PolicyConfig):
    """LeRobot's DiffusionPolicy, sized for two CPU cores; its own names and meanings."""

    path: str | None = None
    """trained diffusion policy to fine-tune: run folder, checkpoint or pretrained_model"""
    n_obs_steps: int = 2
    """newest observations that the policy sees"""
    horizon: int = 8
    """actions that are denoised together; a multiple of 2 to the number of down_dims"""
    n_action_steps: int = 4
    """actions of a plan that are carried out before the next plan"""
    num_inference_steps: int = 10
    """denoising steps (DDIM) per plan"""
    num_train_timesteps: int = 100
    """steps of the diffusion that is learned"""
    down_dims: tuple[int, ...] = (32, 64)
    """channels of the U-Net's levels"""
    kernel_size: int = 3
    """width of its convolutions along time"""
    n_groups: int = 8
    """groups of its group normalisation"""
    diffusion_step_embed_dim: int = 32
    """width of the embedding of the diffusion step"""
    learning_rate: float = 1e-3
    """Adam's largest step size: a short warm-up, then a cosine to zero over --steps"""
    batch_size: int = 64
    """windows per gradient step"""
    ema_decay: float = 0.99
    """running average of the weights, which is what acts and is saved; 0 turns it off"""
    views: tuple[str, ...] = ()
    """cameras that the policy sees beside the robot's state; none: it sees the simulator's"""
    weighting: str = "uniform"
    """uniform, or progress: clone by the progress that follows, as --reward.path sees it (RA-BC)"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        counts = ("n_obs_steps", "n_action_steps", "num_inference_steps", "batch_size")
        for name in counts:
            if getattr(self, name) < 1:
                raise ConfigError(f"--policy.{name} must be at least 1, got {getattr(self, name)}")
        self._check_plan()
        if self.num_train_timesteps < self.num_inference_steps:
            raise ConfigError(
                f"--policy.num_inference_steps={self.num_inference_steps} denoises more often than "
                f"--policy.num_train_timesteps={self.num_train_timesteps} were learned"
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"--policy.ema_decay must be in [0, 1), got {self.ema_decay}")
        if self.weighting not in ("uniform", "progress"):
            hint = did_you_mean(self.weighting, ("uniform", "progress"))
            raise ConfigError(f"--policy.weighting={self.weighting} is unknown; {hint}")

    def _check_plan(self) -> None:
        if not self.down_dims or any(d < 1 or d % self.n_groups for d in self.down_dims):
            raise ConfigError(
                f"--policy.down_dims must be multiples of --policy.n_groups={self.n_groups}, got "
                f"{self.down_dims}"
            )
        factor = 2 ** len(self.down_dims)
        if self.horizon < 1 or self.horizon % factor:
            raise ConfigError(
                f"--policy.horizon must be a multiple of {factor} for {len(self.down_dims)} "
                f"down_dims, got {self.horizon}"
            )
        if self.n_action_steps > self.horizon - self.n_obs_steps + 1:
            raise ConfigError(
                f"--policy.n_action_steps={self.n_action_steps} does not fit: a horizon of "
                f"{self.horizon} plans {self.horizon - self.n_obs_steps + 1} actions from now on"
            )
