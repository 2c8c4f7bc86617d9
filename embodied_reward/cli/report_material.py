"""Which episodes a report is about, found from what was typed and from the run's own config."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embodied_reward import config as configs
from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.cli.train_reward import TrainRewardConfig, training_episodes
from embodied_reward.errors import ConfigError
from embodied_reward.training.reward_loop import split_episodes
from embodied_reward.types import Episode


@dataclass(frozen=True)
class Material:
    """Episodes to measure on and demonstrations to take goal pictures from.

    Attributes:
        episodes: what is measured.
        said: which episodes these are, in one sentence.
        caution: why the numbers may flatter; empty where they do not.
        demos: where goal pictures come from.
        reference: the same in words.
        dataset: name of the dataset.
    """

    episodes: Sequence[Episode]
    said: str
    caution: str
    demos: Sequence[Episode]
    reference: str
    dataset: str


def run_folder(path: Path) -> Path | None:
    """Return the run folder that holds `config.yaml`: `path` or one of the four above it."""
    folders = [path, *path.absolute().parents[:4]]
    return next((f for f in folders if (f / "config.yaml").is_file()), None)


def find_material(run: Path | None, dataset: DatasetConfig, reference: DatasetConfig) -> Material:
    """Return the episodes that were asked for, or the run's validation episodes.

    Raises:
        ConfigError: no dataset was given and the run does not name one.
        DatasetError: a dataset that cannot be read.
    """
    trained = _training_config(run)
    if dataset.root or dataset.repo_id:
        return _given(dataset, reference, trained)
    if trained is None:
        raise ConfigError(
            "there is no config.yaml of `er train-reward` beside the model, so its dataset is not "
            "known; give the episodes to measure on with --dataset.root=FOLDER"
        )
    return _held_out(trained, reference)


def _given(
    dataset: DatasetConfig, reference: DatasetConfig, trained: TrainRewardConfig | None
) -> Material:
    episodes = dataset.open()
    seen = trained is not None and bool(_places(dataset) & _places(trained.dataset))
    said = f"All {len(episodes)} episodes given with --dataset ({dataset.label()})."
    if trained is not None and not seen:
        said = f"{len(episodes)} unseen episodes: the model was trained on another dataset."
    caution = (
        "These episodes come from the dataset that the model was trained on, training episodes "
        "included: expect worse numbers on unseen ones."
        if seen
        else ""
    )
    demos, name = _demos(reference, trained, episodes)
    return Material(episodes, said, caution, demos, name, dataset.label())


def _held_out(trained: TrainRewardConfig, reference: DatasetConfig) -> Material:
    every = list(training_episodes(trained))
    training, validation = split_episodes(every, trained.val_fraction, trained.seed)
    label = trained.dataset.label()
    if validation:
        said = f"The run's validation split: {len(validation)} of {len(every)} episodes."
        caution = (
            "The best checkpoint was chosen, and what is calibrated was calibrated, on these "
            "episodes: measure on unseen ones with --dataset.root=FOLDER."
        )
    else:
        said = f"The run's {len(training)} training episodes; it held none out."
        caution = "The model was trained on these episodes: expect worse numbers on unseen ones."
    demos, name = training, f"the training episodes of {label}"
    if reference.root or reference.repo_id:
        demos, name = reference.open(), reference.label()
    return Material(validation or training, said, caution, demos, name, label)


def _demos(
    reference: DatasetConfig, trained: TrainRewardConfig | None, episodes: Sequence[Episode]
) -> tuple[Sequence[Episode], str]:
    if reference.root or reference.repo_id:
        return reference.open(), reference.label()
    if trained is not None and _readable(trained.dataset):
        return trained.dataset.open(), f"the training dataset {trained.dataset.label()}"
    # Generous to the baseline: it sees goals of the very episodes it is judged on.
    return episodes, "the measured episodes' own successes"


def _training_config(run: Path | None) -> TrainRewardConfig | None:
    if run is None:
        return None
    return configs.decode(TrainRewardConfig, configs.read_yaml(run / "config.yaml"))


def _places(dataset: DatasetConfig) -> set[str]:
    if dataset.repo_id:
        return {dataset.repo_id}
    return {str(Path(root).expanduser().resolve()) for root in dataset.root}


def _readable(dataset: DatasetConfig) -> bool:
    return bool(dataset.repo_id) or all(Path(r).exists() for r in dataset.root)
