"""`er_act`: LeRobot's ACT, which LeRobot's sample weighting can weigh.

LeRobot 0.6.1 weighs samples of policies whose loss comes per sample, which its ACT and diffusion
policies do not offer (`forward(reduction="none")`). This is ACT with that one addition; weights
and configuration are ACT's own.
"""

from dataclasses import dataclass

from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.act.configuration_act import ACTConfig


@PreTrainedConfig.register_subclass("er_act")
@dataclass
class ErActConfig(ACTConfig):
    """The fields are those of ACT."""
