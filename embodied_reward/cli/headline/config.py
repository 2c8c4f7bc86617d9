"""What `er benchmark headline` can be told, and the conditions that it compares."""

from dataclasses import dataclass, field
from typing import Any

from embodied_reward import config as configs
from embodied_reward.envs import suite_of
from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.policies.config import PolicyConfig, SACConfig
from embodied_reward.rewards import DopamineConfig, RewardModelConfig


@dataclass(frozen=True)
class Condition:
    """What a policy learns from.

    Attributes:
        label: for tables and plots.
        mode: reward mode of `er train-policy`; empty where no reward is learned from.
        scored: whether the reward model is asked, so that its negatives count as rollouts.
        blend: blend of `er train-policy`. A calibrated potential has the scale of the return, so
            that its kappa is 1.
    """

    label: str
    mode: str = ""
    scored: bool = False
    blend: str = "fixed"


CONDITIONS: dict[str, Condition] = {
    "learned": Condition("learned progress, shaped", "potential", scored=True),
    "calibrated": Condition(
        "learned progress, calibrated", "potential", scored=True, blend="calibrated"
    ),
    "success": Condition("success only", "success"),
    "oracle": Condition("true progress, shaped", "oracle"),
    "none": Condition("no fine-tuning"),
    "absolute": Condition("learned progress, absolute", "absolute", scored=True),
    "self_imitation": Condition("self-imitation"),
}

TASKS = (
    "drawer-open-v3",
    "door-open-v3",
    "button-press-topdown-v3",
    "hammer-v3",
    "push-v3",
    "pick-place-v3",
)


def residual_sac() -> PolicyConfig:
    """Return the fine-tuning recipe: residual SAC with sixteen critic updates per decision.

    That is eight per simulator step, because a decision lasts two of them.
    """
    return SACConfig(
        residual_bound=1.0,
        gradient_steps=16,
        gamma=0.97,
        bc_weight=0.0,
        replay_successes=True,
        ema_decay=0.998,
    )


@dataclass(frozen=True)
class HeadlineConfig:
    """Everything `er benchmark headline` can be told."""

    tasks: tuple[str, ...] = TASKS
    """tasks of Meta-World, or whole environment ids"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """each has its own demonstration, clone, reward model and learners"""
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    """what policies learn from"""
    rollouts: int = 150
    """episodes a policy may see in all, those that the reward model learns from included"""
    horizon: int = 75
    """decisions until an episode is cut off"""
    action_repeat: int = 2
    """simulator steps per decision"""
    views: tuple[str, ...] = ()
    """cameras of the reward model; empty takes the environment's own choice"""
    size: int = 64
    """height and width of the pictures [px]"""
    negatives: int = 6
    """rollouts that the reward model learns from beside the demonstration: every other one of the
    clone, which counts where it fails, and every other one of aimless wandering"""
    unseen: int = 8
    """episodes of mixed quality on which the reward model is measured; nothing learns from them"""
    reward_model: RewardModelConfig = field(default_factory=DopamineConfig)
    reward_steps: int = 300
    """gradient steps of the reward model"""
    kappa: float = 0.3
    """scale of the potential where it is not calibrated"""
    policy: PolicyConfig = field(default_factory=residual_sac)
    imitate_every: int = 25
    """rollouts between two clonings of self-imitation"""
    imitate_noise: tuple[float, ...] = (0.0, 0.2, 0.4)
    """standard deviations of its exploration, in the action range [-1, 1], one episode each"""
    eval_every: int = 25
    """rollouts between the evaluations of the success curve"""
    eval_episodes: int = 20
    """episodes of each of them"""
    final_episodes: int = 50
    """episodes of the last policy's evaluation, on scenes of their own"""
    jobs: int = 1
    """cells that run at a time, one core each"""
    known: str = ""
    """results.json of an earlier study with the same settings, whose cells are taken over"""
    output_dir: str = "outputs/benchmark/headline"
    """folder of all results; what is finished there is kept"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        for name in self.conditions:
            if name not in CONDITIONS:
                raise ConfigError(f"unknown condition '{name}'; {did_you_mean(name, CONDITIONS)}")
        for name in ("tasks", "seeds", "conditions"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise ConfigError(f"--{name} must name something, and nothing twice, got {given}")
        for task in self.tasks:
            suite_of(environment(task))
        least = {"negatives": 0, "unseen": 0, "rollouts": 1 + self.negatives}
        counts = ("horizon", "action_repeat", "reward_steps", "imitate_every", "eval_every")
        least |= dict.fromkeys((*counts, "eval_episodes", "final_episodes", "jobs"), 1)
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                got = getattr(self, name)
                raise ConfigError(f"--{name} must be at least {smallest}, got {got}")
        if not isinstance(self.policy, SACConfig):
            raise ConfigError(f"--policy.type={self.policy.type} is not SAC, which this study runs")
        if not self.imitate_noise or min(self.imitate_noise) < 0:
            raise ConfigError("--imitate_noise must be standard deviations of at least 0")
        self.policy.check()

    def settings(self) -> dict[str, Any]:
        """Return what must be equal for two cells to be compared, as JSON types."""
        free = {"tasks", "seeds", "conditions", "jobs", "known", "output_dir"}
        tree = configs.encode(self)
        return {key: value for key, value in tree.items() if key not in free}


def environment(task: str) -> str:
    """Return the environment's id: a bare name is a task of Meta-World."""
    return task if "/" in task else f"metaworld/{task}"
