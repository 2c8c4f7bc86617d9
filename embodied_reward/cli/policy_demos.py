"""Which demonstrations a policy may learn from."""

from typing import TYPE_CHECKING

from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.cli.env_config import EnvConfig
from embodied_reward.data import EpisodeSequence
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.types import Episode

if TYPE_CHECKING:
    from embodied_reward.envs import VisualEnv

ROBOT = "robot/"  # begins the id of what is a robot's, not a simulator's
_SAME = 0.01  # of a rate, or of a repeat: closer is equal


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


def check_rate(env: "VisualEnv", episode: Episode, config: EnvConfig) -> None:
    """Raise ConfigError where the environment decides at another rate than was recorded."""
    rate = float(env.metadata["render_fps"])
    if abs(rate - episode.fps) > _SAME * rate:
        raise ConfigError(
            f"{episode.source} was recorded at {episode.fps:g} decisions per second, the "
            f"environment takes {rate:g}; its actions would mean something else: "
            + _way_out(rate, episode.fps, config)
        )


def _way_out(rate: float, recorded: float, config: EnvConfig) -> str:
    if config.id.startswith(ROBOT):
        return f"give --limits with rate_hz: {recorded:g}, or demonstrations of {rate:g}"
    repeat = config.action_repeat * rate / recorded
    if abs(repeat - round(repeat)) > _SAME or round(repeat) < 1:
        return "record them again with the environment's settings"
    return f"set --env.action_repeat={round(repeat)}"
