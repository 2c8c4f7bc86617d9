"""`--dataset.*`, as in LeRobot: where the episodes are and which of them to use."""

from dataclasses import dataclass, field

from embodied_reward.data import EpisodeSequence, open_dataset
from embodied_reward.data.formats.layout import Layout
from embodied_reward.errors import ConfigError


@dataclass(frozen=True)
class DatasetConfig:
    """Which dataset a verb reads."""

    root: tuple[str, ...] = ()
    """LeRobot v3 folder, zarr replay buffer, robomimic, LIBERO or ManiSkill HDF5, or a folder of
    videos; several, separated by commas, are concatenated"""
    repo_id: str | None = None
    """hub id of a LeRobot v3 dataset, instead of a folder"""
    episodes: tuple[int, ...] = ()
    """episode indices to use; empty takes all"""
    layout: Layout = field(default_factory=Layout)

    def label(self) -> str:
        """Return the dataset's name for messages and commands."""
        return self.repo_id or ",".join(self.root)

    def open(self) -> EpisodeSequence:
        """Open the dataset. Raises ConfigError or DatasetError."""
        if bool(self.root) == bool(self.repo_id):
            raise ConfigError("give exactly one of --dataset.root=FOLDER and --dataset.repo_id=ID")
        sequence = open_dataset(self.repo_id or list(self.root), layout=self.layout)
        bad = [i for i in self.episodes if not 0 <= i < len(sequence)]
        if bad:
            raise ConfigError(
                f"--dataset.episodes names {bad[0]}, but '{self.label()}' has {len(sequence)} "
                f"episodes, 0 to {len(sequence) - 1}"
            )
        return sequence.select(self.episodes) if self.episodes else sequence
