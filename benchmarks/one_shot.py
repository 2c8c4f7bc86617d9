"""One demonstration of a new task: adapting a pre-trained model against training from scratch.

    uv run python benchmarks/one_shot.py [--heldout=a,b,...] [--seeds=3] [--jobs=2] [--out=FOLDER]

One model is trained on twenty Meta-World tasks (six demonstrations and four failures each), none
of which is held out. For every held-out task and seed, the first demonstration alone then trains
two models: `er train-reward --reward_model.path=PRETRAINED --episodes=0`, and the same command
without the pre-trained model, with equal steps and learning rate. Both are measured on twenty
unseen episodes of mixed quality. Finished runs are kept.
Writes `one_shot.json` and prints the table of docs/dopamine.md.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from runs import collect, er, train

PRETRAINING = (
    "button-press", "button-press-wall", "coffee-button", "coffee-pull", "door-close", "door-lock",
    "door-unlock", "drawer-close", "drawer-open", "faucet-close", "handle-press",
    "handle-press-side", "lever-pull", "plate-slide", "plate-slide-back", "plate-slide-side",
    "push", "reach", "sweep-into", "window-close",
)  # fmt: skip
HELDOUT = ("button-press-topdown", "door-open", "faucet-open", "window-open", "handle-pull")
STEPS = 300
VIEWS = "--reward_model.views=corner2,gripperPOV"
METRICS = {"Spearman": "spearman", "MAE": "mae", "success AUC": "success_auc"}


def pretrain(out: Path) -> Path:
    roots = []
    for task in PRETRAINING:
        folder = out / "pre" / task
        roots.append(collect(folder / "demos", "demos", task, 50, "--episodes=6"))
        more = ("--episodes=4", "--quality=random")
        roots.append(collect(folder / "fail", "held-out", task, 60, *more))
    together = Path(",".join(map(str, roots)))
    settings = (
        "--batch_size=8",
        "--reward_model.pairs=200",
        "--reward_model.reverse=0.3",
        "--val_fraction=0.1",
        "--val_freq=100",
        VIEWS,
    )
    return train(out / "pretrained", together, 0, 900, *settings)


def evaluate(model: Path, folder: Path) -> dict[str, float]:
    report = model / "eval" / "metrics.json"
    if not report.exists():
        er(
            "eval-reward",
            f"--reward_model.path={model}",
            f"--dataset.root={folder}/unseen",
            f"--reference.root={folder}/demos",
            "--videos=0",
            "--resamples=0",
            f"--output_dir={model}/eval",
        )
    metrics = json.loads(report.read_text())["metrics"]
    return {name: metrics[key]["value"] for name, key in METRICS.items()}


def run(task: str, seed: int, out: Path, pretrained: Path) -> dict:
    folder = out / "data" / f"{task}_{seed}"
    demos = collect(folder / "demos", "demos", task, seed, "--episodes=3")
    collect(folder / "unseen", "held-out", task, 1000 + seed)
    one = ("--episodes=0",)
    adapted = train(
        out / "one_shot" / f"{task}_{seed}_adapted", demos, seed, STEPS, *one,
        f"--reward_model.path={pretrained}",
    )  # fmt: skip
    scratch = train(out / "one_shot" / f"{task}_{seed}_scratch", demos, seed, STEPS, *one, VIEWS)
    result = {"adapted": evaluate(adapted, folder), "scratch": evaluate(scratch, folder)}
    print(f"done: {task} seed {seed} {result}", file=sys.stderr, flush=True)
    return result


def table(reports: dict[str, list[dict]]) -> str:
    lines = [
        "| held-out task | " + " | ".join(f"{m} adapted | {m} scratch" for m in METRICS) + " |",
        "|---" * (2 * len(METRICS) + 1) + "|",
    ]
    for task, rows in reports.items():
        cells = []
        for metric in METRICS:
            for side in ("adapted", "scratch"):
                values = [r[side][metric] for r in rows]
                edge = max(values) if metric == "MAE" else min(values)
                cells.append(f"{np.mean(values):.2f} ({edge:.2f})")
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heldout", default=",".join(HELDOUT))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/one_shot"))
    options = parser.parse_args()
    pretrained = pretrain(options.out)
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = {
            t: [pool.submit(run, t, s, options.out, pretrained) for s in range(options.seeds)]
            for t in options.heldout.split(",")
        }
        reports = {t: [job.result() for job in rows] for t, rows in jobs.items()}
    (options.out / "one_shot.json").write_text(json.dumps(reports, indent=1) + "\n")
    print(table(reports))


if __name__ == "__main__":
    main()
