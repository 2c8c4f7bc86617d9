"""LeRobot's SARM (arXiv:2509.25358) behind our contract.

A frame is judged in a window of `n_obs_steps` frames around it, half of them later ones, as
LeRobot's `compute_rabc_weights` does: SARM labels data, it cannot shape a running episode. Each
frame is encoded once. The dense head is read where the model has one, else the sparse one.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from embodied_reward.errors import DatasetError
from embodied_reward.lerobot_plugin.foreign import CHUNK, LeRobotModel
from embodied_reward.types import Episode, Float64, Int64

PREPROCESSOR = "policy_preprocessor.json"


class SarmModel(LeRobotModel):
    """LeRobot's stage-aware progress model."""

    name = "sarm"
    _steps: Any = None

    @property
    def image_keys(self) -> tuple[str, ...]:
        """See the base class."""
        return (self.model.config.image_key,)

    def read(self, episode: Episode) -> tuple[Float64, Float64]:
        """See the base class; SARM does not estimate success. Raises DatasetError: no state."""
        if episode.state is None:
            raise DatasetError(f"SARM needs `observation.state`; {episode.source} has none")
        normalizer, encoder = self._prepared()
        config = self.model.config
        images = self.pictures(episode, config.image_key).unsqueeze(0).numpy()
        video = encoder._encode_images_batch(images)[0]
        text = encoder._encode_text_clip(episode.task, 1)
        state = self._normalised(normalizer, torch.from_numpy(np.array(episode.state)))
        at = windows(len(episode), config.n_obs_steps, config.frame_gap)
        found = [
            self._progress(text, video[rows], state[rows])
            for rows in np.split(at, range(CHUNK, len(at), CHUNK))
        ]
        return np.concatenate(found).astype(float), np.full(len(episode), np.nan)

    def _progress(self, text: Tensor, video: Tensor, state: Tensor) -> Float64:
        self.model.device = self.device  # `to` of a parent module does not reach it
        head = "dense" if self.model.config.uses_dual_heads else "sparse"
        return self.model.calculate_rewards(
            text_embeddings=text.expand(len(video), -1),
            video_embeddings=video,
            state_features=state,
            head_mode=head,
            frame_index=self.model.config.n_obs_steps // 2,
        )

    def _normalised(self, normalizer: Any, state: Tensor) -> Tensor:
        from lerobot.lerobot_types import TransitionKey
        from lerobot.processor import create_transition

        key = self.model.config.state_key
        after = normalizer(create_transition(observation={key: state}))
        return after[TransitionKey.OBSERVATION][key]

    def _prepared(self) -> tuple[Any, Any]:
        """Return LeRobot's normaliser and encoder, without training's augmentation."""
        if self._steps is None:
            from lerobot.processor import NormalizerProcessorStep
            from lerobot.rewards.sarm.processor_sarm import (
                SARMEncodingProcessorStep,
                make_sarm_pre_post_processors,
            )

            stats = saved_stats(self.folder)
            pipeline, _ = make_sarm_pre_post_processors(self.model.config, dataset_stats=stats)
            kinds = (NormalizerProcessorStep, SARMEncodingProcessorStep)
            found: list[Any] = [
                next(s for s in pipeline.steps if isinstance(s, kind)) for kind in kinds
            ]
            self._steps = found[0], found[1].eval()
        return self._steps


def windows(length: int, steps: int, gap: int) -> Int64:
    """Return the frames of the window around every frame, Int64["t n+1"], clamped to the episode.

    Args:
        length: frames t of the episode.
        steps: n, half of them before and half after.
        gap: frames between them.
    """
    offsets = gap * (np.arange(2 * (steps // 2) + 1) - steps // 2)
    return np.clip(np.arange(length)[:, None] + offsets, 0, length - 1)


def saved_stats(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Read the statistics that `lerobot-train` normalised by; empty where it saved none."""
    file = folder / PREPROCESSOR
    steps = json.loads(file.read_text())["steps"] if file.is_file() else []
    names = [s["state_file"] for s in steps if "normalizer" in str(s.get("registry_name"))]
    stats: dict[str, dict[str, Tensor]] = {}
    for name in names:
        for key, value in load_file(folder / Path(name).name).items():
            feature, _, stat = key.rpartition(".")
            stats.setdefault(feature, {})[stat] = value
    return stats
