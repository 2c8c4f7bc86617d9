"""Teach a trained scorer not to pay for broken pictures: r = r_base - lambda p(artefact).

er guard-scorer --scorer=outputs/scorer --data=labels.jsonl
er guard-scorer --scorer=outputs/scorer --data=prefs.jsonl --weight=2 --output_dir=outputs/guarded

Rows {"image": "a.png", "label": 0} are pictures known to be broken; all others are good ones. Each
good picture is also broken on purpose (--corruptions). A small classifier learns to tell them apart
on the features that the scorer reads anyhow; lambda is the least with which 90 % of the corruptions
of held-out pictures do not pay. Run it again on the pictures of a policy as that moves.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from embodied_reward.cli.command import run_verb
from embodied_reward.errors import ConfigError, DatasetError, did_you_mean
from embodied_reward.scoring import FeatureCache, Scorer, ScoreRequest, ScoringCore
from embodied_reward.scoring.heads.artefact import ArtefactHead, artefact_weight, fit_artefacts
from embodied_reward.scoring.preferences import Preferences, read_preferences
from embodied_reward.scoring.recipes import save_guard
from embodied_reward.scoring.sources import open_scorer
from embodied_reward.training.run import (
    check_output_dir,
    default_output_dir,
    prepare_output_dir,
    save_config,
)
from embodied_reward.training.seeding import set_threads
from embodied_reward.types import UInt8
from embodied_reward.vision.corruptions import CORRUPTIONS, corrupt

HIDDEN = 64


@dataclass(frozen=True)
class GuardConfig:
    """Everything `er guard-scorer` can be told."""

    scorer: str = ""
    """run of er train-scorer, or whatever else has a head on image features"""
    data: str = ""
    """pictures, a .jsonl or .parquet file as for er train-scorer"""
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    """how good pictures are broken on purpose; none takes the labelled ones only"""
    copies: int = 4
    """times that each good picture is broken"""
    weight: float | None = None
    """lambda in units of the score; default: the least that holds --share of corruptions back"""
    share: float = 0.9
    """share of held-out corruptions that must not pay"""
    val_fraction: float = 0.25
    """share of the pictures that choose lambda"""
    steps: int = 300
    """steps of the classifier"""
    frames: int = 4
    """frames taken of a clip"""
    text: str = ""
    """prompt for scorers that read one; default: each picture's own"""
    seed: int = 1000
    """seed of corruptions, split and classifier"""
    device: str = "cpu"
    """cpu, cuda or mps"""
    threads: int = 0
    """torch CPU threads; 0 chooses"""
    output_dir: str | None = None
    """folder of the guarded scorer; default: outputs/guard-scorer/<date>_<name>"""


@dataclass(frozen=True)
class Pictures:
    """Good pictures with their prompts, and broken ones."""

    good: list[UInt8]
    """each UInt8["1 h w 3"]"""
    texts: list[str]
    broken: list[UInt8]


def main(argv: list[str]) -> int:
    """Entry point of `er guard-scorer`."""
    return run_verb("guard-scorer", GuardConfig, guard_scorer, argv, __doc__)


def guard_scorer(config: GuardConfig) -> int:
    """Fit, choose lambda, save; prints what corruptions gained before and after."""
    _check(config)
    set_threads(config.threads)
    scorer = open_scorer(config.scorer, device=config.device)
    if not isinstance(scorer, Scorer):
        raise ConfigError(f"'{config.scorer}' has no features that a classifier could read")
    chosen = config.output_dir or default_output_dir("guard-scorer", scorer.card.name)
    check_output_dir(Path(chosen), resume=False)
    found = _pictures(config, read_preferences(config.data))
    rng = np.random.default_rng(config.seed)
    fit, test = _split(config, found, rng)
    with ScoringCore(cache=FeatureCache()) as core:
        classifier = fit_artefacts(
            core.embed(scorer.trunk, [found.good[i] for i in fit]),
            core.embed(scorer.trunk, _broken(config, found, fit, rng)),
            torch.Generator().manual_seed(config.seed),
            hidden=HIDDEN,
            steps=config.steps,
        )
        core.register(Scorer(scorer.card, scorer.trunk, ArtefactHead(scorer.head, classifier, 0.0)))
        change, auc = _changes(config, core, scorer.card.name, found, test, rng)
    weight = config.weight
    if weight is None:
        weight = artefact_weight(change[:, 0], change[:, 1], share=config.share)
    head = ArtefactHead(scorer.head, classifier, weight)
    folder = prepare_output_dir(Path(chosen), resume=False)
    save_guard(folder, folder.name, Path(config.scorer), scorer, head, HIDDEN)
    save_config(config, folder)
    _closing(folder, change, auc, weight)
    return 0


