"""What the benchmarks share: running `er` commands and keeping finished ones."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def er(verb: str, *arguments: str) -> None:
    """Run one public command on one thread; stop with its output if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "embodied_reward.cli", verb, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def collect(folder: Path, preset: str, task: str, seed: int, *more: str) -> Path:
    """Record a data set of a Meta-World task unless it is there."""
    if not folder.exists():
        env = f"--env.id=metaworld/{task}-v3"
        er("collect", f"--preset={preset}", env, f"--seed={seed}", f"--output_dir={folder}", *more)
    return folder


def train(folder: Path, demos: Path, seed: int, steps: int, *more: str) -> Path:
    """Train a reward model unless it is finished; an interrupted run continues."""
    if not (folder / "done").exists():
        started = (folder / "checkpoints").exists()
        resume = ["--resume=true"] if started else [f"--dataset.root={demos}", *more]
        settings = [f"--seed={seed}", f"--steps={steps}"]
        er("train-reward", f"--output_dir={folder}", *settings, *resume)
        (folder / "done").touch()
    return folder


def grid_options(about: str, tasks: Sequence[str], out: str) -> argparse.Namespace:
    """Read the options of a benchmark over tasks and seeds; `about` is its docstring."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(tasks))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks") / out)
    return parser.parse_args()


def run_grid(
    run: Callable[[str, int, Path], dict], options: argparse.Namespace
) -> dict[str, list[dict]]:
    """Call `run(task, seed, out)` for every task and seed, `options.jobs` at a time."""
    tasks, seeds = options.tasks.split(","), range(options.seeds)
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = {t: [pool.submit(run, t, s, options.out) for s in seeds] for t in tasks}
        return {t: [job.result() for job in rows] for t, rows in jobs.items()}
