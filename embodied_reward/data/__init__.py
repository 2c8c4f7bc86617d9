"""Episodes in and out: open what others recorded, record what survives a kill, convert, inspect."""

from embodied_reward.data.check import check_dataset
from embodied_reward.data.dataset import EpisodeSequence, open_dataset
from embodied_reward.data.recorder import EpisodeRecorder

__all__ = ["EpisodeRecorder", "EpisodeSequence", "check_dataset", "open_dataset"]
