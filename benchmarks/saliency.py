"""Where trained reward models look, beside copies with fresh weights and a filter of outlines.

    uv run python benchmarks/saliency.py [--seeds=3] [--steps=300] [--tasks=a,b] [--episodes=5]
        [--picture=FILE.png]

For every task and seed: `er collect` of ten demonstrations, one `er train-reward` per method with
its defaults, and one `er audit-reward` of all of them on unseen scenes. Finished parts are kept.
Writes `saliency.json` and prints the table of docs/saliency.md: ratio of saliency to area on
gripper and objects, mean over seeds, lowest and highest in brackets; then by part; then whether
models that look there more are also better (Spearman with true progress on unseen episodes).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from runs import er, train

from embodied_reward import config as configs
from embodied_reward.cli.audit_reward import AuditRewardConfig
from embodied_reward.cli.audit_rollout import play
from embodied_reward.math.statistics import spearman
from embodied_reward.metrics.saliency_overlay import overlays, write_picture
from embodied_reward.rewards import load
from embodied_reward.rewards.saliency import explain_episode, randomised
from embodied_reward.vision.saliency import SaliencyOptions

TASKS = {
    "embodied_reward/SweepToGoal-MediumStick-v0": (
        "--episodes=10",
        "--env.horizon=150",
    ),
    "metaworld/door-open-v3": ("--preset=demos",),
}
AUDIT = {
    "embodied_reward/SweepToGoal-MediumStick-v0": ("--env.horizon=150",),
    "metaworld/door-open-v3": ("--env.action_repeat=2", "--env.horizon=100"),
}
METHODS = ("dopamine", "remaining_time", "tcc")
SALIENCY = ("normgrad", "lrp")
FRESH = " (fresh)"
GROUP = "gripper+objects"


def collect(folder: Path, task: str, seed: int) -> Path:
    if not folder.exists():
        er("collect", *TASKS[task], f"--env.id={task}", f"--seed={seed}", f"--output_dir={folder}")
    return folder


def audit(folder: Path, task: str, seed: int, episodes: int) -> list[dict]:
    out = folder / f"audit_{episodes}"
    if not (out / "saliency.json").exists():
        first, *others = (str(folder / method) for method in METHODS)
        er(
            "audit-reward",
            f"--reward_model.path={first}",
            f"--compare={','.join(others)}",
            f"--env.id={task}",
            *AUDIT[task],
            f"--saliency={','.join(SALIENCY)}",
            f"--episodes={episodes}",
            "--stride=2",
            "--untrained=2",
            f"--seed={100 + seed}",
            f"--output_dir={out}",
        )
    return json.loads((out / "saliency.json").read_text())["rows"]


def folder_of(task: str, seed: int, options: argparse.Namespace) -> Path:
    return options.out / f"{task.rpartition('/')[2]}_{seed}"


def one(task: str, seed: int, options: argparse.Namespace) -> list[dict]:
    folder = folder_of(task, seed, options)
    demos = collect(folder / "demos", task, seed)
    for method in METHODS:
        more = f"--reward_model.type={method}"
        train(folder / method, demos, seed, options.steps, more)
    return audit(folder, task, seed, options.episodes)


def judged(folder: Path, task: str, seed: int, steps: int) -> dict[str, float]:
    """Spearman with true progress on twenty unseen episodes of mixed quality, per method."""
    unseen, out = folder / "unseen", folder / f"eval_{steps}"
    if not unseen.exists():
        env = (f"--env.id={task}", *AUDIT[task], "--quality=mixed", "--episodes=20")
        er("collect", *env, f"--seed={1000 + seed}", f"--output_dir={unseen}")
    if not (out / "metrics.json").exists():
        first, *others = (str(folder / method) for method in METHODS)
        er(
            "eval-reward",
            f"--reward_model.path={first}",
            f"--compare={','.join(others)}",
            f"--dataset.root={unseen}",
            f"--reference.root={folder / 'demos'}",
            *("--videos=0", "--robustness=0", "--resamples=10"),
            f"--output_dir={out}",
        )
    report = json.loads((out / "metrics.json").read_text())
    entries = dict(zip(METHODS, [report, *report["compared"].values()], strict=True))
    return {name: entry["metrics"]["spearman"]["value"] for name, entry in entries.items()}


def ratios(runs: list[list[dict]], model: str, method: str, view: str, group: str) -> list[float]:
    return [
        row["groups"][group]["ratio"] or np.nan
        for rows in runs
        for row in rows
        if (row["model"], row["method"], row["view"]) == (model, method, view)
    ]


def cell(found: list[float]) -> str:
    if not np.isfinite(found).any():
        return "–"
    return f"{np.nanmean(found):.2f} ({np.nanmin(found):.2f}–{np.nanmax(found):.2f})"


def table(task: str, runs: list[list[dict]]) -> str:
    views = list(dict.fromkeys(row["view"] for row in runs[0] if row["view"] != "all views"))
    heads = [f"{view}, {method}" for view in views for method in SALIENCY]
    lines = ["| " + " | ".join([task, *heads]) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in (m + fresh for m in METHODS for fresh in ("", FRESH)):
        cells = [cell(ratios(runs, name, m, v, GROUP)) for v in views for m in SALIENCY]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    edges = [cell(ratios(runs, "edges (no model)", "", v, GROUP)) for v in views for _ in SALIENCY]
    lines.append("| outlines, no model | " + " | ".join(edges) + " |")
    areas = [100 * np.mean(area_of(runs, v)) for v in views for _ in SALIENCY]
    lines.append(
        "| area of gripper and objects | " + " | ".join(f"{a:.1f} %" for a in areas) + " |"
    )
    return "\n".join(lines)


def area_of(runs: list[list[dict]], view: str) -> list[float]:
    return [r["groups"][GROUP]["area"] for rows in runs for r in rows if r["view"] == view]


def parts_table(task: str, runs: list[list[dict]], method: str) -> str:
    """By part, of the trained models: who looks at the arm, the goal, the background."""
    views = list(dict.fromkeys(row["view"] for row in runs[0] if row["view"] != "all views"))
    parts = ("gripper", "objects", "goal", "arm", "background")
    lines = ["| " + " | ".join([task, "view", *parts]) + " |", "|---" * (len(parts) + 2) + "|"]
    for name in METHODS:
        for view in views:
            cells = [cell(ratios(runs, name, method, view, part)) for part in parts]
            lines.append(f"| {name} | {view} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def quality_table(results: dict[str, list], judgements: dict[str, list[dict]]) -> str:
    """Does looking at the right things go with being right? Every model is one point."""
    lines = ["| task, view | saliency | Spearman over models | models |", "|---|---|---|---|"]
    for task, runs in results.items():
        views = list(dict.fromkeys(row["view"] for row in runs[0]))
        right = [found[m] for m in METHODS for found in judgements[task]]
        for view in views:
            for method in SALIENCY:
                looks = [r for m in METHODS for r in ratios(runs, m, method, view, GROUP)]
                name = task.rpartition("/")[2]
                rho = spearman(np.array(looks), np.array(right))
                lines.append(f"| {name}, {view} | {method} | {rho:.2f} | {len(right)} |")
    return "\n".join(lines)


def picture(path: Path, options: argparse.Namespace, name: str = "remaining_time") -> None:
    """Frames of one new episode per task, and beneath them three maps of one model each."""
    blocks = []
    for task in options.tasks.split(","):
        model = load(folder_of(task, 0, options) / name)
        words = [f"--env.id={task}", *AUDIT[task], "--episodes=1", "--seed=100"]
        audit = configs.parse(AuditRewardConfig, words, verb="audit-reward")
        (played,) = play(audit, views=model.card.views, size=model.card.image_size)
        view, episode = model.card.views[0], played.episode
        frames = episode.views[view]
        shown = np.linspace(0, len(frames) - 1, 5).round().astype(int)
        looks = [(model, "normgrad"), (model, "lrp"), (randomised(model, 0), "lrp")]
        maps = [explain_episode(m, episode, SaliencyOptions(kind))[view] for m, kind in looks]
        rows = [frames[shown], *(overlays(frames[shown], found.take(shown)) for found in maps)]
        blocks.append(np.vstack([np.hstack(list(row)) for row in rows]))
    image = np.hstack([np.pad(b, ((0, 0), (0, 6), (0, 0)), constant_values=255) for b in blocks])
    write_picture(path, image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--picture", type=Path, help="draw docs/saliency.png and stop")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/saliency"))
    options = parser.parse_args()
    if options.picture:
        picture(options.picture, options)
        return
    results, judgements = {}, {}
    for task in options.tasks.split(","):
        results[task] = [one(task, seed, options) for seed in range(options.seeds)]
        print(table(task, results[task]), flush=True)
        print()
        print(parts_table(task, results[task], "lrp"), flush=True)
        print()
        judgements[task] = [
            judged(folder_of(task, seed, options), task, seed, options.steps)
            for seed in range(options.seeds)
        ]
        print(task, json.dumps(judgements[task]), flush=True)
    print(quality_table(results, judgements))
    (options.out / "saliency.json").write_text(
        json.dumps({"audits": results, "spearman": judgements}) + "\n"
    )


if __name__ == "__main__":
    main()
