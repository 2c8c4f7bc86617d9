"""What the benchmarks share: running `er` commands and keeping finished ones."""

import os
import subprocess
import sys
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
