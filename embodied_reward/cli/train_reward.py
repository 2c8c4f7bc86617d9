"""Train a reward model from demonstrations.

er train-reward --dataset.root=DEMOS --reward_model.type=dopamine
er train-reward --dataset.root=ONE_DEMO --reward_model.path=PRETRAINED --episodes=0

The second form adapts a model that was trained on other tasks to a new one: settings come from
the model, steps and learning rate are those of the preset `adapt`, unless others are given.
Several tasks train one model with --dataset.root=TASK_A,TASK_B,...

er train-reward --dataset.root=EPISODES --reward_model.type=rapl --preferences=ANSWERS.jsonl

learns from answers of `er label-preferences` (rapl, rlhf, or an ensemble of them).

--reward_model.type=perceptual is fitted in closed form: options of gradient steps do not concern
it, and every demonstration is fitted to unless --val_fraction says otherwise.

With data sets of one task in several variants of the world (backgrounds, lights, object sizes),
--dataset.root=RED,GREEN,BLUE --decorrelation.type=sgfd learns sample weights under which what
tells the variants apart no longer goes with anything else (dopamine and remaining_time only).
"""

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied_reward import config as configs
from embodied_reward.cli.cache_config import CacheConfig
from embodied_reward.cli.command import run_verb
from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.cli.device import pick_device
from embodied_reward.data import EpisodeSequence, check_dataset
from embodied_reward.data.preferences import Preference, read_preferences
from embodied_reward.errors import ConfigError
from embodied_reward.files import replacing
from embodied_reward.rewards import (
    DopamineConfig,
    RewardModel,
    RewardModelConfig,
    load,
    pretrained_folder,
    registry,
)
from embodied_reward.rewards.base import FittedModel
from embodied_reward.rewards.preference_model import PreferenceModelConfig
from embodied_reward.rewards.success import SuccessModel
from embodied_reward.training.decorrelation import BatchWeights
from embodied_reward.training.decorrelation_config import DecorrelationConfig
from embodied_reward.training.fit_loop import RewardFitter
from embodied_reward.training.reward_loop import OptimizationConfig, RewardTrainer, split_episodes
from embodied_reward.training.run import default_output_dir, prepare_output_dir, save_config
from embodied_reward.training.seeding import seed_everything, set_threads
from embodied_reward.types import Episode

PREFERENCES = "preferences.jsonl"
"""The answers that a run learned from, in its folder."""


@dataclass(frozen=True)
class TrainRewardConfig(OptimizationConfig):
    """Everything `er train-reward` can be told."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    reward_model: RewardModelConfig = field(default_factory=DopamineConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    preferences: str | None = None
    """answers of `er label-preferences` about the dataset's episodes, for rapl and rlhf"""
    decorrelation: DecorrelationConfig = field(default_factory=DecorrelationConfig)
    episodes: tuple[int, ...] = ()
    """episodes of the dataset to use, the same as --dataset.episodes; empty takes all"""
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
    return run_verb(
        "train-reward", TrainRewardConfig, train_reward, argv, __doc__, implied_settings
    )


def implied_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Return what a model to start from, preferences, or a closed-form model imply.

    Raises:
        CheckpointError: --reward_model.path names no reward model.
    """
    preset = configs.load_preset("train-reward", "preferences") if given.get("preferences") else {}
    settings = {**preset, **pretrained_settings(given)}
    model = {**(given.get("reward_model") or {}), **settings.get("reward_model", {})}
    if issubclass(registry().get(str(model.get("type")), RewardModel), FittedModel):
        settings.setdefault("val_fraction", 0.0)
    return settings


def pretrained_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Return what --reward_model.path implies: the model's own settings and the preset `adapt`.

    Raises:
        CheckpointError: there is no reward model.
    """
    model = given.get("reward_model")
    path = model.get("path") if isinstance(model, dict) else None
    if not path:
        return {}
    tree = json.loads((pretrained_folder(Path(str(path))) / "config.json").read_text())
    settings = {k: v for k, v in tree["config"].items() if k != "path"}
    preset = configs.load_preset("train-reward", "adapt")
    changed = {k: v for k, v in preset["reward_model"].items() if k in settings}
    return {**preset, "reward_model": {**settings, **changed, "type": tree["type"]}}


def train_reward(config: TrainRewardConfig) -> int:
    """Train; prints where the best checkpoint is and what to type next."""
    episodes = training_episodes(config)
    views = config.reward_model.views or tuple(episodes.views)
    config = dataclasses.replace(
        config, reward_model=dataclasses.replace(config.reward_model, views=views)
    )
    check_dataset(episodes, views=views)
    preferences = _preferences(config)
    folder = _folder(config)
    set_threads(config.threads)
    seed_everything(config.seed)
    trainer = _trainer(config, list(episodes), preferences, folder)
    if config.resume:
        print(_resumed(trainer))
    save_config(config, folder)
    _keep_preferences(config, folder)
    _announce(config, trainer, folder)
    # Features of an encoder that is trained are old after every step; those of a frozen one stay.
    # A fit looks at each picture once.
    again = trainer.model.frozen and isinstance(trainer, RewardTrainer)
    frozen = [trainer.model] if again else []
    try:
        with config.cache.shared_by(*frozen):
            best = trainer.run()
    except KeyboardInterrupt:
        print(f"\nstopped at step {trainer.step}; continue with\n  {_resume_command(folder)}")
        return 130
    _closing(config, folder, best)
    return 0


def training_episodes(config: TrainRewardConfig) -> EpisodeSequence:
    """Open the episodes a run learns from and validates on. Raises ConfigError, DatasetError."""
    dataset = config.dataset
    if config.episodes and dataset.episodes:
        raise ConfigError("give --episodes or --dataset.episodes, not both: they are the same")
    return dataclasses.replace(dataset, episodes=config.episodes or dataset.episodes).open()


