"""How much the members of an ensemble disagree about which of two episodes got further."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from embodied_reward.errors import ConfigError

if TYPE_CHECKING:
    from embodied_reward.data import EpisodeSequence
    from embodied_reward.labelling.queries import Query


def disagreement(path: str, episodes: "EpisodeSequence") -> "Callable[[Query], float]":
    """Score every episode with every member once; return the doubt about a pair.

    The doubt is the standard deviation over members of the difference in final potential, the
    ensemble variance of Christiano et al. 2017 (arXiv:1706.03741, section 2.2.4).

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
    finals: dict[int, np.ndarray] = {}
    with progress_bar() as progress:
        for episode in progress.track(episodes, description="scoring"):
            finals[episode.index] = np.array(
                [float(m.score_episode(episode).potential[-1]) for m in model.members]  # type: ignore[attr-defined]
            )
    return lambda query: float(np.std(finals[query.left] - finals[query.right]))
