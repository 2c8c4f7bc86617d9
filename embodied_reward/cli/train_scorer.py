"""Train a preference reward model: a small head on the features of an image encoder.

er train-scorer --data=prefs.jsonl
er train-scorer --data=prefs.parquet --trunk.name=facebook/dinov2-small --head.type=voting

Every line of the file is a judgement, with paths relative to the file:
{"prompt": "...", "chosen": "a.png", "rejected": "b.png", "tie": false}, or
{"images": ["a.png", "b.png", "c.png"], "best": 2}, or {"image": "a.png", "label": 1}.
Pictures, videos and lists of pictures are accepted; docs/preference_rewards.md says more.
"""

from dataclasses import dataclass, field
from pathlib import Path

from embodied_reward.cli.command import run_verb
from embodied_reward.cli.device import pick_device
from embodied_reward.cli.scorer_baselines import Looks, baseline_rows
from embodied_reward.cli.scorer_trunk import (
    Backbone,
    TrunkConfig,
    open_backbone,
    read_pictures,
    read_prompts,
)
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.scoring.heads import HEADS, BradleyTerryConfig, HeadConfig, PreferenceHead
from embodied_reward.scoring.preferences import Preferences, read_preferences
from embodied_reward.training.run import default_output_dir, prepare_output_dir, save_config
from embodied_reward.training.scorer_data import (
    Batches,
    CandidateSet,
    FeatureTable,
    candidate_sets,
    split_judgements,
)
from embodied_reward.training.scorer_loop import ScorerOptimization, ScorerTrainer, judge
from embodied_reward.training.seeding import seed_everything, set_threads


@dataclass(frozen=True)
class TrainScorerConfig(ScorerOptimization):
    """Everything `er train-scorer` can be told."""

    data: str = ""
    """preferences, a .jsonl or .parquet file"""
    head: HeadConfig = field(default_factory=BradleyTerryConfig)
    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    frames: int = 8
    """frames taken of a clip, evenly spread"""
    val_fraction: float = 0.2
    """share of the judgements held out; judgements that share a picture stay together"""
    seed: int = 1000
    """seed of the split, the weights and every batch"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    threads: int = 0
    """torch CPU threads; 0 chooses"""
    cache_dir: str = ""
    """folder that keeps the features of a frozen encoder for later runs; empty keeps none"""
    name: str = ""
    """name by which requests ask for the scorer; default: name of the run folder"""
    licence: str = ""
    """licence of the weights, for the scorer's card"""
    job_name: str = ""
    """name of the run folder; default: head and data file"""
    output_dir: str | None = None
    """run folder; default: outputs/train-scorer/<date>_<name>"""
    resume: bool = False
    """continue the run in --output_dir from its newest checkpoint"""


def main(argv: list[str]) -> int:
    """Entry point of `er train-scorer`."""
    return run_verb("train-scorer", TrainScorerConfig, train_scorer, argv, __doc__)


def train_scorer(config: TrainScorerConfig) -> int:
    """Train; prints validation beside baselines and what to type next."""
    check(config)
    data = read_preferences(config.data)
    folder = _folder(config)
    set_threads(config.threads)
    seed_everything(config.seed)
    device = pick_device(config.device)
    sets = _sets(config, data)
    backbone = open_backbone(config.trunk, device)
    texts, text_features = read_prompts(backbone, data)
    table, looks = read_pictures(backbone, data, frames=config.frames, cache_dir=config.cache_dir)
    training, validation = (Batches(table, s, texts, text_features) if s else None for s in sets)
    assert training is not None
    text_dim = 0 if text_features is None else text_features.shape[1]
    head = _head(config, data, backbone, table, text_dim).to(device)
    trainer = _trainer(config, backbone, head, training, validation, folder)
    if config.resume:
        print(f"resuming at step {trainer.step}" if trainer.resume() else "no checkpoint yet")
    save_config(config, folder)
    _announce(config, data, trainer, folder)
    try:
        last = trainer.run()
    except KeyboardInterrupt:
        print(f"\nstopped at step {trainer.step}; continue with\n  {_resume_command(folder)}")
        return 130
    _closing(config, trainer, looks, last)
    return 0


