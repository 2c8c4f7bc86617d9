"""The pre- and postprocessors of the diffusion policy, under the name that LeRobot derives."""

from lerobot.policies.diffusion.processor_diffusion import (
    make_diffusion_pre_post_processors as make_er_diffusion_pre_post_processors,
)

__all__ = ["make_er_diffusion_pre_post_processors"]
