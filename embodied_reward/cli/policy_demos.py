"""Which demonstrations a policy may learn from."""

from typing import TYPE_CHECKING

from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.data import EpisodeSequence
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.types import Episode

if TYPE_CHECKING:
    from embodied_reward.envs import VisualEnv


def successful_episodes(dataset: DatasetConfig) -> EpisodeSequence | None:
    """Open the demonstrations that succeeded, None where no dataset is given.

    Raises:
        DatasetError: none succeeded, or the dataset cannot be read.
    """
    if not (dataset.root or dataset.repo_id):
        return None
    everything = dataset.open()
    good = [i for i, won in enumerate(everything.successes) if won is not False]
    if not good:
        raise DatasetError(
            f"'{dataset.label()}' holds no successful episode to learn from; "
            "record some with `er collect --quality=expert`"
        )
    return everything.select(good)


def check_rate(env: "VisualEnv", episode: Episode, action_repeat: int) -> None:
    """Raise ConfigError where the environment decides at another rate than was recorded."""
    rate = float(env.metadata["render_fps"])
    if abs(rate - episode.fps) > 0.01 * rate:
        raise ConfigError(
            f"{episode.source} was recorded at {episode.fps:g} decisions per second, the "
            f"environment takes {rate:g}; its actions would mean something else: set "
            f"--env.action_repeat={action_repeat * rate / episode.fps:g}"
        )