def check(config: TrainScorerConfig) -> None:
    """Refuse settings that cannot work before anything is read. Raises ConfigError."""
    if not config.data:
        raise ConfigError("--data=FILE is missing: a .jsonl or .parquet file of preferences")
    if not 0 <= config.val_fraction <= 0.5:
        raise ConfigError(f"--val_fraction={config.val_fraction}; accepted: 0 to 0.5")
    for name in ("steps", "batch_size", "frames", "val_freq", "save_freq", "log_freq"):
        if getattr(config, name) < 1:
            raise ConfigError(f"--{name}={getattr(config, name)} must be at least 1")


def _sets(
    config: TrainScorerConfig, data: Preferences
) -> tuple[list[CandidateSet], list[CandidateSet]]:
    """Return what is compared in training and in validation."""
    training, validation, shared = split_judgements(data, config.val_fraction, config.seed)
    dims = len(data.dims)
    sets = candidate_sets(training, dims, config.seed)
    if not any(b >= 0 for s in sets for b in s.best):
        raise DatasetError(f"'{data.path}' holds only ties; nothing can be learned from them")
    if validation and shared:
        print("note: the judgements share pictures, so validation pictures were seen in training")
    try:
        return sets, candidate_sets(validation, dims, config.seed, tie_share=0.0)
    except DatasetError:
        print("note: the validation part has labels of one kind only; nothing is validated")
        return sets, []


def _head(
    config: TrainScorerConfig,
    data: Preferences,
    backbone: Backbone,
    table: FeatureTable,
    text_dim: int,
) -> PreferenceHead:
    kind = type(config.head).get_choice_name(type(config.head))
    live = backbone.encoder if backbone.trained else None
    dim = live.dim if live else table.values.shape[-1]
    head = HEADS[kind].create(config.head, dim, dims=data.dims, text_dim=text_dim)
    if not live:
        head.fit_input(table.values)
    return head


def _trainer(
    config: TrainScorerConfig,
    backbone: Backbone,
    head: PreferenceHead,
    training: Batches,
    validation: Batches | None,
    folder: Path,
) -> ScorerTrainer:
    return ScorerTrainer(
        config.name or folder.name,
        backbone.now,
        head,
        training,
        validation,
        config=config,
        folder=folder,
        seed=config.seed,
        encoder=backbone.encoder if backbone.trained else None,
        extra={"trunk": backbone.source} if backbone.source else {},
        licence=config.licence,
    )


def _folder(config: TrainScorerConfig) -> Path:
    if config.resume and config.output_dir is None:
        raise ConfigError("--resume=true needs --output_dir=RUN, the folder of the run to continue")
    kind = type(config.head).get_choice_name(type(config.head))
    name = config.job_name or f"{kind}_{Path(config.data).stem}"
    chosen = config.output_dir
    path = Path(chosen) if chosen else default_output_dir("train-scorer", name)
    return prepare_output_dir(path, resume=config.resume)


def _announce(
    config: TrainScorerConfig, data: Preferences, trainer: ScorerTrainer, folder: Path
) -> None:
    parameters = sum(p.numel() for p in trainer.modules.parameters() if p.requires_grad)
    held = len(trainer.validation.sets) if trainer.validation else 0
    trunk = "trained" if trainer.encoder is not None else "frozen"
    print(
        f"{trainer.head.__class__.__name__} on {config.trunk.name} ({trunk}): {parameters:,} "
        f"trained parameters; {len(data.clips)} clips, {len(trainer.training.sets)} training and "
        f"{held} validation comparisons\nrun folder: {folder}"
    )
    if any(row.prompt for row in data.rows) and not trainer.head.text_dim:
        print("note: prompts are not read; they only say what was compared with what")


def _closing(config: TrainScorerConfig, trainer: ScorerTrainer, looks: Looks, last: Path) -> None:
    if trainer.validation is not None:
        rows = {"scorer": judge(trainer.head.eval(), trainer.validation)}
        rows |= baseline_rows(looks, trainer.training, trainer.validation)
        print("\nheld-out pairs in which the preferred one scores higher (95 % interval):")
        for name, row in rows.items():
            sets = name == "scorer" and any(len(s.members) > 2 for s in trainer.validation.sets)
            top1 = f"   best of set {row['top1']:.3f}" if sets else ""
            print(
                f"  {name:<12} {row['accuracy']:.3f}  [{row['low']:.3f}, {row['high']:.3f}]{top1}"
            )
    folder = last.parent.parent
    print(f"\ncheckpoint: {last}\n\nnext:\n  er score PICTURES --scorer={folder}")


def _resume_command(folder: Path) -> str:
    return f"er train-scorer --output_dir={folder} --resume=true"
