"""The false-positive rate of a success detector on a policy's own rollouts.

    uv run python benchmarks/success_detector.py [--task=button-press-topdown] [--seed=0]

The claim under test: with a threshold fitted for 1 %, at most 1 % of a policy's failed episodes
fire. Public commands do it all:

1. `er collect`: 20 experts, 40 sloppy experts (who fail at times) and 40 scripted failures;
   `er train-reward --reward_model.type=success`
2. `er train-policy`: one demonstration cloned, then a little SAC: a half-trained policy
3. `er eval-policy --success.path`: rollouts with sampled actions, half of the seeds to calibrate
   on, the other half to measure on
4. `er calibrate-success`: on scripted failures that training never saw, and on the policy's own

Thresholds compared, all measured on the same fresh rollouts: the plain 0.5, the one fitted on
scripted failures, the one fitted on the policy's failures; and persistence 1 beside 3. A low rate
is easy for a detector that never fires, so the share of true successes that it sees stands beside
it. Finished steps are kept, so the command continues where it was stopped. Writes
`success_detector.json`.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from embodied_reward.data import open_dataset
from embodied_reward.math.statistics import wilson
from embodied_reward.rewards import load
from embodied_reward.rewards.detector import Calibration, Detector, fit_threshold

TARGET = 0.01


def er(verb: str, folder: Path, *arguments: str) -> Path:
    """Run a verb unless its output is there already."""
    if (folder / "metrics.json").exists() or (folder / "meta").exists():
        return folder
    if (folder / "checkpoints" / "last").exists():
        return folder
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "embodied_reward.cli", verb, *arguments]
    command.append(f"--output_dir={folder}")
    print(f"{folder.name} ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return folder


def prepare(options: argparse.Namespace) -> dict[str, Path]:
    out, seed = options.out, options.seed
    env = [f"--env.id=metaworld/{options.task}-v3", "--env.action_repeat=5", "--env.horizon=40"]
    random = [*env, "--quality=random", "--only_success=false"]
    demos = er("collect", out / "demos", *env, "--episodes=20", "--lead_in=10", f"--seed={seed}")
    failures = er("collect", out / "failures", *random, "--episodes=40", f"--seed={seed + 100}")
    scripted = er(
        "collect",
        out / "scripted",
        *random,
        f"--episodes={options.scripted}",
        f"--seed={seed + 200}",
    )
    noisy = [*env, "--quality=noisy", "--only_success=false", "--lead_in=10"]
    sloppy = er("collect", out / "sloppy", *noisy, "--episodes=40", f"--seed={seed + 300}")
    data = f"--dataset.root={demos},{sloppy},{failures}"
    detector = er(
        "train-reward", out / "detector", "--reward_model.type=success", data, "--steps=300",
        f"--seed={seed}",
    )  # fmt: skip
    policy = er(
        "train-policy", out / "policy", *env, f"--dataset.root={demos}", "--dataset.episodes=0",
        "--reward.mode=success", f"--steps={options.steps}", f"--seed={seed}", "--eval.freq=0",
        "--policy.actor_starts=200", "--eval.n_episodes=10",
    )  # fmt: skip
    roll = [f"--policy.path={policy}/checkpoints/last", f"--success.path={detector}", "--videos=0"]
    roll += [f"--episodes={options.rollouts}", "--deterministic=false", "--size=64"]
    calibration = er("eval-policy", out / "calibration", *roll, "--seed=50000")
    fresh = er("eval-policy", out / "fresh", *roll, "--seed=90000")
    return {
        "detector": detector, "scripted": scripted, "calibration": calibration, "fresh": fresh,
    }  # fmt: skip


def rollouts(folder: Path, success: bool = False) -> list[np.ndarray]:
    """Return the scores of the episodes that failed, or of those that succeeded."""
    report = json.loads((folder / "metrics.json").read_text())
    scores = [np.asarray(s) for s in report["detector"]["scores"]]
    return [s for s, won in zip(scores, report["success"], strict=True) if won == success]


def scripted_failures(folder: Path, detector: Path) -> list[np.ndarray]:
    model = load(detector)
    return [model.score_episode(e).success for e in open_dataset(folder) if e.success is False]


def row(
    name: str, detector: Detector, fitted: Calibration | None, failures: list, successes: list
) -> dict:
    seen = sum(bool(detector.episode(scores).any()) for scores in successes)
    fired = sum(bool(detector.episode(scores).any()) for scores in failures)
    low, high = wilson(fired, len(failures))
    return {
        "threshold_from": name,
        "threshold": detector.threshold,
        "persistence": detector.persistence,
        "fitted_on": fitted.failures if fitted else 0,
        "promised": fitted.guaranteed_fpr if fitted else None,
        "fired": fired,
        "failures": len(failures),
        "rate": fired / len(failures),
        "low": low,
        "high": high,
        "seen": seen,
        "successes": len(successes),
    }


def measure(paths: dict[str, Path]) -> dict:
    own, fresh = rollouts(paths["calibration"]), rollouts(paths["fresh"])
    won = rollouts(paths["fresh"], success=True)
    sources = {
        "scripted failures": scripted_failures(paths["scripted"], paths["detector"]),
        "the policy's failures": own,
    }
    rows = []
    for k in (1, 3):
        rows.append(row("0.5", Detector(0.5, k), None, fresh, won))
        for name, scores in sources.items():
            fitted = fit_threshold(scores, target_fpr=TARGET, persistence=k)
            rows.append(row(name, fitted.detector, fitted, fresh, won))
    report = json.loads((paths["fresh"] / "metrics.json").read_text())
    return {
        "rows": rows,
        "success_rate": report["eval/success_rate"],
    }


def table(result: dict) -> str:
    lines = [
        "| threshold from | k | fitted on | promised | threshold | fired | rate (95 %) | seen |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in result["rows"]:
        promised = "-" if r["promised"] is None else f"{r['promised']:.1%}"
        lines.append(
            f"| {r['threshold_from']} | {r['persistence']} | {r['fitted_on']} | {promised} | "
            f"{r['threshold']:.4f} | {r['fired']} of {r['failures']} | {r['rate']:.1%} "
            f"({r['low']:.1%} to {r['high']:.1%}) | "
            f"{r['seen']} of {r['successes']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="button-press-topdown")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300, help="decisions of SAC after cloning")
    parser.add_argument("--scripted", type=int, default=100)
    parser.add_argument("--rollouts", type=int, default=400, help="episodes per half")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/success_detector"))
    options = parser.parse_args()
    result = measure(prepare(options))
    (options.out / "success_detector.json").write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    print(f"policy: {result['success_rate']:.0%} success")


if __name__ == "__main__":
    main()
