"""Train SAC or PPO on a learned, true or sparse reward, from a cloned start.

er train-policy --env.id=metaworld/window-open-v3 --policy.type=sac --dataset.root=DEMOS
    --reward.path=REWARD_RUN --reward.mode=potential --steps=3000

er train-policy --env.id=... --policy.type=diffusion --dataset.root=DEMOS --steps=3000
er train-policy --env.id=... --policy.type=diffusion --policy.path=RUN --finetune.type=dsrl
    --reward.mode=success --steps=1000

The first clones LeRobot's DiffusionPolicy, the second lets SAC steer its noise (docs/diffusion.md).
--finetune.type=dsrl, dsrl_na, residual, best_of_n and noise_search leave the diffusion policy as it
is. Others change its weights and write a diffusion policy again: dppo by PPO over the denoising
steps, prdp by regressing likelihoods onto differences of reward, tp_grpo by what every step
changed, euphonium along a critic's gradient, rwr by cloning the better of its own plans, with
--dataset.root=DEMOS beside demonstrations, preference by the order of their rewards alone (D3PO),
or without a rollout by --preferences=FILE of `er label-preferences` about --dataset.root=EPISODES.

With --robot.type=... instead of --env.id it trains on that LeRobot robot, as `er rollout
--mode=finetune` does, which says what else that takes (docs/robots.md).

A success detector (--success.path=RUN of `er train-reward --reward_model.type=success`) watches:
its false and missed successes are logged beside the simulator's truth. It pays nothing unless
--success.pays=true.

--decorrelation.type=sgfd weighs the replayed transitions so that what tells the variants of the
environment apart (info["variant"], or the data sets of --dataset.root) no longer goes with
anything else; SAC only.

Reward modes: potential (learned, keeps the optimal policy), success, absolute, level (learned
alone), difference, difference_gold, delayed, oracle (true progress), task (the environment's
dense reward).
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from embodied_reward import config as configs
from embodied_reward.cli.cache_config import CacheConfig
from embodied_reward.cli.command import run_verb
from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.cli.env_config import EnvConfig
from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.policies.blends.config import BlendConfig
from embodied_reward.policies.config import DiffusionConfig, PolicyConfig, SACConfig
from embodied_reward.policies.finetune.config import FinetuneConfig, NoFinetuneConfig
from embodied_reward.shaping import RewardMode, mode_named
from embodied_reward.training.decorrelation_config import DecorrelationConfig

if TYPE_CHECKING:
    from embodied_reward.cli.diffusion_run import DiffusionRun
    from embodied_reward.cli.policy_run import PolicyRun


@dataclass(frozen=True)
class RewardConfig:
    """What the policy learns from."""

    mode: str = "potential"
    """potential, success, absolute, level, difference, difference_gold, delayed, oracle or task"""
    path: str | None = None
    """trained reward model: run folder, checkpoint or pretrained_model"""
    kappa: float = 1.0
    """scale of the potential; 1 suits a base reward of 1 at success"""
    tiers: int = 0
    """steps into which the potential is divided, 4 is a good number; 0 leaves it continuous"""
    hysteresis: float = 0.05
    """how far the progress must fall below a tier's lower edge before the tier is lost"""
    blend: str = "fixed"
    """how base and learned reward are put together: fixed (kappa as given), bilevel, calibrated,
    exploration, group or uncertainty; `--blend.*` has their settings, see docs/blends.md"""
    views: tuple[str, ...] = ()
    """cameras to render; empty takes all that the models know. They mask what they do not see"""


