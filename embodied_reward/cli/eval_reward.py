"""Measure a reward model beside trivial baselines: table, metrics.json, curves, videos.

er eval-reward --reward_model.path=RUN --dataset.root=UNSEEN [--reference.root=DEMOS]
               [--compare=OTHER_RUN,THIRD_RUN]
"""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied_reward import rewards
from embodied_reward.cli.cache_config import CacheConfig
from embodied_reward.cli.command import run_verb
from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.cli.eval_reward_groups import print_groups, print_robustness
from embodied_reward.cli.eval_reward_table import print_readings, print_table
from embodied_reward.cli.progress_bar import progress_bar
from embodied_reward.cli.reward_model_path import RewardModelPath
from embodied_reward.data import check_dataset
from embodied_reward.errors import ConfigError
from embodied_reward.files import replacing
from embodied_reward.metrics.baselines import trivial
from embodied_reward.metrics.comparison import beaten_by
from embodied_reward.metrics.evaluate import readings, summarise
from embodied_reward.metrics.judge import Judged, judge
from embodied_reward.metrics.overlay import write_overlay
from embodied_reward.metrics.plots import plot_episode, plot_summary
from embodied_reward.metrics.predictor import Predictor
from embodied_reward.metrics.robustness import Robustness
from embodied_reward.metrics.success import outcome_confusion
from embodied_reward.rewards import RewardModel
from embodied_reward.training.run import default_output_dir
from embodied_reward.training.seeding import set_threads
from embodied_reward.types import Episode

MODEL = "model"


