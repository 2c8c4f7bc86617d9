"""`er_diffusion`: LeRobot's diffusion policy, which LeRobot's sample weighting can weigh.

See `configuration_er_act.py`; weights and configuration are the diffusion policy's own.
"""

from dataclasses import dataclass

from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig


@PreTrainedConfig.register_subclass("er_diffusion")
@dataclass
class ErDiffusionConfig(DiffusionConfig):
    """The fields are those of the diffusion policy."""

    @property
    def chunk_size(self) -> int:
        """Rows from the current one to the plan's end, over which progress is compared."""
        return self.horizon - self.n_obs_steps + 1
