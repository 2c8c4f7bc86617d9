"""Fine-tune a vision-language model to judge pictures and clips, on your own preferences.

er train-judge --data=prefs.jsonl --judge.type=yes_token --judge.model=FOLDER_OR_HUB_ID
er train-judge --data=captions.jsonl --judge.type=likelihood --judge.model=small

The data are those of `er train-scorer`. yes_token learns to say whether a candidate is better than
another (or passes, for single labels); likelihood learns the prompt of what was preferred, so that
its probability becomes a score. `small` is a model of a few hundred kilobytes that is trained from
nothing and knows the words of the data only. The model is trained whole: for billions of
parameters use TRL's SFTTrainer and give the folder it saves to `er score`.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from embodied_reward.cli.command import run_verb
from embodied_reward.cli.device import pick_device
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.math.statistics import wilson
from embodied_reward.scoring.language.base import LanguageScorer
from embodied_reward.scoring.language.config import NATIVE
from embodied_reward.scoring.language.fit import fit_reader
from embodied_reward.scoring.language.lessons import lessons, verdicts
from embodied_reward.scoring.language.likelihood import LikelihoodConfig
from embodied_reward.scoring.language.reader import Reader, load_reader
from embodied_reward.scoring.language.small import small_reader
from embodied_reward.scoring.language.yes_token import YesTokenConfig
from embodied_reward.scoring.preferences import Preferences, read_preferences
from embodied_reward.training.run import default_output_dir, prepare_output_dir, save_config
from embodied_reward.training.scorer_data import split_judgements
from embodied_reward.training.seeding import seed_everything, set_threads

SMALL = "small"


@dataclass(frozen=True)
class JudgeConfig:
    """Which model, and how it is asked."""

    type: Literal["yes_token", "likelihood"] = "yes_token"
    """yes_token asks which is better, or whether it passes; likelihood asks for the prompt"""
    model: str = ""
    """folder of save_pretrained, hub id, or small"""
    revision: str | None = None
    """commit of the hub model; pin it for reproducible runs"""
    prompt: str = YesTokenConfig.prompt
    """yes_token: question about one candidate; {text} is the prompt of the data"""
    comparison: str = YesTokenConfig.comparison
    """yes_token: question about two candidates, the reference first"""
    query: str = LikelihoodConfig.query
    """likelihood: what the model is asked"""


@dataclass(frozen=True)
class TrainJudgeConfig:
    """Everything `er train-judge` can be told."""

    data: str = ""
    """preferences, a .jsonl or .parquet file"""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    steps: int = 200
    """updates"""
    batch_size: int = 32
    """questions of one update"""
    lr: float = 1e-3
    """peak learning rate of AdamW; 1e-5 suits pretrained models"""
    frames: int = 4
    """frames taken of a clip, evenly spread"""
    val_fraction: float = 0.2
    """share of the judgements held out"""
    seed: int = 1000
    """seed of the split, the small model's weights and every batch"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    threads: int = 0
    """torch CPU threads; 0 chooses"""
    output_dir: str | None = None
    """folder of the scorer; default: outputs/train-judge/<date>_<name>"""


def main(argv: list[str]) -> int:
    """Entry point of `er train-judge`."""
    return run_verb("train-judge", TrainJudgeConfig, train_judge, argv, __doc__)


def train_judge(config: TrainJudgeConfig) -> int:
    """Train; prints held-out accuracy beside chance and what to type next."""
    _check(config)
    data = read_preferences(config.data)
    name = f"{config.judge.type}_{data.path.stem}"
    folder = prepare_output_dir(
        Path(config.output_dir or default_output_dir("train-judge", name)), resume=False
    )
    set_threads(config.threads)
    seed_everything(config.seed)
    scorer = _scorer(config, data, folder.name)
    training, validation, _ = split_judgements(data, config.val_fraction, config.seed)
    look = lru_cache(maxsize=None)(lambda clip: tuple(data.clips[clip].frames(config.frames)))
    turns = lessons(scorer, training, look)
    if not turns:
        raise DatasetError(f"'{data.path}' teaches a {config.judge.type} judge nothing: {_needs()}")
    save_config(config, folder)
    print(f"{config.judge.type} on {config.judge.model}: {len(turns)} questions\nfolder: {folder}")
    before = verdicts(scorer, validation, look, [row.prompt for row in data.rows])
    _fit(config, scorer, turns)
    scorer = type(scorer)(scorer.reader, scorer.config)  # with the digest of the new weights
    after = verdicts(scorer, validation, look, [row.prompt for row in data.rows])
    scorer.save(folder)
    _closing(folder, before, after)
    return 0


def _check(config: TrainJudgeConfig) -> None:
    if not config.data:
        raise ConfigError("--data=FILE is missing: a .jsonl or .parquet file of preferences")
    if config.judge.type not in NATIVE:
        raise ConfigError(f"--judge.type={config.judge.type}; accepted: {', '.join(NATIVE)}")
    if not config.judge.model:
        raise ConfigError("--judge.model is missing: a folder, a hub id, or small")
    for name in ("steps", "batch_size", "frames"):
        if getattr(config, name) < 1:
            raise ConfigError(f"--{name}={getattr(config, name)} must be at least 1")


def _scorer(config: TrainJudgeConfig, data: Preferences, name: str) -> LanguageScorer:
    judge = config.judge
    reader = _reader(config, data)
    if judge.type == "likelihood":
        settings = LikelihoodConfig(name=name, query=judge.query)
    else:
        settings = YesTokenConfig(name=name, prompt=judge.prompt, comparison=judge.comparison)
    return NATIVE[judge.type][1](reader, settings)


def _reader(config: TrainJudgeConfig, data: Preferences) -> Reader:
    judge = config.judge
    if judge.model != SMALL:
        device = pick_device(config.device)
        return load_reader(judge.model, revision=judge.revision, device=device)
    words = [row.prompt for row in data.rows]
    questions = [judge.prompt, judge.comparison, judge.query, "yes no"]
    return small_reader([*words, *questions], seed=config.seed)


def _fit(config: TrainJudgeConfig, scorer: LanguageScorer, turns: list) -> None:
    with tqdm(total=config.steps, unit="step", desc="train-judge") as bar:

        def show(_: int, loss: float) -> None:
            bar.update(1)
            bar.set_postfix(loss=f"{loss:.3f}")

        fit_reader(
            scorer.reader,
            turns,
            steps=config.steps,
            batch=config.batch_size,
            learning_rate=config.lr,
            generator=np.random.default_rng(config.seed),
            on_step=show,
        )


def _closing(folder: Path, before: np.ndarray, after: np.ndarray) -> None:
    if len(after):
        print("\nheld-out questions answered rightly (95 % interval; chance 0.500):")
        for what, passed in (("before", before), ("after", after)):
            low, high = wilson(int(passed.sum()), len(passed))
            print(f"  {what:<7} {passed.mean():.3f}  [{low:.3f}, {high:.3f}]  of {len(passed)}")
    print(f"\nnext:\n  er score PICTURES --scorer={folder} --text=PROMPT")


def _needs() -> str:
    return "give pairs or labels (yes_token), or prompts of preferred pictures (likelihood)"
