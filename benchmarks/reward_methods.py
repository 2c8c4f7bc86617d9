"""Every reward method from the same ten demonstrations, on the same twenty unseen episodes.

    uv run python benchmarks/reward_methods.py [--tasks=a,b] [--seeds=1] [--steps=300]
                                               [--methods=tcc,dopamine]

For every task and seed: the data of `benchmarks/reward_quality.py` (made as there, or reused where
its folder exists), one `er train-reward` per method with its default configuration and one
`er eval-reward --compare=...` for all of them. Finished runs are kept per number of steps.
Writes `reward_methods.json`, prints how much the members of an ensemble disagree, and then the
table of docs/methods.md: mean over tasks and seeds, the worst of them in brackets.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from reward_quality import TASKS
from runs import collect, er

from embodied_reward.data import open_dataset
from embodied_reward.rewards import load
from embodied_reward.types import Episode

METHODS = {
    "dopamine": ("--reward_model.type=dopamine",),
    "remaining_time": ("--reward_model.type=remaining_time",),
    "goal_distance": ("--reward_model.type=goal_distance",),
    "tcc": ("--reward_model.type=tcc",),
    "ensemble": (
        "--reward_model.type=ensemble",
        "--reward_model.member.type=remaining_time",
        "--reward_model.count=3",
    ),
}
COLUMNS = {
    "Spearman": "spearman",
    "MAE": "mae",
    "VOC": "voc_min",
    "success AUC": "success_auc",
    "training [s]": "seconds",
}
LOWER = {"mae", "seconds"}


def train(method: str, folder: Path, seed: int, steps: int) -> Path:
    """Train one method; its wall time is written last and marks the run as finished."""
    run = folder / f"reward_{method}_{steps}"
    clock = run / "seconds.json"
    if not clock.exists():
        started = time.monotonic()
        er(
            "train-reward",
            *METHODS[method],
            f"--dataset.root={folder}/demos",
            f"--output_dir={run}",
            f"--steps={steps}",
            f"--seed={seed}",
        )
        clock.write_text(json.dumps(time.monotonic() - started) + "\n")
    return run


def measure(runs: dict[str, Path], folder: Path, steps: int) -> dict[str, dict]:
    """Evaluate all methods in one command and return the values of each, and of the baselines."""
    first, *others = runs.values()
    out = folder / f"eval_methods_{steps}"
    er(
        "eval-reward",
        f"--reward_model.path={first}",
        *([f"--compare={','.join(map(str, others))}"] if others else []),
        f"--dataset.root={folder}/unseen",
        f"--reference.root={folder}/demos",
        "--videos=0",
        f"--output_dir={out}",
    )
    report = json.loads((out / "metrics.json").read_text())
    models = [report, *report["compared"].values()]
    rows = {m: values(entry["metrics"]) for m, entry in zip(runs, models, strict=True)}
    for method, run in runs.items():
        rows[method]["seconds"] = json.loads((run / "seconds.json").read_text())
    return rows | {name: values(metrics) for name, metrics in report["baselines"].items()}


def disagreement(run: Path, folder: Path) -> str:
    """Table of the members' standard deviation on familiar and on altered pictures."""
    model, rng = load(run), np.random.default_rng(0)
    demos, unseen = list(open_dataset(folder / "demos")), list(open_dataset(folder / "unseen"))
    altered = {
        "colours inverted": lambda f: 255 - f,
        "mirrored": lambda f: f[:, :, ::-1].copy(),
        "noise": lambda f: rng.integers(0, 256, f.shape, np.uint8),
        "at 30 % brightness": lambda f: (f * 0.3).astype(np.uint8),
    }
    groups = {
        "training demonstrations": demos,
        "unseen successes": [e for e in unseen if e.success],
        "unseen failures": [e for e in unseen if not e.success],
    }
    groups |= {name: [alter(e, change) for e in demos[:4]] for name, change in altered.items()}
    lines = ["| frames | disagreement |", "|---|---|"]
    for name, episodes in groups.items():
        mean = np.mean([model.disagreement(e).mean() for e in episodes])
        lines.append(f"| {name} | {mean:.3f} |")
    return "\n".join(lines)


def alter(episode: Episode, change: Callable) -> Episode:
    views = {view: change(np.asarray(frames)) for view, frames in episode.views.items()}
    return dataclasses.replace(episode, views=views)


def values(metrics: dict) -> dict[str, float | None]:
    return {m: metrics[m]["value"] for m in COLUMNS.values() if m in metrics}


def table(runs: list[dict[str, dict]]) -> str:
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name in runs[0]:
        cells = [cell([run[name].get(m) for run in runs], m) for m in COLUMNS.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(found: list[float | None], metric: str) -> str:
    known = [v for v in found if v is not None]
    if not known:
        return "–"
    digits = 0 if metric == "seconds" else 2
    mean = f"{sum(known) / len(known):.{digits}f}"
    worst = max(known) if metric in LOWER else min(known)
    return mean if len(known) == 1 else f"{mean} ({worst:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/reward_quality"))
    options = parser.parse_args()
    results = {}
    # One after the other: the training times are part of the table.
    for task in options.tasks.split(","):
        for seed in range(options.seeds):
            folder = options.out / f"{task}_{seed}"
            collect(folder / "demos", "demos", task, seed)
            collect(folder / "unseen", "held-out", task, 1000 + seed)
            runs = {m: train(m, folder, seed, options.steps) for m in options.methods.split(",")}
            results[f"{task} {seed}"] = measure(runs, folder, options.steps)
            if "ensemble" in runs:
                print(f"{task}, seed {seed}\n\n{disagreement(runs['ensemble'], folder)}\n")
    summary = {"steps": options.steps, "runs": results}
    (options.out / "reward_methods.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(table(list(results.values())))


if __name__ == "__main__":
    main()