@dataclass(frozen=True)
class WatchConfig:
    """Which detector watches for success."""

    path: str | None = None
    """success detector, or a reward model with a success head (0.5 for 3 frames); it only
    watches. Default: the success head of --reward.path, where that is scored anyway"""
    pays: bool = False
    """let the detector pay in place of the simulator: its mistakes are then what is learned"""


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation while training; every evaluation meets the same starts."""

    freq: int = 500
    """decisions (or gradient steps of cloning) between evaluations; 0 evaluates at the start and
    the end only"""
    rollouts: int = 0
    """finished episodes of the learner between evaluations, instead of decisions; 0 counts those"""
    n_episodes: int = 20
    """episodes per evaluation"""
    seed: int = 10_000
    """reset seed of the first evaluation episode"""


@dataclass(frozen=True)
class TrainPolicyConfig:
    """Everything `er train-policy` can be told."""

    env: EnvConfig = field(default_factory=EnvConfig)
    policy: PolicyConfig = field(default_factory=SACConfig)
    finetune: FinetuneConfig = field(default_factory=NoFinetuneConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    success: WatchConfig = field(default_factory=WatchConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    preferences: str | None = None
    """answers of `er label-preferences` about the episodes of --dataset.root, for
    --finetune.type=preference, which then learns from these alone, without a rollout"""
    eval: EvalConfig = field(default_factory=EvalConfig)
    blend: BlendConfig = field(default_factory=BlendConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    decorrelation: DecorrelationConfig = field(default_factory=DecorrelationConfig)
    steps: int = 4000
    """decisions in all, over all environments; a fine-tuned diffusion policy decides once per plan,
    and cloning one (or learning from --preferences) takes so many gradient steps"""
    rollouts: int = 0
    """episodes after which the run ends, if that comes before --steps; 0 has no such end"""
    n_envs: int = 1
    """environments, scored in one batch"""
    workers: str = "serial"
    """serial steps the environments in turn; subprocess gives each its own process, and scores
    frames while slower environments still simulate"""
    worker_timeout: float = 60.0
    """seconds that an environment in a process of its own may take for a decision or a reset before
    the run ends with an error that names it; ten times that for its making"""
    seed: int = 1000
    """seed of scenes, weights, batches and exploration"""
    threads: int = 0
    """torch CPU threads; 0 chooses"""
    job_name: str = ""
    """name of the run folder; default: algorithm, reward mode and task"""
    output_dir: str | None = None
    """run folder; default: outputs/train-policy/<date>_<name>"""
    resume: bool = False
    """continue the run in --output_dir from its newest checkpoint"""


def main(argv: list[str]) -> int:
    """Entry point of `er train-policy`; with --robot.* it is `er rollout --mode=finetune`."""
    if _on_robot(argv):
        from embodied_reward.cli import rollout

        words = [re.sub(r"^--policy\.(?!path\b)", "--learner.", word) for word in argv]
        return rollout.main(["--mode=finetune", *words])
    return run_verb("train-policy", TrainPolicyConfig, train_policy, argv, __doc__)


def _on_robot(argv: list[str]) -> bool:
    """Return whether the words name a robot, or continue or repeat a run that has one."""
    given = dict(word[2:].split("=", 1) for word in argv if word[:2] == "--" and "=" in word)
    if any(key.startswith("robot.") for key in given):
        return True
    file = Path(given.get("config_path", ""))
    if given.get("resume", "").lower() == "true" and "output_dir" in given:
        file = Path(given["output_dir"]) / "config.yaml"
    # What cannot be read is reported by whoever parses the words.
    return file.is_file() and "robot" in configs.read_yaml(file)


def train_policy(config: TrainPolicyConfig) -> int:
    """Train; prints a table and what to type next."""
    from embodied_reward.training.seeding import seed_everything, set_threads

    mode = checked(config)
    folder = run_folder(config)
    set_threads(config.threads)
    seed_everything(config.seed)
    with _removed_if_empty(folder):
        run = _run(config, mode, folder)
        print(f"run folder: {folder}")
        try:
            done = run.prepare()
            print(run.opening())
            if watching := run.watching():
                print(watching)
            if done:
                print(f"resuming at {'step' if clones(config) else 'decision'} {done}")
            run.learn()
        except KeyboardInterrupt:
            print(
                f"\nstopped; continue with\n  er train-policy --output_dir={folder} --resume=true"
            )
            return 130
        finally:
            run.close()
    print(run.closing())
    return 0


@contextlib.contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    """Leave no folder of a run that was refused before it began."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _run(config: TrainPolicyConfig, mode: RewardMode, folder: Path) -> "PolicyRun | DiffusionRun":
    if config.preferences:
        from embodied_reward.cli.preference_run import PreferenceRun

        return PreferenceRun(config, folder)
    if clones(config):
        from embodied_reward.cli.diffusion_run import DiffusionRun

        return DiffusionRun(config, folder)
    from embodied_reward.cli.policy_run import PolicyRun

    return PolicyRun(config, mode, folder)


