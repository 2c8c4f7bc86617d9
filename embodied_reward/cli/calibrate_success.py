"""Fit a success detector's threshold to a false-positive rate, on episodes that failed.

er calibrate-success --success.path=DETECTOR --rollouts=EVAL_RUN [--target_fpr=0.01]
er calibrate-success --success.path=DETECTOR --dataset.root=FAILURES

The promise is per episode: at most that share of failed episodes ever fires, as long as they
resemble those given. So give failures of the policy at work: the folder that
`er eval-policy --success.path=DETECTOR` wrote. A rate of 1 % takes 99 of them; fewer promise
1 / (number + 1) at best, and the strictest threshold is taken. Writes a new detector.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embodied_reward.cli.cache_config import CacheConfig
from embodied_reward.cli.command import run_verb
from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.types import Float64

if TYPE_CHECKING:
    from embodied_reward.rewards import SuccessModel

# Scores of one episode, and whether it truly succeeded.
Scored = tuple[Float64, bool]


@dataclass(frozen=True)
class SuccessPath:
    """Which detector."""

    path: str | None = None
    """success detector: run folder, checkpoint or pretrained_model"""


@dataclass(frozen=True)
class CalibrateSuccessConfig:
    """Everything `er calibrate-success` can be told."""

    success: SuccessPath = field(default_factory=SuccessPath)
    rollouts: tuple[str, ...] = ()
    """folders of `er eval-policy --success.path=DETECTOR`: rollouts that are scored already"""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    """recorded failures; successes among them only measure what is still detected"""
    target_fpr: float = 0.01
    """share of failed episodes that may fire"""
    persistence: int = 3
    """frames in a row that must reach the threshold"""
    unit: str = "episode"
    """what the rate counts: episode, or frame (approximate: frames of an episode are alike)"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    output_dir: str | None = None
    """folder of the new detector; default: outputs/calibrate-success/<date>_<name>"""


def main(argv: list[str]) -> int:
    """Entry point of `er calibrate-success`."""
    return run_verb("calibrate-success", CalibrateSuccessConfig, calibrate_success, argv, __doc__)


def calibrate_success(config: CalibrateSuccessConfig) -> int:
    """Score the failures, fit, write the detector and say what it promises."""
    from embodied_reward.rewards.detector import check_rule
    from embodied_reward.training.run import prepare_output_dir

    check_rule(config.target_fpr, config.persistence, config.unit)
    model = _detector(config.success.path)
    scored = _scored(config, model)
    failures = [scores for scores, won in scored if not won]
    if not failures:
        raise DatasetError(
            f"none of the {len(scored)} episodes failed; record failures with "
            "`er collect --quality=random`, or roll a policy that fails"
        )
    folder = prepare_output_dir(_folder(config), resume=False)
    fitted = model.recalibrate(
        failures,
        target_fpr=config.target_fpr,
        persistence=config.persistence,
        unit=config.unit,  # type: ignore[arg-type]
    )
    model.save(folder)
    seen = [fitted.detector.episode(scores).any() for scores, won in scored if won]
    print(fitted.describe())
    if seen and not config.rollouts:
        print(f"{sum(seen)} of {len(seen)} successful episodes of this dataset are detected")
    print(f"detector: {folder}\n\nnext:")
    print(f"  er eval-policy --policy.path=RUN --success.path={folder}")
    return 0


def _detector(path: str | None) -> "SuccessModel":
    from embodied_reward.rewards import SuccessModel, load

    if path is None:
        raise ConfigError("give the detector with --success.path=RUN")
    model = load(path)
    if not isinstance(model, SuccessModel):
        raise ConfigError(
            f"'{path}' is a model of type '{model.card.type}'; a threshold is fitted to a "
            "detector: train one with `er train-reward --reward_model.type=success`"
        )
    return model


def _scored(config: CalibrateSuccessConfig, model: "SuccessModel") -> list[Scored]:
    given = bool(config.dataset.root or config.dataset.repo_id)
    if given == bool(config.rollouts):
        raise ConfigError("give either --rollouts=EVAL_RUN or --dataset.root=FAILURES")
    if given:
        with config.cache.shared_by(model):
            return _score_dataset(config.dataset, model)
    return [pair for path in config.rollouts for pair in _read_rollouts(Path(path), model)]


def _score_dataset(dataset: DatasetConfig, model: "SuccessModel") -> list[Scored]:
    from embodied_reward.cli.progress_bar import progress_bar
    from embodied_reward.data import check_dataset
    from embodied_reward.rewards.success_batches import goal_frames

    episodes = dataset.open()
    check_dataset(episodes, views=model.card.views)
    with progress_bar() as bar:
        shown: Sequence = bar.track(episodes, description="scoring")  # type: ignore[assignment]
        return [
            (model.score_episode(e).success, bool(len(goal_frames(e, model.config.task))))
            for e in shown
        ]


def _read_rollouts(path: Path, model: "SuccessModel") -> list[Scored]:
    """Return what `er eval-policy` wrote of each episode. Raises DatasetError."""
    file = path / "metrics.json" if path.is_dir() else path
    if not file.is_file():
        raise DatasetError(f"no metrics.json at '{path}'; give a folder of `er eval-policy`")
    report = json.loads(file.read_text())
    judged = report.get("detector")
    if judged is None or judged["weights_sha256"] != model.card.weights_sha256:
        why = "were not judged by a detector" if judged is None else "were judged by another model"
        raise DatasetError(
            f"the rollouts in '{file}' {why}; roll them with "
            "`er eval-policy --policy.path=RUN --success.path=` this detector"
        )
    pairs = zip(judged["scores"], report["success"], strict=True)
    return [(np.asarray(scores, np.float64), won) for scores, won in pairs]


def _folder(config: CalibrateSuccessConfig) -> Path:
    from embodied_reward.training.run import default_output_dir

    if config.output_dir:
        return Path(config.output_dir)
    name = Path(config.rollouts[0] if config.rollouts else config.dataset.label()).name
    return default_output_dir("calibrate-success", name)
