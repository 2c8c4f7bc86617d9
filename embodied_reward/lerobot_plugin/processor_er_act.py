"""The pre- and postprocessors of ACT, under the name that LeRobot's factory derives."""

from lerobot.policies.act.processor_act import (
    make_act_pre_post_processors as make_er_act_pre_post_processors,
)

__all__ = ["make_er_act_pre_post_processors"]
