"""LeRobot's TOPReward and Robometer, vision-language models of progress, behind our contract.

A frame t is judged by up to `max_frames` frames that lie evenly between the episode's start and t.

- TOPReward (arXiv:2602.19313) answers log P("True" | frames, task). Here Phi = success = P("True").
  LeRobot's script stretches each episode's answers to [0, 1] instead, which looks ahead and makes a
  failure end as high as a success.
- Robometer (arXiv:2603.02115) answers progress and success at the last frame.

One forward pass per frame: a GPU's work with the published weights.
"""

import abc
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied_reward.lerobot_plugin.foreign import LeRobotModel
from embodied_reward.types import Episode, Float64, Int64

MOST = 16
"""Frames shown where the checkpoint sets no limit."""


class PrefixModel(LeRobotModel):
    """Base of models that look at an episode's frames up to the judged one."""

    _encoder: Any = None

    @property
    def image_keys(self) -> tuple[str, ...]:
        """See the base class."""
        return (self.model.config.image_key,)

    def read(self, episode: Episode) -> tuple[Float64, Float64]:
        """See the base class."""
        images = self.pictures(episode, self.image_keys[0])
        rows = [
            self.answer(self._encoded(images[prefix(t, self._most)], episode.task))
            for t in range(len(episode))
        ]
        found = np.array(rows, dtype=float)
        return found[:, 0], found[:, 1]

    @abc.abstractmethod
    def answer(self, batch: dict[str, Any]) -> tuple[float, float]:
        """Return potential and success of the last frame."""

    @abc.abstractmethod
    def make_encoder(self) -> Any:
        """Return LeRobot's step that turns frames and task into tokens."""

    @property
    def _most(self) -> int:
        return self.model.config.max_frames or MOST

    def _encoded(self, frames: Tensor, task: str) -> dict[str, Any]:
        from lerobot.lerobot_types import TransitionKey
        from lerobot.processor import create_transition

        if self._encoder is None:
            self._encoder = self.make_encoder()
        key, task_key = self.image_keys[0], self.model.config.task_key
        shown = create_transition(
            observation={key: frames.unsqueeze(0)},
            complementary_data={task_key: task or self.model.config.default_task},
        )
        return self._encoder(shown)[TransitionKey.OBSERVATION]


class TopRewardModel(PrefixModel):
    """LeRobot's zero-shot P("True")."""

    name = "topreward"

    def __init__(self, model: Any, folder: Any) -> None:
        super().__init__(model, folder)
        self.model.config.success_threshold = float("-inf")  # the answer itself, not a verdict

    def answer(self, batch: dict[str, Any]) -> tuple[float, float]:
        """See the base class."""
        probability = float(self.model.compute_reward(batch).exp())
        return probability, probability

    def make_encoder(self) -> Any:
        """See the base class."""
        from lerobot.rewards.topreward.processor_topreward import TOPRewardEncoderProcessorStep

        c = self.model.config
        return TOPRewardEncoderProcessorStep(
            vlm_name=c.vlm_name,
            image_key=c.image_key,
            task_key=c.task_key,
            default_task=c.default_task,
            max_frames=None,
            fps=c.fps,
            prompt_prefix=c.prompt_prefix,
            prompt_suffix_template=c.prompt_suffix_template,
            add_chat_template=c.add_chat_template,
            max_length=c.max_input_length,
        )


class RobometerModel(PrefixModel):
    """LeRobot's port of Robometer."""

    name = "robometer"

    def answer(self, batch: dict[str, Any]) -> tuple[float, float]:
        """See the base class."""
        from lerobot.rewards.robometer.modeling_robometer import (
            ROBOMETER_FEATURE_PREFIX,
            ROBOMETER_INPUT_KEYS,
            decode_progress_outputs,
        )

        names = {f"{ROBOMETER_FEATURE_PREFIX}{key}": key for key in ROBOMETER_INPUT_KEYS}
        inputs = {
            names[key]: value.to(self.device) if isinstance(value, torch.Tensor) else value
            for key, value in batch.items()
            if key in names
        }
        discrete = self.model.config.use_discrete_progress
        found = decode_progress_outputs(
            *self.model._compute_rbm_logits(inputs), is_discrete_mode=discrete
        )
        potential = min(max(found["progress_pred"][0][-1], 0.0), 1.0)
        return potential, found["success_probs"][0][-1]

    def make_encoder(self) -> Any:
        """See the base class."""
        from lerobot.rewards.robometer.processor_robometer import RobometerEncoderProcessorStep

        c = self.model.config
        return RobometerEncoderProcessorStep(
            base_model_id=c.base_model_id,
            image_key=c.image_key,
            task_key=c.task_key,
            default_task=c.default_task,
            max_frames=None,
            use_multi_image=c.use_multi_image,
            use_per_frame_progress_token=c.use_per_frame_progress_token,
        )


def prefix(t: int, most: int) -> Int64:
    """Return up to `most` frames that lie evenly in [0, t], the first and t among them."""
    return np.unique(np.linspace(0, t, min(t + 1, most)).round().astype(np.int64))
