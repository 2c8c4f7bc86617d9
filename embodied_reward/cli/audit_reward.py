"""Where reward models look: share of their saliency on gripper and task objects, beside chance.

er audit-reward --reward_model.path=RUN --env.id=metaworld/door-open-v3 --env.action_repeat=2
er audit-reward --reward_model.path=RUN --compare=OTHER --env.id=... --saliency=normgrad,lrp

The simulator says what every pixel shows, so episodes are played anew by a scripted behaviour.
A ratio of 1 is chance: as much saliency as area. Beside the models stand copies with fresh
weights, and a filter of outlines; a model that learned where to look beats both.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from embodied_reward.cli.command import run_verb
from embodied_reward.cli.env_config import EnvConfig
from embodied_reward.cli.reward_model_path import RewardModelPath
from embodied_reward.errors import ConfigError

if TYPE_CHECKING:
    from embodied_reward.cli.audit_measure import Audit, Row
    from embodied_reward.cli.audit_rollout import Played
    from embodied_reward.rewards import RewardModel
    from embodied_reward.vision.saliency import SaliencyOptions


@dataclass(frozen=True)
class AuditRewardConfig:
    """Everything `er audit-reward` can be told."""

    reward_model: RewardModelPath = field(default_factory=RewardModelPath)
    compare: tuple[str, ...] = ()
    """other trained models to set beside it, separated by commas"""
    env: EnvConfig = field(default_factory=EnvConfig)
    episodes: int = 4
    """episodes to play"""
    quality: str = "expert"
    """scripted behaviour that plays them: expert, noisy, mixed, ..."""
    stride: int = 1
    """decisions from one explained frame to the next"""
    saliency: tuple[str, ...] = ("normgrad",)
    """methods, separated by commas: normgrad, lrp (conv encoders), attention (transformers)"""
    saliency_layers: tuple[str, ...] = ()
    """layers of normgrad; default: the last one at each resolution from 8 x 8 cells on"""
    untrained: int = 1
    """copies of every model with fresh weights to set beside it"""
    drawn: int = 1
    """episodes drawn, as a picture and a video per trained model and method"""
    size: int = 0
    """side of the pictures and masks [px]; 0 takes the largest input of the models"""
    seed: int = 0
    """seed of scenes, behaviours and fresh weights"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    threads: int = 0
    """torch CPU threads; 0 chooses"""
    output_dir: str | None = None
    """folder to write to; default: outputs/audit-reward/<date>_<env>"""


def main(argv: list[str]) -> int:
    """Entry point of `er audit-reward`."""
    return run_verb("audit-reward", AuditRewardConfig, audit_reward, argv, __doc__)


def audit_reward(config: AuditRewardConfig) -> int:
    """Play, explain, measure, draw; prints the table and writes `saliency.json`."""
    from embodied_reward.cli.audit_measure import EDGES, Audit, table
    from embodied_reward.cli.audit_rollout import play
    from embodied_reward.cli.progress_bar import progress_bar
    from embodied_reward.training.seeding import set_threads

    options = _options(config)
    models = _load(config)
    set_threads(config.threads)
    folder = _folder(config)
    audit = Audit()
    with progress_bar() as bar:
        task = bar.add_task("episodes", total=config.episodes)
        for played in play(config, views=_views(models), size=_size(config, models)):
            audit.add_edges(EDGES, played)
            for name, model in models.items():
                _measure(config, audit, name, model, options, played, folder)
            bar.advance(task)
    rows = audit.rows()
    _write(folder / "saliency.json", config, models, rows)
    print(table(rows))
    print(f"\nnumbers:  {folder / 'saliency.json'}")
    for path in sorted(folder.glob("*.png")):
        print(f"picture:  {path}  {path.with_suffix('.mp4')}")
    return 0


def _options(config: AuditRewardConfig) -> "list[SaliencyOptions]":
    from embodied_reward.vision.saliency import SaliencyOptions

    if not config.saliency:
        raise ConfigError("give a method: --saliency=normgrad")
    for name, least in (("episodes", 1), ("stride", 1), ("untrained", 0), ("drawn", 0)):
        if getattr(config, name) < least:
            raise ConfigError(f"--{name}={getattr(config, name)}: must be at least {least}")
    layers = config.saliency_layers
    return [SaliencyOptions(m, layers if m == "normgrad" else ()) for m in config.saliency]


def _load(config: AuditRewardConfig) -> "dict[str, RewardModel]":
    """Return every model by the name of its row."""
    from embodied_reward import rewards
    from embodied_reward.cli.device import pick_device
    from embodied_reward.cli.eval_reward import row_names

    if config.reward_model.path is None:
        raise ConfigError("give the reward model with --reward_model.path=RUN")
    paths, device = [config.reward_model.path, *config.compare], pick_device(config.device)
    models = [rewards.load(path, device=device) for path in paths]
    return dict(zip(row_names([m.card.type for m in models]), models, strict=True))


def _views(models: "dict[str, RewardModel]") -> tuple[str, ...]:
    return tuple(dict.fromkeys(view for model in models.values() for view in model.card.views))


def _size(config: AuditRewardConfig, models: "dict[str, RewardModel]") -> int:
    return config.size or max(model.card.image_size for model in models.values())


def _folder(config: AuditRewardConfig) -> Path:
    from embodied_reward.training.run import default_output_dir

    given = config.output_dir
    folder = Path(given) if given else default_output_dir("audit-reward", config.env.id)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output folder '{folder}' is a file; choose another --output_dir")
    return folder


def _measure(
    config: AuditRewardConfig,
    audit: "Audit",
    name: str,
    model: "RewardModel",
    options: "list[SaliencyOptions]",
    played: "Played",
    folder: Path,
) -> None:
    from embodied_reward.cli.audit_measure import FRESH, draw
    from embodied_reward.rewards.saliency import explain_episode, randomised

    for option in options:
        maps = explain_episode(model, played.episode, option)
        audit.add(name, option.method, maps, played)
        if played.episode.index < config.drawn:
            draw(folder, name, option.method, model, maps, played.episode)
    for copy in range(config.untrained):
        fresh = randomised(model, config.seed + copy)
        for option in options:
            maps = explain_episode(fresh, played.episode, option)
            audit.add(name + FRESH, option.method, maps, played)


def _write(
    path: Path, config: AuditRewardConfig, models: "dict[str, RewardModel]", rows: "list[Row]"
) -> None:
    from embodied_reward import config as configs
    from embodied_reward.cli.eval_reward import finite
    from embodied_reward.files import replacing

    tree = {
        "config": configs.encode(config),
        "models": {name: model.card.to_dict() for name, model in models.items()},
        "rows": [row.to_dict() for row in rows],
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(finite(tree), indent=1, allow_nan=False) + "\n")
