"""Fusing three readings of progress, with and without noise on every hop.

    uv run python benchmarks/fusion.py [--tasks=a,b,c] [--seeds=3] [--jobs=2] [--out=FOLDER]

Ten demonstrations and twenty unseen episodes of mixed quality per task and seed, three cameras
(`er collect --preset=demos|held-out`), 300 training steps. Every mode of `math/fusion.py` then
reads the unseen episodes twice: as the model answers, and with Gaussian noise of standard
deviation 0.1 added to every hop that it predicts, incremental, forward and backward alike (clipped
to [-1, 1]; ten draws). Figures are mean absolute errors to the simulator's true progress over all
frames. Finished runs are kept. Writes `fusion.json` and prints the table of docs/dopamine.md.
"""

import json
import sys
from pathlib import Path

import numpy as np
from runs import collect, grid_options, run_grid, train

from embodied_reward import rewards
from embodied_reward.data import open_dataset
from embodied_reward.math.fusion import MODES, Anchors, Reading, read_modes
from embodied_reward.math.statistics import spearman

TASKS = ("button-press-topdown", "door-open", "faucet-open")
VIEWS = "--views=corner2,gripperPOV,topview"
STEPS, NOISE, DRAWS = 300, 0.1, 10
SINGLE = ("incremental", "forward", "backward")


def noisy(reading: Reading, rng: np.random.Generator, low: float, high: float) -> Reading:
    mean = reading.mean + rng.normal(0, NOISE, reading.mean.shape)
    return Reading(np.clip(mean, low, high), reading.variance + NOISE**2)


def disturbed(hops: Reading, anchors: Anchors, rng: np.random.Generator):
    forward, backward = noisy(anchors.forward, rng, 0, 1), noisy(anchors.backward, rng, 0, 1)
    return noisy(hops, rng, -1, 1), Anchors(forward, backward)


def measure(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    model = rewards.load(folder / "reward")
    rng = np.random.default_rng(seed)
    values: dict[str, dict[str, list[np.ndarray]]] = {
        kind: {m: [] for m in MODES} for kind in ("clean", "noisy")
    }
    truth: dict[str, list[np.ndarray]] = {"clean": [], "noisy": []}
    for episode in open_dataset(folder / "unseen"):
        hops, anchors = model.readings(episode)  # type: ignore[attr-defined]
        for kind, draws in (("clean", 1), ("noisy", DRAWS)):
            for _ in range(draws):
                pair = (hops, anchors) if kind == "clean" else disturbed(hops, anchors, rng)
                for mode, potential in read_modes(*pair).items():
                    values[kind][mode].append(potential)
                truth[kind].append(episode.progress)
    found: dict[str, dict[str, float]] = {}
    for kind, modes in values.items():
        y = np.concatenate(truth[kind])
        potential = {m: np.concatenate(v) for m, v in modes.items()}
        found[f"mae {kind}"] = {m: float(np.abs(p - y).mean()) for m, p in potential.items()}
        found[f"spearman {kind}"] = {m: spearman(p, y) for m, p in potential.items()}
    return found


def run(task: str, seed: int, out: Path) -> dict:
    folder, report = out / f"{task}_{seed}", out / f"{task}_{seed}" / "fusion.json"
    if not report.exists():
        collect(folder / "demos", "demos", task, seed, VIEWS)
        collect(folder / "unseen", "held-out", task, 1000 + seed, VIEWS)
        train(folder / "reward", folder / "demos", seed, STEPS)
        report.write_text(json.dumps(measure(folder, seed), indent=1))
    print(f"done: {task} seed {seed}", file=sys.stderr, flush=True)
    return json.loads(report.read_text())


def table(reports: dict[str, list[dict]]) -> str:
    columns = ("mae clean", "spearman clean", "mae noisy", "spearman noisy")
    lines = [
        "| mode | MAE | Spearman | MAE, noise 0.1 | Spearman, noise 0.1 | MAE to incremental |",
        "|---|---|---|---|---|---|",
    ]
    every = [r for rows in reports.values() for r in rows]
    incremental = np.mean([r["mae noisy"]["incremental"] for r in every])
    for mode in MODES:
        cells = [f"{np.mean([r[c][mode] for r in every]):.3f}" for c in columns]
        ratio = np.mean([r["mae noisy"][mode] for r in every]) / incremental
        lines.append(f"| {mode} | " + " | ".join(cells) + f" | {ratio:.2f} |")
    lines.append("\n| task | seed | best single, clean | " + " | ".join(MODES[3:]) + " |")
    lines.append("|---" * (len(MODES[3:]) + 3) + "|")
    for task, rows in reports.items():
        for seed, r in enumerate(rows):
            single = min(r["mae clean"][m] for m in SINGLE)
            cells = [f"{r['mae clean'][m]:.3f}" for m in MODES[3:]]
            lines.append(f"| {task} | {seed} | {single:.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    options = grid_options(__doc__, TASKS, "three_views")
    reports = run_grid(run, options)
    (options.out / "fusion.json").write_text(json.dumps(reports, indent=1) + "\n")
    print(table(reports))


if __name__ == "__main__":
    main()