def clones(config: TrainPolicyConfig) -> bool:
    """Return whether the run learns from recorded episodes alone, not from a reward."""
    offline = config.finetune.type == "none" or bool(config.preferences)
    return isinstance(config.policy, DiffusionConfig) and offline


def checked(config: TrainPolicyConfig) -> RewardMode:
    """Check what can be checked before anything is built. Raises ConfigError."""
    mode = mode_named(config.reward.mode)
    if clones(config):
        check_cloning(config)
    elif mode.source == "scorer" and not config.reward.path:
        raise ConfigError(
            f"--reward.mode={mode.name} needs --reward.path=RUN, a model from `er train-reward`; "
            "without one choose --reward.mode=success, oracle or task"
        )
    if config.success.pays and not config.success.path:
        raise ConfigError("--success.pays=true needs --success.path=RUN, the detector that pays")
    if config.success.pays and mode.base != "success":
        raise ConfigError(
            f"--reward.mode={mode.name} pays the environment's own reward, so a detector cannot "
            "pay as well: leave --success.pays out or choose another mode"
        )
    config.policy.check()
    check_finetune(config)
    for name, value in (("steps", config.steps), ("n_envs", config.n_envs)):
        if value < 1:
            raise ConfigError(f"--{name} must be at least 1, got {value}")
    check_workers(config)
    if config.eval.n_episodes < 1 or config.eval.freq < 0:
        raise ConfigError("--eval.n_episodes must be at least 1 and --eval.freq at least 0")
    check_rollouts(config)
    if not config.reward.kappa > 0:
        raise ConfigError(f"--reward.kappa must be positive, got {config.reward.kappa}")
    check_tiers(config.reward, mode)
    check_blend(config.reward.blend, config.blend, mode)
    if config.decorrelation.on and not isinstance(config.policy, SACConfig):
        raise ConfigError(
            f"--decorrelation.type weighs replayed transitions, which --policy.type="
            f"{config.policy.type} has none of; use --policy.type=sac"
        )
    return mode


def check_rollouts(config: TrainPolicyConfig) -> None:
    """Raise ConfigError for numbers of rollouts that cannot be, or that nothing would count."""
    for name, value in (("rollouts", config.rollouts), ("eval.rollouts", config.eval.rollouts)):
        if value < 0:
            raise ConfigError(f"--{name} must be at least 0, got {value}")
        if value and clones(config):
            raise ConfigError(f"cloning a diffusion policy rolls nothing out: leave --{name} out")


def check_cloning(config: TrainPolicyConfig) -> None:
    """Raise ConfigError for what a cloning run lacks or would ignore."""
    assert isinstance(config.policy, DiffusionConfig)
    weighted = config.policy.weighting == "progress"
    if weighted and not config.reward.path:
        raise ConfigError(
            "--policy.weighting=progress needs --reward.path=RUN, the reward model that sees it"
        )
    if config.reward.blend != "fixed":
        raise ConfigError("cloning pays no reward: leave --reward.blend out")
    if config.reward.path and not weighted:
        raise ConfigError(
            "cloning pays no reward: leave --reward.path out or set --policy.weighting=progress"
        )


