"""Write one self-contained HTML page about a trained model: metrics, episodes, failures, probes.

er report RUN
er report --reward_model.path=RUN --dataset.root=UNSEEN [--reference.root=DEMOS]

RUN is a run folder or checkpoint of `er train-reward`; without a dataset the run's own
validation episodes are used. A run of `er train-policy` gives a page of learning curves.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied_reward import config as configs
from embodied_reward.cli.cache_config import CacheConfig
from embodied_reward.cli.command import run_verb
from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.cli.report_material import find_material, run_folder
from embodied_reward.errors import ConfigError
from embodied_reward.files import replacing


@dataclass(frozen=True)
class ModelPath:
    """Which trained model."""

    path: str | None = None
    """run folder or checkpoint; may also be written without the option's name"""


@dataclass(frozen=True)
class ReportConfig:
    """Everything `er report` can be told."""

    reward_model: ModelPath = field(default_factory=ModelPath)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    reference: DatasetConfig = field(default_factory=DatasetConfig)
    """demonstrations that goal pictures come from; default: the run's training dataset"""
    output: str | None = None
    """HTML file to write; default: RUN/report.html"""
    shown: int = 12
    """episodes with pictures; all are measured and listed"""
    megabytes: float = 12.0
    """size that the page's episode pictures may take [MB]"""
    probe_episodes: int = 4
    """episodes that the reward-hacking probes use, half of them failures where there are any"""
    probe_budget: int = 150
    """scored pictures that each patch search may use per scene"""
    success_threshold: float | None = None
    """success counts as claimed from here on; default: the model's own, else 0.5"""
    interval: int | None = None
    """frames between VOC samples; default: about 30 samples per episode"""
    resamples: int = 500
    """bootstrap resamples of the 95 % intervals"""
    seed: int = 0
    """seed of the bootstrap, the random baseline and the probes"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    device: str = "cpu"
    """cpu, cuda or mps"""
    threads: int = 0
    """torch CPU threads; 0 chooses"""


def main(argv: list[str]) -> int:
    """Entry point of `er report`."""
    return run_verb("report", ReportConfig, report, with_path(argv), __doc__)


def with_path(argv: list[str]) -> list[str]:
    """Read a first argument without `--` as the model's path."""
    if argv and not argv[0].startswith("-"):
        return [f"--reward_model.path={argv[0]}", *argv[1:]]
    return argv


def report(config: ReportConfig) -> int:
    """Write the page; returns 0 also when a baseline wins or a probe fails: that is a result."""
    path = _model_path(config)
    page = policy_page(config, path) if is_policy(path) else reward_page(config, path)
    out = _output(config, path)
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


def reward_page(config: ReportConfig, path: Path) -> str:
    """Measure a reward model and return its page."""
    from embodied_reward import rewards
    from embodied_reward.cli.report_evidence import gather
    from embodied_reward.data import check_dataset
    from embodied_reward.report.document import reward_document
    from embodied_reward.report.evidence import Origin
    from embodied_reward.report.learning import read_rows
    from embodied_reward.report.page import render
    from embodied_reward.training.seeding import set_threads

    model = rewards.load(path, device=config.device)
    if not model.card.progress:
        raise ConfigError(
            f"'{path}' is a '{model.card.type}' model, which judges success and no progress; the "
            "report is about progress: give a model of progress, or use `er eval-reward`"
        )
    run = run_folder(path)
    material = find_material(run, config.dataset, config.reference)
    check_dataset(material.episodes, views=model.card.views)
    set_threads(config.threads)
    origin = Origin(
        command=command(config),
        facts={"model": str(path), "dataset": material.dataset},
        episodes=material.said,
        caution=material.caution,
        reference=material.reference,
    )
    training = read_rows(run / "metrics.jsonl") if run else []
    with config.cache.shared_by(model):
        evidence = gather(config, model, material, origin, training, steps_picture(run))
    _print_summary(evidence)
    return render(reward_document(evidence))


def steps_picture(run: Path | None) -> Any:
    """Return the run's picture of discovered steps, UInt8["h w 3"]; None where there is none."""
    import numpy as np
    import PIL.Image

    if run is None or not (run / "steps.png").is_file():
        return None
    with PIL.Image.open(run / "steps.png") as picture:
        return np.asarray(picture.convert("RGB"))


def policy_page(config: ReportConfig, path: Path) -> str:
    """Return a policy run's learning curves as a page."""
    from embodied_reward.report.document import policy_document
    from embodied_reward.report.learning import read_rows
    from embodied_reward.report.page import render

    run = run_folder(path)
    rows = read_rows(run / "metrics.jsonl") if run else []
    if run is None or not rows:
        raise ConfigError(
            f"'{path}' is a policy without a metrics.jsonl, so there are no learning curves; give "
            "the run folder that `er train-policy` wrote"
        )
    tree = configs.read_yaml(run / "config.yaml")
    facts = {"run": str(run), **_policy_facts(tree)}
    title = f"Policy for {tree.get('env', {}).get('id', 'an environment')}"
    return render(policy_document(title, command(config), facts, rows))


def is_policy(path: Path) -> bool:
    """Tell whether a run or checkpoint was written by `er train-policy`."""
    from embodied_reward.rewards import pretrained_folder

    run = run_folder(path)
    if run is not None:
        return "policy" in configs.read_yaml(run / "config.yaml")
    return "policy" in json.loads((pretrained_folder(path) / "config.json").read_text())


def command(config: ReportConfig) -> str:
    """Return the command line that writes this page again."""
    given, default = _flat(configs.encode(config)), _flat(configs.encode(ReportConfig()))
    words = [f"--{key}={_word(v)}" for key, v in given.items() if v != default[key]]
    return " ".join(["er report", *map(shlex.quote, words)])


def _model_path(config: ReportConfig) -> Path:
    if not config.reward_model.path:
        raise ConfigError("give the model: `er report RUN` or --reward_model.path=RUN")
    return Path(config.reward_model.path)


def _output(config: ReportConfig, path: Path) -> Path:
    if config.output:
        return Path(config.output)
    return (run_folder(path) or path) / "report.html"


def _policy_facts(tree: dict[str, Any]) -> dict[str, str]:
    reward = tree.get("reward", {})
    found = {
        "algorithm": tree.get("policy", {}).get("type"),
        "steps": tree.get("steps"),
        "reward": reward.get("path") or "the task's own",
        "reward mode": reward.get("mode"),
        "seed": tree.get("seed"),
    }
    return {key: str(value) for key, value in found.items() if value is not None}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix + key
        flat |= _flat(value, name + ".") if isinstance(value, dict) else {name: value}
    return flat


def _word(value: Any) -> str:
    return (
        ",".join(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value)
    )


def _print_summary(evidence: Any) -> None:
    from embodied_reward.report.metric_table import metric_table

    print(metric_table(evidence)["verdict"]["text"])
    for probe in evidence.probes:
        print(f"  {probe.verdict:<9} {probe.title}: {probe.got}")
