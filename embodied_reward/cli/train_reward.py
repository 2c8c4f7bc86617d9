"""Train a reward model from demonstrations.

er train-reward --dataset.root=DEMOS --reward_model.type=dopamine [--preset=quick]
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch

from embodied_reward.cli.command import run_verb
from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.data import check_dataset
from embodied_reward.errors import ConfigError
from embodied_reward.rewards import DopamineConfig, RewardModelConfig, registry
from embodied_reward.training.reward_loop import OptimizationConfig, RewardTrainer, split_episodes
from embodied_reward.training.run import default_output_dir, prepare_output_dir, save_config
from embodied_reward.training.seeding import seed_everything, set_threads


@dataclass(frozen=True)
class TrainRewardConfig(OptimizationConfig):
    """Everything `er train-reward` can be told."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    reward_model: RewardModelConfig = field(default_factory=DopamineConfig)
    seed: int = 1000
    """seed of the split, the weights and every batch"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    threads: int = 0
    """torch CPU threads; 0 chooses"""
    job_name: str = ""
    """name of the run folder; default: type and task"""
    output_dir: str | None = None
    """run folder; default: outputs/train-reward/<date>_<name>"""
    resume: bool = False
    """continue the run in --output_dir from its newest checkpoint"""


def main(argv: list[str]) -> int:
    """Entry point of `er train-reward`."""
    return run_verb("train-reward", TrainRewardConfig, train_reward, argv, __doc__)


def train_reward(config: TrainRewardConfig) -> int:
    """Train; prints where the best checkpoint is and what to type next."""
    episodes = config.dataset.open()
    views = config.reward_model.views or tuple(episodes.views)
    config = dataclasses.replace(
        config, reward_model=dataclasses.replace(config.reward_model, views=views)
    )
    check_dataset(episodes, views=views)
    folder = _folder(config)
    set_threads(config.threads)
    seed_everything(config.seed)
    trainer = _trainer(config, list(episodes), folder)
    if config.resume:
        print(f"resuming at step {trainer.step}" if trainer.resume() else "no checkpoint yet")
    save_config(config, folder)
    _announce(config, trainer, folder)
    try:
        best = trainer.run()
    except KeyboardInterrupt:
        print(f"\nstopped at step {trainer.step}; continue with\n  {_resume_command(folder)}")
        return 130
    _closing(config, folder, best)
    return 0


def _trainer(config: TrainRewardConfig, episodes: list, folder: Path) -> RewardTrainer:
    training, validation = split_episodes(episodes, config.val_fraction, config.seed)
    kind = type(config.reward_model).get_choice_name(type(config.reward_model))
    model = registry()[kind].create(config.reward_model, task=training[0].task)  # type: ignore[attr-defined]
    return RewardTrainer(
        model.to(pick_device(config.device)),
        training,
        validation,
        config=config,
        folder=folder,
        seed=config.seed,
    )


def pick_device(name: str) -> str:
    """Turn `auto` into the best device that is there. Raises ConfigError for one that is not."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, there in available.items() if there)
    if not available.get(name.split(":")[0], False):
        there = ", ".join(d for d, ok in available.items() if ok)
        raise ConfigError(f"--device={name} is not available here; available: {there}")
    return name


def _folder(config: TrainRewardConfig) -> Path:
    if config.resume and config.output_dir is None:
        raise ConfigError("--resume=true needs --output_dir=RUN, the folder of the run to continue")
    kind = type(config.reward_model).get_choice_name(type(config.reward_model))
    name = config.job_name or f"{kind}_{Path(config.dataset.label()).name}"
    path = (
        Path(config.output_dir) if config.output_dir else default_output_dir("train-reward", name)
    )
    return prepare_output_dir(path, resume=config.resume)


def _announce(config: TrainRewardConfig, trainer: RewardTrainer, folder: Path) -> None:
    parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    print(
        f"{trainer.model.name}: {parameters:,} trained parameters, views "
        f"{', '.join(config.reward_model.views)}; {trainer.count} training and "
        f"{len(trainer.validation)} validation episodes\nrun folder: {folder}"
    )


def _closing(config: TrainRewardConfig, folder: Path, best: Path) -> None:
    print(
        f"best checkpoint: {best}\n\nnext:\n"
        f"  er eval-reward --reward_model.path={folder} --dataset.root=UNSEEN_EPISODES\n"
        f"  er train-policy --env.id=ENV --reward.path={folder} --reward.mode=potential "
        f"--dataset.root={config.dataset.label()}"
    )


def _resume_command(folder: Path) -> str:
    return f"er train-reward --output_dir={folder} --resume=true"
