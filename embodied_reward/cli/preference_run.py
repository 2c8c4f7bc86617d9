"""One run of `er train-policy --finetune.type=preference --preferences=FILE`: no rollouts."""

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied_reward import config as configs
from embodied_reward.cli.diffusion_run import DiffusionRun
from embodied_reward.data import EpisodeSequence
from embodied_reward.data.preferences import read_preferences
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.files import replacing
from embodied_reward.policies.checkpoint import load_policy
from embodied_reward.policies.config import DiffusionConfig
from embodied_reward.policies.diffusion.actor import DiffusionActor, lerobot_key
from embodied_reward.policies.diffusion.windows import Windows
from embodied_reward.policies.finetune.offline import PreferenceCloning, ordered_pairs
from embodied_reward.policies.finetune.options import PreferenceConfig

if TYPE_CHECKING:
    from embodied_reward.cli.train_policy import TrainPolicyConfig

COPY = "preferences.jsonl"


class PreferenceRun(DiffusionRun):
    """Raises what people preferred over the policy of `--policy.path`, on recorded episodes.

    Args:
        config: checked configuration; its fine-tuning is a `PreferenceConfig`.
        folder: run folder.
    """

    name = "preference"

    def __init__(self, config: "TrainPolicyConfig", folder: Path) -> None:
        super().__init__(config, folder)
        assert isinstance(config.finetune, PreferenceConfig)
        assert isinstance(config.policy, DiffusionConfig)
        self.method, self.path = config.finetune, str(config.policy.path)
        actor = load_policy(self.path)
        if not isinstance(actor, DiffusionActor):
            raise ConfigError(
                f"--policy.path='{self.path}' is no diffusion policy; train one with "
                "`er train-policy --policy.type=diffusion`"
            )
        # Widths, cameras and horizons are those of the policy that is fine-tuned.
        rate = self.method.rl.learning_rate
        self.policy = dataclasses.replace(actor.spec.config, learning_rate=rate)
        self.start = actor

    def opening(self) -> str:
        """Return what is learned from."""
        episodes, windows, _ = self._count
        return f"{self._pairs} ordered pairs of {episodes} episodes, {windows} windows"

    def _episodes(self) -> EpisodeSequence:
        return self.config.dataset.open()

    def _cloning(self, episodes: EpisodeSequence, windows: Windows) -> PreferenceCloning:
        config, method, start = self.config, self.method, self.start
        _check_columns(start, windows, episodes)
        label = config.dataset.label()
        pairs = ordered_pairs(
            read_preferences(self._file(), episodes.indices, dataset=label), episodes.indices
        )
        self._pairs = len(pairs)
        spec = dataclasses.replace(start.spec, config=self.policy, meta=self._meta())
        actor = DiffusionActor(start.model, start.before, start.after, spec)
        actor.model.requires_grad_(True)
        return PreferenceCloning(
            actor,
            windows,
            pairs,
            beta=method.error_beta,
            keep=method.error_keep,
            steps=config.steps,
            seed=config.seed,
        )

    def _file(self) -> Path:
        """Return the run's own copy of the answers: people go on answering."""
        own = self.folder / COPY
        if not own.is_file():
            given = Path(str(self.config.preferences))
            if not given.is_file():
                raise DatasetError(
                    f"no preferences at '{given}'; write some with `er label-preferences`"
                )
            with replacing(own) as temporary:
                shutil.copyfile(given, temporary)
        return own

    def _meta(self) -> dict[str, Any]:
        method = {"type": self.method.type, **configs.encode(self.method)}
        return {**super()._meta(), "finetune": method}


def _check_columns(actor: DiffusionActor, windows: Windows, episodes: EpisodeSequence) -> None:
    """Raise DatasetError where episodes hold other observations than the policy was trained on."""
    for key, shape in actor.spec.observation.items():
        wanted = (shape[2], *shape[:2]) if len(shape) == 3 else shape
        found = tuple(windows.columns[lerobot_key(key)].shape[1:])
        if found != wanted:
            raise DatasetError(
                f"{episodes[0].source} holds '{key}' of shape {found}, the policy was trained on "
                f"{wanted}: take episodes of the environment that it was trained for "
                f"({actor.spec.meta.get('env', 'unknown')})"
            )