def _split(
    config: GuardConfig, found: Pictures, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Return the good pictures to fit on, and those that choose lambda."""
    order = rng.permutation(len(found.good)).tolist()
    held = max(1, round(config.val_fraction * len(order)))
    if held >= len(order):
        raise DatasetError(f"'{config.data}' holds {len(order)} good pictures; give at least 2")
    return order[held:], order[:held]


def _check(config: GuardConfig) -> None:
    for name in ("scorer", "data"):
        if not getattr(config, name):
            raise ConfigError(f"--{name} is missing; er guard-scorer --help says what it takes")
    if not Path(config.scorer).exists():
        raise ConfigError(f"no scorer at '{config.scorer}'; only scorers on disk can be guarded")
    for kind in config.corruptions:
        if kind not in CORRUPTIONS:
            raise ConfigError(f"no corruption '{kind}'; {did_you_mean(kind, CORRUPTIONS)}")
    if not 0 < config.val_fraction < 1 or not 0 < config.share <= 1 or config.copies < 1:
        raise ConfigError("--val_fraction and --share lie in (0, 1), --copies is at least 1")


def _pictures(config: GuardConfig, data: Preferences) -> Pictures:
    bad = {clip for row in data.rows if row.label == 0 for clip in row.items}
    prompt = {clip: row.prompt for row in data.rows for clip in row.items}
    found = Pictures([], [], [])
    for number, clip in enumerate(tqdm(data.clips, unit="clip", desc="reading pictures")):
        frames = [frame[None] for frame in clip.frames(config.frames)]
        if number in bad:
            found.broken.extend(frames)
        else:
            found.good.extend(frames)
            found.texts.extend([config.text or prompt.get(number, "")] * len(frames))
    if not found.broken and not config.corruptions:
        raise DatasetError(
            f"'{config.data}' labels no picture 0, and --corruptions is empty: there is nothing "
            "broken to learn from"
        )
    return found


def _broken(
    config: GuardConfig, found: Pictures, rows: list[int], rng: np.random.Generator
) -> list[UInt8]:
    """Return the pictures that are known to be broken, and broken copies of good ones."""
    copies = config.copies if config.corruptions else 0
    made = [corrupt(found.good[i], rng, config.corruptions) for i in rows for _ in range(copies)]
    return [*found.broken, *made]


def _changes(
    config: GuardConfig,
    core: ScoringCore,
    name: str,
    found: Pictures,
    rows: list[int],
    rng: np.random.Generator,
) -> tuple[Tensor, float]:
    """Return how much base score and p(artefact) rise by corruption, Tensor["n 2"], and the AUC."""
    kinds = config.corruptions or tuple(CORRUPTIONS)
    good = [found.good[i] for i in rows]
    broken = [corrupt(picture, rng, kinds) for picture in good]
    texts = tuple(dict.fromkeys(found.texts[i] for i in rows))
    text = [texts.index(found.texts[i]) for i in rows]
    dims = []
    for pictures in (good, broken):
        request = ScoreRequest(scorers=name, frames=tuple(pictures), texts=texts, text=text)  # type: ignore[arg-type]
        batch = core.score(request)[name]
        batch.require_ok()
        dims.append(torch.from_numpy(batch.dims))
    p_good, p_broken = dims[0][:, 1], dims[1][:, 1]
    wins = (p_broken[:, None] > p_good).float() + 0.5 * (p_broken[:, None] == p_good).float()
    return dims[1] - dims[0], float(wins.mean())


def _closing(folder: Path, change: Tensor, auc: float, weight: float) -> None:
    gain, guarded = change[:, 0], change[:, 0] - weight * change[:, 1]
    print(
        f"\nheld-out pictures, {len(change)} of them broken on purpose:\n"
        f"  classifier AUC {auc:.3f} (0.5 knows nothing)\n"
        f"  corruption pays    before {float((gain > 0).float().mean()):.0%}, "
        f"after {float((guarded > 0).float().mean()):.0%} of pictures\n"
        f"  mean gain          before {float(gain.mean()):+.3f}, after {float(guarded.mean()):+.3f}"
        f"\nlambda {weight:.4g}\n\nnext:\n  er score PICTURES --scorer={folder}"
    )
