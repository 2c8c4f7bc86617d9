"""Which success detector watches a run of `er train-policy`."""

from typing import TYPE_CHECKING

from embodied_reward.cli.policy_env import Watched
from embodied_reward.errors import ConfigError
from embodied_reward.rewards import RewardModel, load
from embodied_reward.rewards.detector import detector_of

if TYPE_CHECKING:
    from embodied_reward.cli.train_policy import TrainPolicyConfig


def watched(config: "TrainPolicyConfig", reward: RewardModel | None) -> Watched | None:
    """Return the detector that watches: the one given, else the reward model's success head.

    Raises:
        ConfigError: the model given judges no success, or scores whole episodes only.
    """
    path = config.success.path
    model = load(path) if path else reward
    detector = detector_of(model.card) if model else None
    if path and model and (detector is None or not model.card.streaming):
        raise ConfigError(
            f"'{path}' ({model.card.type}) gives no success probability while an episode runs; "
            "give --success.path=RUN of `er train-reward --reward_model.type=success`"
        )
    if model is None or detector is None:
        return None
    return Watched(model, detector, pays=config.success.pays, shared=not path)