def _preferences(config: TrainRewardConfig) -> tuple[Preference, ...]:
    """Read the preferences about the dataset. Raises ConfigError, DatasetError."""
    kind = type(config.reward_model).get_choice_name(type(config.reward_model))
    if config.preferences:
        whole = dataclasses.replace(config.dataset, episodes=()).open()
        path = _preference_file(config)
        return read_preferences(path, whole.indices, dataset=config.dataset.label())
    if config.steps and isinstance(config.reward_model, PreferenceModelConfig):
        raise ConfigError(
            f"--reward_model.type={kind} learns from preferences: give --preferences=FILE, which "
            "`er label-preferences` writes"
            + (", or --steps=0 for transport without alignment" if kind == "rapl" else "")
        )
    return ()


def _preference_file(config: TrainRewardConfig) -> str | Path:
    """Return the answers; a resumed run reads its own copy, because people go on answering."""
    assert config.preferences is not None
    own = Path(config.output_dir or ".") / PREFERENCES
    return own if config.resume and own.is_file() else config.preferences


def _keep_preferences(config: TrainRewardConfig, folder: Path) -> None:
    if config.preferences and not (folder / PREFERENCES).exists():
        with replacing(folder / PREFERENCES) as temporary:
            shutil.copyfile(config.preferences, temporary)


def _trainer(
    config: TrainRewardConfig,
    episodes: list[Episode],
    preferences: tuple[Preference, ...],
    folder: Path,
) -> RewardTrainer | RewardFitter:
    training, validation = split_episodes(episodes, config.val_fraction, config.seed)
    tasks = {episode.task for episode in training}
    # A model of several tasks reads each episode against the goals of the episode's own task.
    task = tasks.pop() if len(tasks) == 1 else ""
    model = _model(config, task).to(pick_device(config.device))
    if preferences:
        model.learn_from(preferences)
    if isinstance(model, FittedModel):
        if config.decorrelation.on:
            raise ConfigError(
                "a model that is fitted in closed form has no samples to weigh; leave "
                "--decorrelation.type out"
            )
        return RewardFitter(model, training, validation, config=config, folder=folder)
    return RewardTrainer(
        model,
        training,
        validation,
        config=config,
        folder=folder,
        seed=config.seed,
        weights=_weights(config, training),
    )


def _resumed(trainer: RewardTrainer | RewardFitter) -> str:
    if not trainer.resume():
        return "no checkpoint yet"
    if isinstance(trainer, RewardFitter):
        return "fitted already; nothing is left to do"
    return f"resuming at step {trainer.step}"


def _weights(config: TrainRewardConfig, training: list[Episode]) -> BatchWeights | None:
    if not config.decorrelation.on:
        return None
    tasks, variants = ({e.task for e in training}, {e.variant for e in training})
    if config.decorrelation.type == "sgfd" and len(tasks) > 1:
        raise ConfigError(
            "--decorrelation.type=sgfd takes every --dataset.root for a variant of one task, but "
            f"these hold {len(tasks)}: {', '.join(sorted(tasks)[:5])}"
        )
    count = max(variants) + 1 if len(variants) > 1 else 1
    return BatchWeights(config.decorrelation, variants=count, seed=config.seed)


def _model(config: TrainRewardConfig, task: str) -> RewardModel:
    settings = config.reward_model
    if settings.path:
        model = load(settings.path)
        model.adapt(settings, task)
        return model
    kind = type(settings).get_choice_name(type(settings))
    return registry()[kind].create(settings, task=task)  # type: ignore[attr-defined]


def _folder(config: TrainRewardConfig) -> Path:
    if config.resume and config.output_dir is None:
        raise ConfigError("--resume=true needs --output_dir=RUN, the folder of the run to continue")
    kind = type(config.reward_model).get_choice_name(type(config.reward_model))
    name = config.job_name or f"{kind}_{Path(config.dataset.label()).name}"
    path = (
        Path(config.output_dir) if config.output_dir else default_output_dir("train-reward", name)
    )
    return prepare_output_dir(path, resume=config.resume)


def _announce(
    config: TrainRewardConfig, trainer: RewardTrainer | RewardFitter, folder: Path
) -> None:
    parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    how = f"{parameters:,} trained parameters" if parameters else "fitted without gradient steps"
    print(
        f"{trainer.model.name}: {how}, views "
        f"{', '.join(config.reward_model.views)}; {trainer.count} training and "
        f"{len(trainer.validation)} validation episodes\nrun folder: {folder}"
    )


def _closing(config: TrainRewardConfig, folder: Path, best: Path) -> None:
    model = load(best)
    if isinstance(model, SuccessModel):
        fitted = model.calibration
        print(
            f"best checkpoint: {best}\n"
            f"{fitted.describe() if fitted else 'threshold 0.5, not calibrated'}\n\nnext:\n"
            f"  er calibrate-success --success.path={folder} --dataset.root=FAILURES\n"
            f"  er train-policy --env.id=ENV --success.path={folder} --reward.mode=potential "
            f"--reward.path=REWARD_RUN --dataset.root={config.dataset.label()}"
        )
        return
    if (folder / "steps.png").is_file():
        print(f"{model.card.extra['steps']} steps: {folder / 'steps.png'}")
    print(
        f"best checkpoint: {best}\n\nnext:\n"
        f"  er eval-reward --reward_model.path={folder} --dataset.root=UNSEEN_EPISODES\n"
        f"  er train-policy --env.id=ENV --reward.path={folder} --reward.mode=potential "
        f"--dataset.root={config.dataset.label()}"
    )


def _resume_command(folder: Path) -> str:
    return f"er train-reward --output_dir={folder} --resume=true"
