"""What losing one of three cameras costs, with and without view dropout in training.

    uv run python benchmarks/drop_one_view.py [--tasks=a,b,c] [--seeds=3] [--jobs=2] [--out=FOLDER]

Data and models of `benchmarks/fusion.py` (three cameras, view dropout 0.3), and a second model per
task and seed that differs in `--reward_model.view_dropout=0` alone. Twenty unseen episodes are
scored with all cameras and with each of them missing. Finished runs are kept. Writes
`drop_one_view.json` and prints the table of docs/dopamine.md: Spearman with true progress over all
frames, and the cost of the camera whose loss costs most.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
from fusion import STEPS, TASKS, VIEWS
from runs import collect, grid_options, run_grid, train

from embodied_reward import rewards
from embodied_reward.data import open_dataset
from embodied_reward.math.statistics import spearman

CONDITIONS = {"dropout 0.3": "reward", "no dropout": "reward_no_dropout"}


def measure(model_folder: Path, unseen: Path) -> dict[str, float]:
    model = rewards.load(model_folder)
    episodes = list(open_dataset(unseen))
    truth = np.concatenate([e.progress for e in episodes if e.progress is not None])

    def score(missing: str | None) -> float:
        parts = []
        for episode in episodes:
            kept = {v: episode.views[v] for v in episode.views if v != missing}
            scores = model.score_episode(dataclasses.replace(episode, views=kept))
            parts.append(scores.potential)
        return spearman(np.concatenate(parts), truth)

    return {"all": score(None), **{v: score(v) for v in model.card.views}}


def run(task: str, seed: int, out: Path) -> dict[str, dict[str, float]]:
    folder, report = out / f"{task}_{seed}", out / f"{task}_{seed}" / "drop_one_view.json"
    if not report.exists():
        collect(folder / "demos", "demos", task, seed, VIEWS)
        collect(folder / "unseen", "held-out", task, 1000 + seed, VIEWS)
        train(folder / "reward", folder / "demos", seed, STEPS)
        plain = "--reward_model.view_dropout=0"
        train(folder / "reward_no_dropout", folder / "demos", seed, STEPS, plain)
        found = {c: measure(folder / name, folder / "unseen") for c, name in CONDITIONS.items()}
        report.write_text(json.dumps(found, indent=1))
    print(f"done: {task} seed {seed}", file=sys.stderr, flush=True)
    return json.loads(report.read_text())


def worst(row: dict[str, float]) -> float:
    return max(row["all"] - value for name, value in row.items() if name != "all")


def table(reports: dict[str, list[dict]]) -> str:
    views = [k for k in next(iter(reports.values()))[0]["no dropout"] if k != "all"]
    lines = [
        "| task | trained with | all views | "
        + " | ".join(f"without {v}" for v in views)
        + " | mean cost | worst cost |",
        "|---" * (len(views) + 5) + "|",
    ]
    for condition in CONDITIONS:
        for task, runs in [*reports.items(), ("mean", sum(reports.values(), []))]:
            rows = [r[condition] for r in runs]
            cells = [f"{np.mean([r[k] for r in rows]):.3f}" for k in ("all", *views)]
            mean = np.mean([r["all"] - r[v] for r in rows for v in views])
            cells += [f"{mean:.3f}", f"{np.mean([worst(r) for r in rows]):.3f}"]
            lines.append(f"| {task} | {condition} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    options = grid_options(__doc__, TASKS, "three_views")
    reports = run_grid(run, options)
    (options.out / "drop_one_view.json").write_text(json.dumps(reports, indent=1) + "\n")
    print(table(reports))


if __name__ == "__main__":
    main()
