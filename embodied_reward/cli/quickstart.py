"""The whole road on two CPU cores in about ten minutes, through the public verbs.

er quickstart [--preset=smoke] [--env.id=metaworld/<task>] [--seed=0]

Collects demonstrations and unseen mixed-quality episodes, trains a reward model and measures it
beside trivial baselines, then trains a policy twice from the same cloned start and budget: on
the success signal alone, and with the learned progress as a potential. Every step is a command
that it prints first; what comes out is what it reports.
"""

import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from embodied_reward import cli
from embodied_reward.cli.command import run_verb
from embodied_reward.errors import EmbodiedRewardError

ARMS = {"success": "success reward alone", "potential": "success + learned progress (shaped)"}


@dataclass(frozen=True)
class QuickstartEnv:
    """Which environment; how time runs in it is in the presets."""

    id: str = "metaworld/button-press-topdown-v3"
    """any metaworld/<task> with true progress and a scripted expert"""


@dataclass(frozen=True)
class QuickstartConfig:
    """What `er quickstart` can be told; everything else is in the presets it names."""

    env: QuickstartEnv = field(default_factory=QuickstartEnv)
    presets: str = "quickstart"
    """name of the preset that every verb is called with"""
    seed: int = 0
    """seed of everything"""
    output_dir: str = ""
    """folder of all results; default outputs/quickstart/<date>"""


def main(argv: list[str]) -> int:
    """Entry point of `er quickstart`."""
    return run_verb("quickstart", QuickstartConfig, quickstart, argv, __doc__)


def quickstart(config: QuickstartConfig) -> int:
    """Run the six stages and print what came out."""
    began = time.monotonic()
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(config.output_dir or f"outputs/quickstart/{stamp}")
    common = [f"--preset={config.presets}", f"--env.id={config.env.id}", f"--seed={config.seed}"]
    _collect(folder, config, common)
    _reward(folder, config)
    _policies(folder, common)
    _report(folder, config, time.monotonic() - began)
    return 0


def _collect(folder: Path, config: QuickstartConfig, common: list[str]) -> None:
    _say("1/4  Demonstrations from two cameras, and unseen episodes of mixed quality")
    _run("collect", [*common, f"--output_dir={folder}/demos"])
    unseen = [f"--preset={config.presets}-unseen", f"--env.id={config.env.id}"]
    _run("collect", [*unseen, f"--seed={config.seed + 1}", f"--output_dir={folder}/unseen"])


def _reward(folder: Path, config: QuickstartConfig) -> None:
    _say("2/4  A reward model from the demonstrations, measured on the unseen episodes")
    preset, seed = f"--preset={config.presets}", f"--seed={config.seed}"
    data, run = f"--dataset.root={folder}/demos", f"--output_dir={folder}/reward"
    _run("train-reward", [preset, data, seed, run])
    unseen = [f"--dataset.root={folder}/unseen", f"--reference.root={folder}/demos"]
    model = f"--reward_model.path={folder}/reward"
    _run("eval-reward", [model, *unseen, f"--output_dir={folder}/reward_eval"])


def _policies(folder: Path, common: list[str]) -> None:
    _say("3/4  The same policy twice, side by side: success reward alone, and shaped")
    learn = [*common, f"--dataset.root={folder}/demos", f"--reward.path={folder}/reward"]
    _run_both(
        "train-policy",
        {
            arm: [*learn, f"--reward.mode={arm}", f"--output_dir={folder}/policy_{arm}"]
            for arm in ARMS
        },
        folder,
    )
    _say("4/4  Both policies on fresh starts, with videos")
    _run_both(
        "eval-policy",
        {
            arm: [
                common[0],
                f"--policy.path={folder}/policy_{arm}",
                f"--reward.path={folder}/reward",
                f"--output_dir={folder}/eval_{arm}",
            ]
            for arm in ARMS
        },
        folder,
    )


def _say(text: str) -> None:
    Console().rule(f"[bold]{text}", align="left")


def _run(verb: str, arguments: list[str]) -> None:
    print(f"$ er {verb} {shlex.join(arguments)}", flush=True)
    if cli.main([verb, *arguments]) != 0:
        raise EmbodiedRewardError(f"'er {verb}' failed; its message is above")


def _run_both(verb: str, arms: dict[str, list[str]], folder: Path) -> None:
    """Run one process per arm; the last one writes to the terminal, the others to a log."""
    running: dict[str, subprocess.Popen] = {}
    logs = {arm: folder / f"{verb}_{arm}.log" for arm in list(arms)[:-1]}
    try:
        for arm, arguments in arms.items():
            print(f"$ er {verb} {shlex.join(arguments)}", flush=True)
            running[arm] = _start(verb, arguments, logs.get(arm))
        codes = {arm: process.wait() for arm, process in running.items()}
    finally:
        for process in running.values():
            if process.poll() is None:
                process.terminate()
    for arm, code in codes.items():
        if code != 0:
            where = f"its log is {logs[arm]}" if arm in logs else "its message is above"
            raise EmbodiedRewardError(f"'er {verb}' for '{arm}' failed; {where}")


def _start(verb: str, arguments: list[str], log: Path | None) -> subprocess.Popen:
    command = [sys.executable, "-m", "embodied_reward.cli", verb, *arguments]
    if log is None:
        return subprocess.Popen(command)  # noqa: S603
    with log.open("w") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)  # noqa: S603


def _report(folder: Path, config: QuickstartConfig, seconds: float) -> None:
    start = {arm: _first_success(folder / f"policy_{arm}") for arm in ARMS}
    table = Table(title=f"{config.env.id}: success on fresh starts, seed {config.seed}")
    for column in ("policy", "cloned start", "after RL", "95 % interval", "episodes"):
        table.add_column(column)
    for arm, name in ARMS.items():
        row = _read(folder / f"eval_{arm}" / "metrics.json")
        low, high = row["eval/success_low"], row["eval/success_high"]
        table.add_row(
            name,
            _percent(start[arm]),
            _percent(row["eval/success_rate"]),
            f"{_percent(low)} - {_percent(high)}",
            str(row["episodes"]),
        )
    console = Console()
    console.rule("[bold]What came out", align="left")
    console.print(table)
    print(_closing(folder, config, seconds))


def _closing(folder: Path, config: QuickstartConfig, seconds: float) -> str:
    curves = sorted((folder / "reward_eval").rglob("*.png"))[:1]
    videos = [p for arm in ARMS for p in sorted((folder / f"eval_{arm}").rglob("*.mp4"))[:1]]
    shown = "\n".join(f"  {path}" for path in [*curves, *videos])
    return (
        "One seed: read the interval, and do not read one run as a law. Over seeds the two arms\n"
        "have traded places (docs/results.md).\n"
        f"Done in {seconds / 60:.1f} minutes.\n\n"
        f"look at\n{shown}\n\nnext\n"
        f"  er data inspect {folder}/demos\n"
        f"  er eval-policy --policy.path={folder}/policy_potential --reward.path={folder}/reward "
        "--episodes=100\n"
        f"  tensorboard --logdir {folder}\n"
        f"  er quickstart --env.id=metaworld/window-open-v3 --seed={config.seed + 1}"
    )


def _first_success(run: Path) -> float | None:
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row.get("eval/success_rate") is not None:
            return row["eval/success_rate"]
    return None


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
