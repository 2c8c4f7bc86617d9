"""LeRobot's pre- and postprocessors of our reward models.

Our models want the pictures as they are: nothing is normalised, and pictures become bytes on the
CPU before they reach the model, so the device step moves what is small only where it must.
"""

from typing import Any

from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    policy_action_to_transition,
)
from lerobot.utils.constants import (
    POLICY_POSTPROCESSOR_DEFAULT_NAME,
    POLICY_PREPROCESSOR_DEFAULT_NAME,
)

from embodied_reward.lerobot_plugin.configuration_er import ErConfig

type Pipelines = tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]],
    PolicyProcessorPipeline[PolicyAction, PolicyAction],
]


def make_er_pre_post_processors(config: ErConfig, dataset_stats: Any = None) -> Pipelines:
    """Return pipelines that add a missing batch axis, and change nothing else."""
    before = PolicyProcessorPipeline[dict[str, Any], dict[str, Any]](
        steps=[AddBatchDimensionProcessorStep()], name=POLICY_PREPROCESSOR_DEFAULT_NAME
    )
    after = PolicyProcessorPipeline[PolicyAction, PolicyAction](
        steps=[],
        name=POLICY_POSTPROCESSOR_DEFAULT_NAME,
        to_transition=policy_action_to_transition,
    )
    return before, after


# By the names that LeRobot's factory derives from the types.
make_er_dopamine_pre_post_processors = make_er_pre_post_processors
make_er_remaining_time_pre_post_processors = make_er_pre_post_processors
make_er_success_pre_post_processors = make_er_pre_post_processors
make_er_goal_distance_pre_post_processors = make_er_pre_post_processors
make_er_tcc_pre_post_processors = make_er_pre_post_processors
make_er_perceptual_pre_post_processors = make_er_pre_post_processors
make_er_rlhf_pre_post_processors = make_er_pre_post_processors
make_er_ensemble_pre_post_processors = make_er_pre_post_processors
