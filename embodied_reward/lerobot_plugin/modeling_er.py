"""Our reward models as LeRobot's `PreTrainedRewardModel`.

    batch -> frames.py (bytes) -> our model -> Tensor["b"]

`compute_reward` takes one of two kinds of batch:

- from a data set, with the window that `ErConfig.observation_delta_indices` or
  `delta_timestamps` describe: the episode's first frame at 0, the current one at 1;
- from environments, without a window: the first batch after `reset()` holds the first frames of b
  episodes, every further one their next frames.

What cannot be scored is NaN.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import draccus
import numpy as np
import torch
from huggingface_hub import snapshot_download
from lerobot.configs.rewards import RewardModelConfig as LeRobotRewardModelConfig
from lerobot.rewards.pretrained import PreTrainedRewardModel
from torch import Tensor

from embodied_reward import rewards
from embodied_reward.data.schema import view_name
from embodied_reward.errors import CheckpointError, ConfigError
from embodied_reward.files import replacing
from embodied_reward.lerobot_plugin.configuration_er import CONFIGS, FIRST, NOW, ErConfig
from embodied_reward.lerobot_plugin.frames import Pictures, read_pictures
from embodied_reward.lerobot_plugin.learner import Learner, learner_for
from embodied_reward.rewards import RewardModel
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.types import Float64, Scores, UInt8

FILES = ("config.json", "*.safetensors", "*/config.json")


class ErRewardModel(PreTrainedRewardModel):
    """One of our reward models in LeRobot's clothes.

    Args:
        config: of the model's type.
        model: the model itself; default: an untrained one for the data set of `dataset_meta`.
        dataset_meta: LeRobot's metadata of the data set to train on.
        dataset_stats: not used; our models see bytes.

    Raises:
        ConfigError: neither `model` nor `dataset_meta`.
    """

    config_class: ClassVar[Any] = ErConfig
    name: ClassVar[Any] = "er"
    config: Any

    def __init__(
        self,
        config: ErConfig,
        *,
        model: RewardModel | None = None,
        dataset_meta: Any = None,
        dataset_stats: Any = None,
    ) -> None:
        super().__init__(config)
        self.model = model if model is not None else _untrained(config, dataset_meta)
        self._stream: StreamScorer | None = None
        self._learner: Learner | None = None
        if dataset_meta is not None:
            self._learner = learner_for(self.model, config, dataset_meta)

    # --- scoring ---

    def compute_reward(self, batch: dict[str, Any]) -> Tensor:
        """Return potential or success (`config.output`) of every sample, float32 Tensor["b"].

        Raises:
            DatasetError: the batch holds none of the model's views.
            ConfigError: the model scores whole episodes, or the batch lacks the first frames.
        """
        scores = self.score_batch(batch)
        return torch.from_numpy(getattr(scores, self.config.output)).float()

    @torch.no_grad()
    def score_batch(self, batch: Mapping[str, Any]) -> Scores:
        """Return potential, success and uncertainty of every sample; see `compute_reward`."""
        card = self.model.card
        if not card.streaming:
            raise ConfigError(f"'{card.type}' scores whole episodes: use `er label` in its place")
        self.model.eval()
        if self._learner is not None:
            self._learner.publish()
        pictures = read_pictures(batch, card.views)
        if not pictures.window and "index" not in batch:
            return self._next(pictures.at(0))
        return self._from_window(pictures, _tasks(batch, pictures.shape[0]))

    def reset(self) -> None:
        """Begin new episodes: the next batch without a window holds their first frames."""
        self._stream = None

    def _next(self, frames: dict[str, UInt8]) -> Scores:
        count = len(next(iter(frames.values())))
        if self._stream is None:
            self._stream = StreamScorer(self.model, count)
            return self._stream.start(range(count), frames)
        if count != self._stream.count:
            raise ConfigError(
                f"a batch of {count} frames follows one of {self._stream.count}: call reset() "
                "where other episodes begin"
            )
        return self._stream.step(frames)

    def _from_window(self, pictures: Pictures, tasks: list[str] | None) -> Scores:
        self._check_window(pictures)
        whole = self.model.task
        groups = _groups(tasks, pictures.shape[0])
        found = np.full((3, pictures.shape[0]), np.nan)
        try:
            for task, rows in groups.items():
                self.model.task = whole if task is None else task
                found[:, rows] = self._score_rows(pictures, rows)
        finally:
            self.model.task = whole
        return Scores(*found, ok=np.asarray(np.isfinite(found[:2]).any(0)))

    def _score_rows(self, pictures: Pictures, rows: list[int]) -> Float64:
        now = {v: f[rows] for v, f in pictures.at(NOW if pictures.window else 0).items()}
        features = self.model.encode(now)
        first = features
        if pictures.window:
            first = self.model.encode({v: f[rows] for v, f in pictures.at(FIRST).items()})
        carry = self.model.start(first)
        if carry and not pictures.window:
            raise ConfigError(
                f"'{self.model.card.type}' compares a frame with its episode's first one: load "
                "the data with delta_timestamps=model.config.delta_timestamps(fps, camera_keys)"
            )
        scores, _ = self.model.score(features, carry)
        return np.stack([scores.potential, scores.success, scores.uncertainty])

    def _check_window(self, pictures: Pictures) -> None:
        card = self.model.card
        if not card.markov:
            raise ConfigError(
                f"this '{card.type}' depends on all earlier frames: score an environment's frames "
                "one after the other, or label data sets with `er label`"
            )
        if pictures.window and pictures.shape[1] < 2:
            raise ConfigError("the window needs two frames at least: the first and the current one")

    # --- persistence ---

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write what `er` writes, with LeRobot's fields beside ours in `config.json`."""
        kept = self._learner.publish() if self._learner is not None else None
        self.model.save(save_directory)
        file = save_directory / "config.json"
        theirs = draccus.encode(self.config, LeRobotRewardModelConfig)
        tree = {**theirs, "pretrained_path": None, **json.loads(file.read_text())}
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(tree, indent=2))
        if kept is not None:
            kept()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_name_or_path: str | Path,
        *,
        config: ErConfig | None = None,
        dataset_meta: Any = None,
        dataset_stats: Any = None,
        revision: str | None = None,
        **hub: Any,
    ) -> Self:
        """Load a checkpoint of `er train-reward` or of `lerobot-train`, in eval mode.

        Args:
            pretrained_name_or_path: run folder, checkpoint, or a repository of the hub.
            config: takes the place of the stored one; its architecture must be the same.
            dataset_meta: of the data set to go on training with.
            dataset_stats: not used.
            revision: of the repository.
            **hub: `token`, `cache_dir`, `local_files_only`, `force_download`.

        Raises:
            CheckpointError: nothing there, altered weights, or another type.
            ConfigError: `config` describes another network.
        """
        folder = _local(str(pretrained_name_or_path), revision, hub)
        model = rewards.load(folder)
        config = config or _stored_config(folder)
        if config.native is not type(model.config):
            raise CheckpointError(
                f"'{folder}' holds a '{model.name}', not a '{_method(config)}'; load it with "
                f"--reward_model.type=er_{model.name} or make_reward_model"
            )
        if config.settings() != model.config:
            model.adapt(config.settings(), model.task)
        found = cls(config, model=model, dataset_meta=dataset_meta)
        return found.to(config.device or "cpu").eval()

    def push_model_to_hub(self, cfg: Any, **_: Any) -> None:
        """Push; LeRobot 0.6.1's trainer passes arguments that its own base class refuses."""
        super().push_model_to_hub(cfg)


