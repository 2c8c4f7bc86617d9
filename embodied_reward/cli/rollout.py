"""Record demonstrations, evaluate a policy or fine-tune it on a LeRobot robot, real or simulated.

er rollout --robot.type=er_sim_arm --limits=er_sim_arm --mode=record --episodes=5
er rollout --robot.type=... --limits=FILE --mode=evaluate --policy.path=RUN --reward.path=REWARD_RUN
er rollout --robot.type=... --limits=FILE --mode=finetune --dataset.root=DEMOS
    [--policy.path=RUN] --reward.path=REWARD_RUN --steps=2000

The updates can be made on another machine (docs/robots.md):
er rollout --mode=learn --dataset.root=DEMOS --reward.path=REWARD_RUN --steps=2000 --pair.host=...
er rollout --robot.type=... --limits=FILE --mode=finetune --reward.path=REWARD_RUN --pair.url=...

Nothing reaches the robot but through the limits in --limits, which have no defaults. A process of
its own guards the robot and holds it when this one is stopped, killed or late. Every episode is
recorded as a LeRobot v3 dataset in the run folder, with what the reward model said.

Keys: space or escape stop the arm; s success, f failure, x discard the episode; i let the operator
take over and give back; Enter or r ready, or release a hold; q finish; d is the dead-man key.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot.robots.config import RobotConfig
from lerobot.teleoperators.config import TeleoperatorConfig

from embodied_reward import config as configs
from embodied_reward.cli.cache_config import CacheConfig
from embodied_reward.cli.command import run_verb
from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.cli.eval_policy import PolicyPath
from embodied_reward.cli.pair.config import PairConfig, check_pair
from embodied_reward.cli.train_policy import EvalConfig, RewardConfig, WatchConfig
from embodied_reward.envs.robots import lerobot_robots
from embodied_reward.envs.robots.sim_arm import ErSimArmConfig
from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.policies.config import PolicyConfig, SACConfig

MODES = ("record", "evaluate", "finetune", "learn")


@dataclass
class RolloutConfig:
    """Everything `er rollout` can be told."""

    mode: str = "record"
    """record demonstrations, evaluate a policy, finetune one, or learn for a robot elsewhere"""
    robot: RobotConfig = field(default_factory=ErSimArmConfig)
    """any LeRobot robot"""
    packages: tuple[str, ...] = ()
    """modules that define further robots when they are imported"""
    limits: str = ""
    """what the robot may be told: a YAML or JSON file, or the name of one of ours; required"""
    teleop: TeleoperatorConfig | None = None
    """LeRobot teleoperator that demonstrates and intervenes"""
    policy: PolicyPath = field(default_factory=PolicyPath)
    pair: PairConfig = field(default_factory=PairConfig)
    learner: PolicyConfig = field(default_factory=SACConfig)
    """algorithm that fine-tunes; with --policy.path its own settings unless given here"""
    reward: RewardConfig = field(default_factory=RewardConfig)
    success: WatchConfig = field(default_factory=WatchConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    eval: EvalConfig = field(default_factory=lambda: EvalConfig(freq=0, n_episodes=10))
    cache: CacheConfig = field(default_factory=CacheConfig)
    steps: int = 1000
    """decisions of fine-tuning"""
    save_freq: int = 200
    """fine-tuning: decisions between checkpoints, beside those of evaluations; 0 makes none"""
    episodes: int = 5
    """episodes to record or to evaluate"""
    horizon: int = 60
    """decisions until an episode is cut off"""
    hold_steps: int = 5
    """rows recorded after the first success of a demonstration, so that the goal is seen"""
    only_success: bool = True
    """record mode: repeat demonstrations that fail"""
    motors: tuple[str, ...] = ()
    """motors that an action moves, the others stay at home; empty moves all. Leave out what the
    demonstrations do not need: a policy that explores it meets states that they never showed"""
    task: str = ""
    """the task in words; default: the simulated arm's own"""
    deterministic: bool = True
    """evaluate the policy's mean action instead of a sample"""
    dry_run: bool = False
    """judge and record everything, send nothing to the robot"""
    deadman: bool = False
    """the arm moves only while the key d is held"""
    unattended: bool = False
    """nobody is at the terminal: no keys, no prompts, and no release of a real robot's holds"""
    display: str = "auto"
    """rerun, terminal or none; auto takes rerun where it is installed"""
    seed: int = 0
    """seed of scenes, the scripted operator and the learner"""
    threads: int = 0
    """torch CPU threads; 0 chooses"""
    output_dir: str | None = None
    """run folder; default: outputs/rollout/<date>_<mode>_<robot>"""
    resume: bool = False
    """continue the run in --output_dir"""