def check_finetune(config: TrainPolicyConfig) -> None:
    """Raise ConfigError for a fine-tuning without a policy, or a policy without fine-tuning."""
    config.finetune.check()
    check_preferences(config)
    path = config.policy.path if isinstance(config.policy, DiffusionConfig) else None
    if config.finetune.type == "none":
        if path:
            raise ConfigError(
                "--policy.path names a policy to fine-tune: say how with --finetune.type=dsrl, "
                "dsrl_na, residual, best_of_n, noise_search, dppo, prdp, tp_grpo, euphonium, "
                "rwr or preference"
            )
        return
    if not path:
        raise ConfigError(
            f"--finetune.type={config.finetune.type} needs --policy.type=diffusion "
            "--policy.path=RUN, a run that cloned a diffusion policy"
        )
    if config.preferences:
        return
    if (config.dataset.root or config.dataset.repo_id) and not anchored(config):
        raise ConfigError(
            f"--finetune.type={config.finetune.type} learns from its own rollouts alone: leave "
            "--dataset.* out, or clone demonstrations beside them with --finetune.type=rwr"
        )


def check_preferences(config: TrainPolicyConfig) -> None:
    """Raise ConfigError for answers that nothing would read, or without their episodes."""
    if not config.preferences:
        return
    if config.finetune.type != "preference":
        raise ConfigError(
            "--preferences is read by --policy.type=diffusion --policy.path=RUN "
            f"--finetune.type=preference alone, not with --finetune.type={config.finetune.type}; "
            "`er train-reward --reward_model.type=rapl` makes a reward of it for the others"
        )
    if not (config.dataset.root or config.dataset.repo_id):
        raise ConfigError("--preferences needs --dataset.root=EPISODES, what the answers are about")


def anchored(config: TrainPolicyConfig) -> bool:
    """Return whether a fine-tuning has a share of demonstrations."""
    from embodied_reward.policies.finetune.plan_options import RWRConfig

    return isinstance(config.finetune, RWRConfig) and config.finetune.demo_fraction > 0


def check_workers(config: TrainPolicyConfig) -> None:
    """Raise ConfigError for a way of stepping that there is not, or that cannot be."""
    known = ("serial", "subprocess")
    if config.workers not in known:
        hint = did_you_mean(config.workers, known)
        raise ConfigError(f"--workers={config.workers} is unknown; {hint}")
    if not config.worker_timeout > 0:
        raise ConfigError(f"--worker_timeout must be positive, got {config.worker_timeout}")
    if config.workers == "subprocess" and config.success.pays:
        raise ConfigError(
            "--success.pays=true judges inside each environment, which --workers=subprocess has in "
            "other processes, away from the detector; use --workers=serial"
        )


def check_blend(name: str, blend: BlendConfig, mode: RewardMode) -> None:
    """Raise ConfigError for a blend that there is not, or that has nothing to blend."""
    from embodied_reward.policies.blends import check

    check(name, blend)
    if mode.source == "none" and name not in ("fixed", "exploration"):
        raise ConfigError(
            f"--reward.mode={mode.name} adds no learned reward that --reward.blend={name} could "
            "weigh; leave it out or choose another mode"
        )
    if mode.source == "progress" and name == "uncertainty":
        raise ConfigError(
            "--reward.mode=oracle knows the true progress, which has no uncertainty: leave "
            "--reward.blend=uncertainty out"
        )


def check_tiers(reward: RewardConfig, mode: RewardMode) -> None:
    """Raise ConfigError for tiers that cannot be built or would be ignored."""
    from embodied_reward.shaping.tiers import Tiers

    if reward.tiers == 0:
        return
    if mode.source == "none":
        raise ConfigError(f"--reward.mode={mode.name} uses no potential: leave --reward.tiers out")
    Tiers(reward.tiers, reward.hysteresis)


def run_folder(config: TrainPolicyConfig) -> Path:
    """Create the run folder. Raises ConfigError if it is in use."""
    from embodied_reward.training.run import default_output_dir, prepare_output_dir

    if config.resume and config.output_dir is None:
        raise ConfigError("--resume=true needs --output_dir=RUN, the folder of the run to continue")
    reward = "clone" if clones(config) else config.reward.mode
    reward = "answers" if config.preferences else reward
    method = config.finetune.type
    method = config.policy.type if method == "none" else method
    parts = (method, reward, config.env.id.split("/")[-1])
    name = config.job_name or "_".join(parts)
    path = (
        Path(config.output_dir) if config.output_dir else default_output_dir("train-policy", name)
    )
    return prepare_output_dir(path, resume=config.resume)
