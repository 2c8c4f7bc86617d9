"""Reward models from ten demonstrations, measured on twenty unseen mixed-quality episodes.

    uv run python benchmarks/reward_quality.py [--tasks=a,b,c] [--seeds=3] [--jobs=2] [--out=FOLDER]

For every task and seed, four public commands: `er collect --preset=demos` (ten experts),
`er collect --preset=held-out` (twenty episodes: experts, sloppy experts, failures; scenes that
the demonstrations do not have), `er train-reward` and `er eval-reward`. Finished runs are kept,
so the command continues where it was stopped. Writes `reward_quality.json` and prints the table
of docs/results.md: per task the mean over seeds, with the worst seed in brackets.
"""

import json
import sys
from pathlib import Path

from runs import collect, er, grid_options, run_grid, train

TASKS = ("button-press-topdown", "door-open", "faucet-open")
STEPS = 300
COLUMNS = {
    "VOC": "voc_min",
    "Spearman": "spearman",
    "Spearman/episode": "spearman_episode",
    "MAE": "mae",
    "success AUC": "success_auc",
    "frame AUC": "frame_success_auc",
}
# Time order is what VOC asks for, so the time index scores 1 by definition.
BY_DEFINITION = {("voc_min", "time index")}


def run(task: str, seed: int, out: Path) -> dict:
    folder = out / f"{task}_{seed}"
    report = folder / "eval" / "metrics.json"
    if not report.exists():
        demos = collect(folder / "demos", "demos", task, seed)
        collect(folder / "unseen", "held-out", task, 1000 + seed)
        train(folder / "reward", demos, seed, STEPS)
        er(
            "eval-reward",
            f"--reward_model.path={folder}/reward",
            f"--dataset.root={folder}/unseen",
            f"--reference.root={folder}/demos",
            "--videos=0",
            f"--output_dir={folder}/eval",
        )
    print(f"done: {task} seed {seed}", file=sys.stderr, flush=True)
    return json.loads(report.read_text())


def value(report: dict, metric: str) -> float:
    found = report["metrics"][metric]["value"]
    return float("nan") if found is None else found


def best_baseline(report: dict, metric: str) -> float:
    values = [
        entry[metric]["value"]
        for name, entry in report["baselines"].items()
        if (metric, name) not in BY_DEFINITION and entry[metric]["value"] is not None
    ]
    return min(values) if metric == "mae" else max(values)


def table(reports: dict[str, list[dict]]) -> str:
    lines = [
        "| task | " + " | ".join(COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for task, rows in reports.items():
        for label, read in (("", value), (" best trivial", best_baseline)):
            cells = []
            for metric in COLUMNS.values():
                values = [read(r, metric) for r in rows]
                # For the model the worst seed, for the baseline the best: the honest comparison.
                lower = (metric == "mae") != bool(label)
                edge = max(values) if lower else min(values)
                cells.append(f"{sum(values) / len(values):.2f} ({edge:.2f})")
            lines.append(f"| {task}{label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    options = grid_options(__doc__, TASKS, "reward_quality")
    reports = run_grid(run, options)
    summary = {
        t: [
            {
                "seed": s,
                "model": {m: value(r, m) for m in COLUMNS.values()},
                "best_trivial": {m: best_baseline(r, m) for m in COLUMNS.values()},
                "beaten_by": r["beaten_by"],
                "readings": r["readings"],
            }
            for s, r in enumerate(rows)
        ]
        for t, rows in reports.items()
    }
    (options.out / "reward_quality.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(table(reports))


if __name__ == "__main__":
    main()