def main(argv: list[str]) -> int:
    """Entry point of `er rollout`."""
    register(argv)
    return run_verb("rollout", RolloutConfig, rollout, argv, __doc__)


def register(argv: list[str]) -> None:
    """Import what defines the robot and teleoperator that the words or the run's file ask for."""
    given = dict(word[2:].split("=", 1) for word in argv if word[:2] == "--" and "=" in word)
    tree: dict[str, Any] = {}
    if "config_path" in given:
        tree = configs.read_yaml(Path(given["config_path"]))
    elif given.get("resume", "").lower() == "true" and given.get("output_dir"):
        tree = configs.read_yaml(Path(given["output_dir"]) / "config.yaml")
    packages = given.get("packages") or tree.get("packages") or ()
    packages = packages.split(",") if isinstance(packages, str) else packages
    robot = given.get("robot.type") or (tree.get("robot") or {}).get("type")
    lerobot_robots.register(robot or lerobot_robots.SIMULATED, tuple(packages))
    if tree.get("teleop") or any(key.startswith("teleop.") for key in given):
        lerobot_robots.register_teleoperators()


def rollout(config: RolloutConfig) -> int:
    """Run the mode; returns the exit status."""
    check(config)
    if config.mode == "learn":
        from embodied_reward.cli.pair.learner import learn

        return learn(config)
    from embodied_reward.cli.rollout_run import run

    return run(config, read_limits(config.limits))


def check(config: RolloutConfig) -> None:
    """Check what can be checked before anything is built. Raises ConfigError."""
    if config.mode not in MODES:
        raise ConfigError(f"unknown --mode '{config.mode}'; {did_you_mean(config.mode, MODES)}")
    if not config.limits and config.mode != "learn":
        raise ConfigError(
            "give --limits=FILE: what the robot may be told. Without limits nothing moves; "
            "docs/robots.md describes the file, --limits=er_sim_arm is the simulated arm's"
        )
    for name, least in (
        ("episodes", 1),
        ("horizon", 1),
        ("hold_steps", 0),
        ("steps", 1),
        ("save_freq", 0),
    ):
        if getattr(config, name) < least:
            raise ConfigError(f"--{name} must be at least {least}, got {getattr(config, name)}")
    if config.mode == "evaluate" and not config.policy.path:
        raise ConfigError("give the policy with --policy.path=RUN")
    if config.deadman and config.unattended:
        raise ConfigError("nobody holds a dead-man key in an unattended run")
    simulated = config.robot.type == lerobot_robots.SIMULATED
    if config.mode == "record" and config.teleop is None and not simulated:
        raise ConfigError("give --teleop.type=...: somebody has to demonstrate")
    if config.display not in ("auto", "rerun", "terminal", "none"):
        raise ConfigError(f"--display is auto, rerun, terminal or none, got '{config.display}'")
    if config.mode in ("finetune", "learn"):
        check_finetune(config)


def check_finetune(config: RolloutConfig) -> None:
    """Raise ConfigError for what cannot be fine-tuned."""
    if not isinstance(config.learner, SACConfig):
        raise ConfigError(
            f"--learner.type={config.learner.type} updates in the middle of episodes, for which a "
            "robot cannot wait; use --learner.type=sac"
        )
    check_pair(config.pair)
    start = config.policy.path or config.dataset.root or config.dataset.repo_id
    acts = config.mode == "finetune" and bool(config.pair.url)
    if acts and start:
        raise ConfigError(
            "with --pair.url the start is the learner's: give --dataset.* or --policy.path to "
            "`er rollout --mode=learn`"
        )
    if not acts and not start:
        raise ConfigError(
            "give a start: --policy.path=RUN, or --dataset.root=DEMOS to clone; a robot does not "
            "begin with random motions"
        )
    if config.mode == "learn":
        from embodied_reward.cli.pair.learner import check_learner

        check_learner(config)


def read_limits(name: str) -> dict[str, Any]:
    """Return a limits file's content: a path, or the name of one of ours. Raises ConfigError."""
    if "/" in name or "." in name or Path(name).is_file():
        return configs.read_yaml(Path(name))
    return configs.load_preset("robot", name)