@dataclass(frozen=True)
class EvalRewardConfig:
    """Everything `er eval-reward` can be told."""

    reward_model: RewardModelPath = field(default_factory=RewardModelPath)
    compare: tuple[str, ...] = ()
    """other trained models to set beside it, separated by commas; each looks at its own views"""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    reference: DatasetConfig = field(default_factory=DatasetConfig)
    """demonstrations the baselines may look at (goal picture); default: the dataset's successes"""
    interval: int | None = None
    """frames between VOC samples; default: about 30 samples per episode"""
    videos: int = 3
    """episodes shown as curves and overlay videos, half of them failures where there are any"""
    robustness: int = 6
    """episodes scored again without each view, with moved cameras and in other light; 0 for none"""
    verbose: bool = False
    """print every group of metrics, not the headline alone; metrics.json always has them all"""
    resamples: int = 500
    """bootstrap resamples of the 95 % intervals"""
    seed: int = 0
    """seed of the bootstrap and of the random baseline"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    device: str = "cpu"
    """cpu, cuda or mps"""
    threads: int = 0
    """torch CPU threads; 0 chooses"""
    output_dir: str | None = None
    """folder to write to; default: outputs/eval-reward/<date>_<model>"""


def main(argv: list[str]) -> int:
    """Entry point of `er eval-reward`."""
    return run_verb("eval-reward", EvalRewardConfig, eval_reward, argv, __doc__)


def eval_reward(config: EvalRewardConfig) -> int:
    """Score, compare, draw; returns 0 also when a baseline wins, because that is a result."""
    models = _load(config)
    model, episodes = models[MODEL], config.dataset.open()
    for views in dict.fromkeys(m.card.views for m in models.values()):
        check_dataset(episodes, views=views)
    set_threads(config.threads)
    demos, reference = _reference(config, episodes)
    predictors = {**models, **_baselines(config, model, episodes, demos)}
    shown = pick_shown(episodes.successes, config.videos)
    folder = _output_dir(config, model)
    changed = _robustness(config, model, predictors)
    again = pick_shown(episodes.successes, config.robustness)
    with config.cache.shared_by(*models.values()):
        judged = _judge_all(config, predictors, episodes, shown, folder, changed, again)
    table = _summaries(config, judged)
    plot_summary(folder / "summary.png", table, judged[MODEL], models=len(models))
    report = _report(config, models, judged, table, reference)
    report["robustness"] = {name: r.summary() for name, r in changed.items()}
    _write_json(folder / "metrics.json", report)
    sources = dict(zip(models, _paths(config), strict=True))
    print_table(table, judged[MODEL], reference, models=sources)
    print_readings(report["readings"])
    if config.verbose:
        print_groups(table)
        print_robustness(report["robustness"])
    _closing(config, folder, [episodes[i].index for i in shown])
    return 0


def pick_shown(successes: Sequence[bool | None], count: int) -> list[int]:
    """Return positions of up to `count` episodes, alternating successes and failures."""
    good = [i for i, s in enumerate(successes) if s is not False]
    bad = [i for i, s in enumerate(successes) if s is False]
    picked: list[int] = []
    while (good or bad) and len(picked) < count:
        source = good if good and (not bad or len(picked) % 2 == 0) else bad
        picked.append(source.pop(0))
    return sorted(picked)


def row_names(types: Sequence[str]) -> list[str]:
    """Name the compared models by their type, numbered where a name is taken: `tcc`, `tcc 2`."""
    names: list[str] = []
    for kind in types:
        tries = (kind if n == 1 else f"{kind} {n}" for n in itertools.count(1))
        names.append(next(name for name in tries if name not in (MODEL, *names)))
    return names


def _paths(config: EvalRewardConfig) -> list[str]:
    if config.reward_model.path is None:
        raise ConfigError("give the reward model with --reward_model.path=RUN")
    return [config.reward_model.path, *config.compare]


def _load(config: EvalRewardConfig) -> dict[str, RewardModel]:
    """Load every model by the name of its row; the first is the one that is evaluated."""
    first, *others = [rewards.load_progress(path, device=config.device) for path in _paths(config)]
    names = row_names([m.card.type for m in others])
    return {MODEL: first, **dict(zip(names, others, strict=True))}


def _reference(
    config: EvalRewardConfig, episodes: Sequence[Episode]
) -> tuple[Sequence[Episode], str]:
    if config.reference.root or config.reference.repo_id:
        return config.reference.open(), config.reference.label()
    # Generous to the baseline: it sees goals of the very episodes it is judged on.
    return episodes, "the evaluated episodes' own successes"


def _baselines(
    config: EvalRewardConfig,
    model: RewardModel,
    episodes: Sequence[Episode],
    demos: Sequence[Episode],
) -> dict[str, Predictor]:
    return trivial(episodes, demos, views=model.card.views, seed=config.seed)


def _judge_all(
    config: EvalRewardConfig,
    predictors: dict[str, Predictor],
    episodes: Sequence[Episode],
    shown: list[int],
    folder: Path,
    changed: dict[str, Robustness],
    again: list[int],
) -> dict[str, list[Judged]]:
    """Decode each episode once, show it to every predictor, and draw the chosen ones."""
    judged: dict[str, list[Judged]] = {name: [] for name in predictors}
    with progress_bar() as bar:
        task = bar.add_task("episodes", total=len(episodes))
        for position in range(len(episodes)):
            episode = episodes[position]
            for name, predictor in predictors.items():
                judged[name].append(judge(predictor, episode, interval=config.interval))
                if position in again:
                    changed[name].add(predictor, episode, judged[name][-1])
            if position in shown:
                _draw(folder, episode, judged[MODEL][-1])
            bar.advance(task)
    return judged


def _robustness(
    config: EvalRewardConfig, model: RewardModel, predictors: dict[str, Predictor]
) -> dict[str, Robustness]:
    return {name: Robustness(model.card.views, seed=config.seed) for name in predictors}


def _summaries(config: EvalRewardConfig, judged: dict[str, list[Judged]]) -> dict[str, Any]:
    table = {}
    with progress_bar() as bar:
        task = bar.add_task("intervals", total=len(judged))
        for name, rows in judged.items():
            found = summarise(rows, seed=config.seed, resamples=config.resamples)
            table[name] = found["metrics"]
            bar.advance(task)
    return table


def _draw(folder: Path, episode: Episode, judged: Judged) -> None:
    kind = {True: "success", False: "failure", None: "unlabelled"}[episode.success]
    title = f"{episode.task} - episode {episode.index} ({kind})"
    plot_episode(_picture(folder, episode.index), episode, judged.scores, title=title)
    write_overlay(_video(folder, episode.index), episode, judged.scores, title=title)


def _report(
    config: EvalRewardConfig,
    models: dict[str, RewardModel],
    judged: dict[str, list[Judged]],
    table: dict[str, Any],
    reference: str,
) -> dict[str, Any]:
    baselines = {name: metrics for name, metrics in table.items() if name not in models}
    entries = {
        name: _entry(path, model, judged[name], table[name], baselines)
        for path, (name, model) in zip(_paths(config), models.items(), strict=True)
    }
    return {
        **entries.pop(MODEL),
        "dataset": config.dataset.label(),
        "reference": reference,
        "seed": config.seed,
        "interval": config.interval,
        "baselines": baselines,
        "compared": entries,
    }


def _entry(
    path: str,
    model: RewardModel,
    judged: list[Judged],
    metrics: dict[str, Any],
    baselines: dict[str, Any],
) -> dict[str, Any]:
    """Return what the report says of one model."""
    return {
        "reward_model": {"path": path, **model.card.to_dict()},
        "metrics": metrics,
        "readings": readings(judged),
        "outcomes": outcome_confusion(judged),
        "beaten_by": [vars(b) for b in beaten_by(metrics, baselines)],
        "episodes": summarise(judged, resamples=0)["episodes"],
    }


def _write_json(path: Path, report: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(finite(report), indent=1, allow_nan=False) + "\n")


def finite(tree: Any) -> Any:
    """Replace NaN and infinities by None, which JSON can say."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _output_dir(config: EvalRewardConfig, model: RewardModel) -> Path:
    if config.output_dir:
        return Path(config.output_dir)
    name = f"{model.card.type}_{Path(config.dataset.label()).name}"
    return default_output_dir("eval-reward", name)


def _picture(folder: Path, index: int) -> Path:
    return folder / "episodes" / f"episode_{index:03d}.png"


def _video(folder: Path, index: int) -> Path:
    return folder / "episodes" / f"episode_{index:03d}.mp4"


def _closing(config: EvalRewardConfig, folder: Path, shown: list[int]) -> None:
    print(f"\nmetrics:  {folder / 'metrics.json'}  (with --verbose=true they are printed, too)")
    print(f"summary:  {folder / 'summary.png'}")
    for index in shown:
        print(f"episode:  {_picture(folder, index)}  {_video(folder, index)}")
    print(
        "\nnext:\n  er train-policy --env.id=ENV "
        f"--reward.path={config.reward_model.path} --reward.mode=potential"
    )
