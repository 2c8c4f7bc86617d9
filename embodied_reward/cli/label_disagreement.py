"""How much the members of an ensemble disagree about which of two episodes is better."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from embodied_reward.errors import ConfigError
from embodied_reward.rewards.preference_model import PreferenceModel

if TYPE_CHECKING:
    from embodied_reward.data import EpisodeSequence
    from embodied_reward.labelling.queries import Query
    from embodied_reward.types import Episode


def disagreement(path: str, episodes: "EpisodeSequence") -> "Callable[[Query], float]":
    """Score every episode with every member once; return the doubt about a pair.

    The doubt is the standard deviation over members of the difference in final potential, the
    ensemble variance of Christiano et al. 2017 (arXiv:1706.03741, section 2.2.4). Members that
    learned from preferences rank by their episode return, whose scale is their own: it is divided
    by its standard deviation over the episodes.

    Raises:
        ConfigError: the model is no ensemble of models of progress.
        CheckpointError: the model cannot be loaded.
        DatasetError: an episode that the model cannot read.
    """
    from embodied_reward import rewards
    from embodied_reward.cli.progress_bar import progress_bar
    from embodied_reward.data import check_dataset
    from embodied_reward.rewards.ensemble import EnsembleModel

    model = rewards.load(path)
    if not isinstance(model, EnsembleModel) or not model.card.progress:
        raise ConfigError(
            f"'{path}' is a '{model.card.type}' model, and --strategy=disagreement needs an "
            "ensemble of models of progress: er train-reward --reward_model.type=ensemble"
        )
    check_dataset(episodes, views=model.card.views)
    with progress_bar() as progress:
        tracked = progress.track(episodes, description="scoring")
        worth = np.array([[_worth(m, episode) for m in model.members] for episode in tracked])
    if isinstance(model.members[0], PreferenceModel):
        spread = worth.std(0)
        worth = worth / np.where(spread > 0, spread, 1.0)
    of = dict(zip(episodes.indices, worth, strict=True))
    return lambda query: float(np.std(of[query.left] - of[query.right]))


def _worth(member: Any, episode: "Episode") -> float:
    """Return what a member thinks of an episode; larger is better."""
    if isinstance(member, PreferenceModel):
        return member.episode_return(episode)
    return float(member.score_episode(episode).potential[-1])