class TrainableErRewardModel(ErRewardModel):
    """A model that `lerobot-train` can train."""

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return loss and logs of a batch of LeRobot's loader.

        Raises:
            ConfigError: the model was made without `dataset_meta`, so there are no labels.
        """
        if self._learner is None:
            raise ConfigError(
                f"'{self.model.name}' learns from labels of a data set: make it with "
                "make_reward_model(config, dataset_meta=dataset.meta)"
            )
        return self._learner.loss(batch)

    def get_optim_params(self) -> Any:
        """Return what is trained; a frozen encoder is not."""
        return [p for p in self.parameters() if p.requires_grad]


def _untrained(config: ErConfig, dataset_meta: Any) -> RewardModel:
    if dataset_meta is None:
        raise ConfigError(
            "an untrained reward model needs the data set's metadata (its cameras, its task): "
            "make_reward_model(config, dataset_meta=dataset.meta), or load one with from_pretrained"
        )
    settings: Any = config.config  # type: ignore[attr-defined]
    views = tuple(settings.views) or tuple(view_name(key) for key in dataset_meta.camera_keys)
    config.config = dataclasses.replace(settings, views=views)  # type: ignore[attr-defined]
    tasks = list(dataset_meta.tasks.index)
    kind: Any = rewards.registry()[_method(config)]
    return kind.create(config.settings(), task=tasks[0] if len(tasks) == 1 else "")


def _method(config: ErConfig) -> str:
    return str(rewards.RewardModelConfig.get_choice_name(config.native))


def _local(name: str, revision: str | None, hub: Mapping[str, Any]) -> Path:
    if Path(name).exists():
        return rewards.pretrained_folder(Path(name))
    known = ("token", "cache_dir", "local_files_only", "force_download")
    options = {key: hub[key] for key in known if key in hub}
    return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES), **options))


def _stored_config(folder: Path) -> ErConfig:
    config = LeRobotRewardModelConfig.from_pretrained(folder)
    if not isinstance(config, ErConfig):
        raise CheckpointError(f"'{folder}' holds LeRobot's own '{config.type}', not one of ours")
    return config


def _tasks(batch: Mapping[str, Any], count: int) -> list[str] | None:
    tasks = batch.get("task")
    if isinstance(tasks, str):
        return [tasks] * count
    return list(tasks) if isinstance(tasks, list | tuple) and len(tasks) == count else None


def _groups(tasks: list[str] | None, count: int) -> dict[str | None, list[int]]:
    groups: dict[str | None, list[int]] = {}
    for row in range(count):
        groups.setdefault(tasks[row] if tasks else None, []).append(row)
    return groups


def _declare(method: str, config: type[ErConfig]) -> type[ErRewardModel]:
    """Make the class that LeRobot's factory looks for: `ErXConfig` -> `ErXRewardModel`."""
    trainable = method in ("dopamine", "remaining_time", "success")
    base = TrainableErRewardModel if trainable else ErRewardModel
    name = config.__name__.removesuffix("Config") + "RewardModel"
    about = f"Our `{method}` as a LeRobot reward model."
    names = {"config_class": config, "name": f"er_{method}", "__doc__": about}
    cls: Any = type(name, (base,), {**names, "__module__": __name__})
    return cls


# By the names that LeRobot's factories derive.
ErDopamineRewardModel = _declare("dopamine", CONFIGS["dopamine"])
ErRemainingTimeRewardModel = _declare("remaining_time", CONFIGS["remaining_time"])
ErSuccessRewardModel = _declare("success", CONFIGS["success"])
ErGoalDistanceRewardModel = _declare("goal_distance", CONFIGS["goal_distance"])
ErTccRewardModel = _declare("tcc", CONFIGS["tcc"])
ErPerceptualRewardModel = _declare("perceptual", CONFIGS["perceptual"])
ErRlhfRewardModel = _declare("rlhf", CONFIGS["rlhf"])
ErRaplRewardModel = _declare("rapl", CONFIGS["rapl"])
ErEnsembleRewardModel = _declare("ensemble", CONFIGS["ensemble"])
