"""Label every frame of a dataset with a reward model: LeRobot's progress sidecar.

er label --dataset.root=DATA --reward_model.path=RUN [--shard=1/4] [--output=FILE]

Writes DATA/er_progress.parquet, which LeRobot's training takes with
--sample_weighting.type=rabc --sample_weighting.progress_path=DATA/er_progress.parquet.
Stopped, even killed, it continues where it was when the same command is given again. With
--shard=i/n, n processes or machines share the episodes; the last one to finish joins their parts
(--merge=true joins alone).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embodied_reward.cli.cache_config import CacheConfig
from embodied_reward.cli.command import run_verb
from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.cli.progress_bar import progress_bar
from embodied_reward.cli.reward_model_path import RewardModelPath
from embodied_reward.data import EpisodeSequence
from embodied_reward.data.labels import SHA256, EpisodeLabels, LabelFile
from embodied_reward.errors import ConfigError, DatasetError, EmbodiedRewardError
from embodied_reward.scoring.status import Status
from embodied_reward.types import Bool, Episode, UInt8

if TYPE_CHECKING:
    from embodied_reward.rewards import RewardModel

SIDECAR = "er_progress.parquet"


@dataclass(frozen=True)
class LabelConfig:
    """Everything `er label` can be told."""

    reward_model: RewardModelPath = field(default_factory=RewardModelPath)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    output: str | None = None
    """file to write; default: er_progress.parquet in the dataset's folder"""
    shard: str = "1/1"
    """i/n labels every n-th episode, i from 1 to n"""
    merge: bool = False
    """only join the parts that shards have written"""
    overwrite: bool = False
    """replace labels of another model, or of the dataset before it changed"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    device: str = "cpu"
    """cpu, cuda or mps"""
    threads: int = 0
    """torch CPU threads; 0 chooses"""


def main(argv: list[str]) -> int:
    """Entry point of `er label`."""
    return run_verb("label", LabelConfig, label, argv, __doc__)


def label(config: LabelConfig) -> int:
    """Label this shard's episodes, and join the parts if they are complete."""
    from embodied_reward import rewards
    from embodied_reward.training.seeding import set_threads

    shard, count = parse_shard(config.shard)
    root = _root(config)
    if config.reward_model.path is None:
        raise ConfigError("give the reward model with --reward_model.path=RUN")
    model = rewards.load_progress(config.reward_model.path, device=config.device)
    episodes = config.dataset.open()
    set_threads(config.threads)
    output = Path(config.output) if config.output else root / SIDECAR
    file = LabelFile(output, _about(config, model), episodes.lengths)
    if not config.overwrite and file.finished():
        print(f"nothing to do: {output} holds this model's labels of every frame")
        return 0
    file.begin(overwrite=config.overwrite)
    if not config.merge:
        mine = [k for k in file.missing() if k % count == shard]
        _label(config, model, episodes, file, mine)
    left = file.missing()
    if left and file.begun() and not config.merge:
        print(f"shard {config.shard} is done; {len(left)} episodes are left to other shards")
        return 0
    _closing(file)
    return 0


def parse_shard(text: str) -> tuple[int, int]:
    """Return the shard, from 0, and how many there are. Raises ConfigError."""
    parts = text.split("/")
    if len(parts) != 2 or not all(p.isdecimal() for p in parts):
        raise ConfigError(f"--shard={text}: give i/n, such as 1/4, 2/4, 3/4 and 4/4")
    shard, count = map(int, parts)
    if not 1 <= shard <= count:
        raise ConfigError(f"--shard={text}: i runs from 1 to n")
    return shard - 1, count


def label_episode(model: "RewardModel", episode: Episode, rows: dict) -> EpisodeLabels:
    """Score one episode; a frame that cannot be scored is NaN with a status.

    Args:
        model: in eval mode.
        episode: to score.
        rows: its `index`, `episode_index` and `frame_index`, each Int64["t"].
    """
    try:
        scores = model.score_episode(episode)
    except EmbodiedRewardError as error:
        bad = Status.BAD_INPUT if isinstance(error, DatasetError) else Status.SCORER_ERROR
        print(f"no labels for {episode.source}: {error}")
        nothing = np.full(len(episode), np.nan)
        status = np.full(len(episode), bad, np.uint8)
        return EpisodeLabels(rows, nothing, nothing, nothing, status)
    status = _status(model, episode, np.isfinite(scores.potential))
    good = status == Status.OK
    return EpisodeLabels(
        rows,
        *(
            np.where(good, values, np.nan)
            for values in (scores.potential, scores.success, scores.uncertainty)
        ),
        status=status,
    )


def _status(model: "RewardModel", episode: Episode, good: Bool) -> UInt8:
    """Say of every frame without a score whether it showed anything."""
    from embodied_reward.vision.frames import episode_frames

    status = np.full(len(good), Status.OK, np.uint8)
    if not good.all():
        _, present = episode_frames(episode, model.card.views, model.card.image_size)
        blind = ~present.any(1).numpy()
        status[~good] = np.where(blind, Status.BAD_INPUT, Status.SCORER_ERROR)[~good]
    return status


def _label(
    config: LabelConfig,
    model: "RewardModel",
    episodes: EpisodeSequence,
    file: LabelFile,
    mine: list[int],
) -> None:
    with config.cache.shared_by(model), progress_bar() as bar:
        task = bar.add_task("frames", total=sum(episodes.lengths[k] for k in mine))
        for k in mine:
            file.write(k, label_episode(model, episodes[k], episodes.rows(k)))
            bar.advance(task, episodes.lengths[k])


def _closing(file: LabelFile) -> None:
    table = file.join()
    status = table.column("status").to_numpy()
    names = {s: int((status == s).sum()) for s in Status}
    failed = ", ".join(f"{n} {s.name}" for s, n in names.items() if n and s != Status.OK)
    print(
        f"{names[Status.OK]} of {len(table)} frames in {len(file.lengths)} episodes are labelled"
        + (f"; without a label, NaN: {failed}" if failed else "")
        + f"\nlabels: {file.path}\n\nnext, in LeRobot's training:\n"
        f"  --sample_weighting.type=rabc --sample_weighting.progress_path={file.path}"
    )


def _about(config: LabelConfig, model: "RewardModel") -> dict[str, str]:
    return {
        "reward_model_path": str(config.reward_model.path),
        "reward_model_type": model.card.type,
        SHA256: model.card.weights_sha256,
    }


def _root(config: LabelConfig) -> Path:
    if len(config.dataset.root) != 1 or config.dataset.repo_id:
        raise ConfigError("labels lie beside one dataset: give one --dataset.root=FOLDER")
    if config.dataset.episodes:
        raise ConfigError("every frame gets a label: leave --dataset.episodes out, use --shard=i/n")
    root = Path(config.dataset.root[0])
    if root.is_file() and not config.output:
        raise ConfigError(
            f"LeRobot reads labels that lie in its own dataset folder, and '{root}' is a file: "
            "convert it first with 'er data convert', or name the labels' file with --output=FILE"
        )
    return root
