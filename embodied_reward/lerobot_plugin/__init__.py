"""Our reward models as LeRobot's, and LeRobot's as ours.

    lerobot-train --reward_model.type=er_dopamine \
        --reward_model.discover_packages_path=embodied_reward.lerobot_plugin ...

Importing this package registers the types with LeRobot (`configuration_er.py`,
`modeling_er.py`, `processor_er.py`: the names that LeRobot's factories look for) and the step
`er_shaped_reward` for online reinforcement learning (`shaped_reward_processor.py`). The other
direction, LeRobot's reward models behind the `RewardModel` contract, is `foreign*.py`; it is
reached through entry points and needs no import.
"""

from embodied_reward.lerobot_plugin.configuration_er import CONFIGS, ErConfig
from embodied_reward.lerobot_plugin.modeling_er import ErRewardModel
from embodied_reward.lerobot_plugin.shaped_reward_processor import ShapedRewardProcessorStep

__all__ = ["CONFIGS", "ErConfig", "ErRewardModel", "ShapedRewardProcessorStep"]
