"""LeRobot's `reward_classifier` (HIL-SERL) behind our contract.

It knows success only. Its probability is reported as success and, so that the table can judge it
beside models of progress, as potential as well; it does not claim to be progress.

Pictures go through the preprocessor that `lerobot-train` saved. (LeRobot's own online step,
`RewardClassifierProcessorStep`, leaves it out, so its probabilities differ.)
"""

import json
from typing import Any

import numpy as np
from torch import Tensor

from embodied_reward.errors import CheckpointError
from embodied_reward.lerobot_plugin.foreign import CHUNK, LeRobotModel, resized
from embodied_reward.types import Episode, Float64

PREPROCESSOR = "classifier_preprocessor.json"


class ClassifierModel(LeRobotModel):
    """LeRobot's image classifier of success; of two classes."""

    name = "reward_classifier"
    _prepared: Any = None

    @property
    def image_keys(self) -> tuple[str, ...]:
        """See the base class."""
        return tuple(k for k in self.model.config.input_features if k.startswith("observation.im"))

    def read(self, episode: Episode) -> tuple[Float64, Float64]:
        """See the base class. Raises CheckpointError: not two classes."""
        if self.model.config.num_classes != 2:
            raise CheckpointError(
                f"'{self.folder}' tells {self.model.config.num_classes} classes apart; only "
                "success against failure (num_classes=2) can be read as a reward here"
            )
        shapes = {k: self.model.config.input_features[k].shape for k in self.image_keys}
        images = {k: resized(self.pictures(episode, k), *shape[-2:]) for k, shape in shapes.items()}
        found = [
            self._probability({k: v[at : at + CHUNK] for k, v in images.items()})
            for at in range(0, len(episode), CHUNK)
        ]
        success = np.concatenate(found)
        return success.copy(), success

    def _probability(self, images: dict[str, Tensor]) -> Float64:
        batch = self._preprocessor()(images)
        tensors = [batch[k].to(self.device) for k in self.image_keys]
        return self.model.predict(tensors).probabilities.double().cpu().numpy()

    def _preprocessor(self) -> Any:
        if self._prepared is None:
            self._prepared = self._load_preprocessor()
        return self._prepared

    def _load_preprocessor(self) -> Any:
        from lerobot.processor import PolicyProcessorPipeline

        file = self.folder / PREPROCESSOR
        if not file.is_file():
            return dict
        steps = json.loads(file.read_text())["steps"]
        if unknown := [s.get("class") for s in steps if not s.get("registry_name")]:
            raise CheckpointError(
                f"'{file}' holds a step that is not LeRobot's own ({unknown[0]}); it is not run"
            )
        named = {s["registry_name"] for s in steps}
        overrides = {"device_processor": {"device": "cpu"}} if "device_processor" in named else {}
        return PolicyProcessorPipeline.from_pretrained(
            self.folder, config_filename=PREPROCESSOR, overrides=overrides
        )
