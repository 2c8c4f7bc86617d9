"""Diffusion policies cloned from one demonstration and fine-tuned with a learned reward.

    uv run python benchmarks/finetune.py [--tasks=...] [--seeds=0,1,2] [--methods=...] [--jobs=2]

Per task and seed one demonstration and one reward model, both as `er benchmark headline` makes them
(`--inputs` may be its folder). A cell clones the demonstration, fine-tunes the clone by one method
and evaluates the last policy on 50 scenes that nothing else met:

    uv run python benchmarks/finetune.py --cell=drawer-open-v3:0:dsrl:learned

Cells are independent and finished ones are kept, so the same command goes on after a kill. An
interrupted cell begins anew. `--aggregate` only reads what is finished and prints the table.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embodied_reward import config as configs
from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.cli.headline.cells import (
    Clock,
    Folders,
    Scene,
    env_of,
    read_json,
    versions,
    write_json,
)
from embodied_reward.cli.headline.config import HeadlineConfig
from embodied_reward.cli.headline.prepare import prepare_demo, prepare_reward
from embodied_reward.cli.policy_env import plain_env
from embodied_reward.cli.train_policy import (
    EvalConfig,
    RewardConfig,
    TrainPolicyConfig,
    train_policy,
)
from embodied_reward.math.aggregate import stratified_interval
from embodied_reward.policies.checkpoint import load_policy
from embodied_reward.policies.config import DiffusionConfig
from embodied_reward.policies.evaluate import evaluate
from embodied_reward.policies.finetune.config import (
    AgentConfig,
    ChainAgentConfig,
    DPPOConfig,
    DSRLConfig,
    FinetuneConfig,
    NoiseAgentConfig,
    ResidualConfig,
)

TASKS = ("drawer-open-v3", "door-open-v3")
CLONE_STEPS, ROLLOUTS, FINAL_EPISODES, FINAL_SEED = 1000, 120, 50, 20_000
MODES = {"learned": "potential", "success": "success"}
CHAIN = ChainAgentConfig(n_steps=128, n_epochs=10, learning_rate=3e-4, actor_starts=256)
METHODS: dict[str, FinetuneConfig | None] = {
    "none": None,
    "dsrl": DSRLConfig(rl=NoiseAgentConfig(gradient_steps=16)),
    "residual": ResidualConfig(rl=AgentConfig(gradient_steps=16), bound=0.5),
    "dppo": DPPOConfig(rl=CHAIN),
}


@dataclass(frozen=True)
class Cell:
    """One run: a scene, a method, and what it learns from."""

    scene: Scene
    method: str
    reward: str

    @classmethod
    def parse(cls, text: str) -> "Cell":
        task, seed, method, reward = text.split(":")
        if method not in METHODS or reward not in MODES:
            raise SystemExit(f"'{text}': methods are {list(METHODS)}, rewards {list(MODES)}")
        return cls(Scene(task, int(seed)), method, reward)

    @property
    def name(self) -> str:
        return f"{self.scene.task}:{self.scene.seed}:{self.method}:{self.reward}"

    @property
    def file(self) -> str:
        return self.name.replace(":", "_").replace("/", "-")


def study(inputs: Path) -> HeadlineConfig:
    """Environment, demonstration and reward model are the headline study's."""
    return HeadlineConfig(tasks=TASKS, output_dir=str(inputs))


def prepare(inputs: Path, scene: Scene) -> None:
    """Make a scene's demonstration and reward model unless they are there."""
    config = study(inputs)
    folders = Folders(inputs)
    if not folders.demo(scene).is_dir():
        prepare_demo(config, scene)
    if not folders.prepared(scene, "reward").is_dir():
        prepare_reward(config, scene)


def common(inputs: Path, scene: Scene) -> dict[str, Any]:
    return {"env": env_of(study(inputs), scene), "seed": scene.seed, "threads": 1}


def clone(inputs: Path, scene: Scene, folder: Path) -> TrainPolicyConfig:
    """Return what `er train-policy` is told to clone the demonstration."""
    return TrainPolicyConfig(
        **common(inputs, scene),
        policy=DiffusionConfig(),
        dataset=DatasetConfig(root=(str(Folders(inputs).demo(scene)),)),
        eval=EvalConfig(freq=0, n_episodes=1),
        steps=CLONE_STEPS,
        output_dir=str(folder),
    )


def finetune(inputs: Path, cell: Cell, start: Path, folder: Path) -> TrainPolicyConfig:
    """Return what `er train-policy` is told to fine-tune the clone."""
    config, method = study(inputs), METHODS[cell.method]
    learned = cell.reward == "learned"
    # The reward model has seen rollouts, too.
    rollouts = ROLLOUTS - (config.negatives if learned else 0)
    path = Folders(inputs).prepared(cell.scene, "reward")
    assert method is not None
    return TrainPolicyConfig(
        **common(inputs, cell.scene),
        policy=DiffusionConfig(path=str(start)),
        finetune=method,
        reward=RewardConfig(mode=MODES[cell.reward], path=str(path) if learned else None),
        eval=EvalConfig(freq=0, n_episodes=1),
        steps=rollouts * config.horizon,
        rollouts=rollouts,
        output_dir=str(folder),
    )


def run_cell(cell: Cell, inputs: Path, out: Path) -> None:
    """Run a cell from its beginning and write its result, unless it is there."""
    path, runs = out / "cells" / f"{cell.file}.json", out / "runs" / cell.file
    if path.is_file():
        return
    shutil.rmtree(runs, ignore_errors=True)
    clock, folder, spent = Clock(), runs / "clone", 0
    trained(clone(inputs, cell.scene, folder))
    weights = folder / "checkpoints" / "last" / "pretrained_model" / "model.safetensors"
    digest, own = hashlib.sha256(weights.read_bytes()).hexdigest(), []
    if METHODS[cell.method] is not None:
        trained(finetune(inputs, cell, folder, runs / "tuned"))
        folder = runs / "tuned"
        own = outcomes(folder)
        spent = study(inputs).negatives if cell.reward == "learned" else 0
    result = {
        "task": cell.scene.task,
        "seed": cell.scene.seed,
        "method": cell.method,
        "reward": cell.reward,
        "success": final(inputs, cell.scene, folder),
        "rollouts": len(own) + spent,
        "own_success": "".join(map(str, own)),
        "clone_sha256": digest,
        "settings": settings(cell),
        "versions": versions(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result | clock.seconds())
    shutil.rmtree(runs)


def trained(config: TrainPolicyConfig) -> None:
    if train_policy(config) != 0:
        raise KeyboardInterrupt


def outcomes(folder: Path) -> list[int]:
    """Return whether each training rollout succeeded, as the simulator says."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [int(row["episode/true_success"]) for row in rows if "episode/length" in row]


def final(inputs: Path, scene: Scene, folder: Path) -> float:
    policy = load_policy(folder / "checkpoints" / "last")
    with closing(plain_env(env_of(study(inputs), scene), FINAL_SEED)) as env:
        return evaluate(policy, env, episodes=FINAL_EPISODES, seed=FINAL_SEED).success_rate


def settings(cell: Cell) -> dict[str, Any]:
    method = METHODS[cell.method]
    tree = {} if method is None else configs.encode(method)
    return {"clone_steps": CLONE_STEPS, "final_episodes": FINAL_EPISODES, "finetune": tree}


def aggregate(out: Path) -> str:
    """Return the table of all finished cells; intervals are bootstraps over the seeds."""
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for path in sorted((out / "cells").glob("*.json")):
        cell = read_json(path)
        rows.setdefault((cell["task"], cell["method"], cell["reward"]), []).append(cell)
    write_json(out / "results.json", [cell for cells in rows.values() for cell in cells])
    head = "| task | method | reward | success before | after | seeds | rollouts | CPU minutes |"
    lines = [head, "|" + "---|" * 8]
    for (task, method, reward), cells in sorted(rows.items(), key=by_method):
        before = {c["seed"]: c["success"] for c in rows.get((task, "none", "success"), [])}
        start = [before[c["seed"]] for c in cells if c["seed"] in before]
        lines.append(line(task, method, reward, start, cells))
    return "\n".join(lines)


def by_method(row: tuple[tuple[str, str, str], Any]) -> tuple[str, int, str]:
    (task, method, reward), _ = row
    return task, list(METHODS).index(method), reward


def line(
    task: str, method: str, reward: str, start: list[float], cells: list[dict[str, Any]]
) -> str:
    after = [c["success"] for c in cells]
    low, high = stratified_interval([{task: after}], mean_of, np.random.default_rng(0))
    was = f"{np.mean(start):.2f}" if len(start) == len(cells) else "?"
    each = " ".join(f"{x:.2f}" for x in after)
    rollouts = round(np.mean([c["rollouts"] for c in cells]))
    minutes = np.mean([c["cpu_seconds"] for c in cells]) / 60
    shown = f"{np.mean(after):.2f} [{low:.2f}, {high:.2f}]"
    if method == "none":
        reward, shown, each, was = "", "", each, shown
    return (
        f"| {task} | {method} | {reward} | {was} | {shown} | {each} | {rollouts} | {minutes:.1f} |"
    )


def mean_of(scores: Any) -> float:
    return float(np.mean([np.mean(runs) for runs in scores.values()]))


def cells_of(options: argparse.Namespace) -> list[Cell]:
    seeds = [int(seed) for seed in options.seeds.split(",")]
    return [
        Cell.parse(f"{task}:{seed}:{method}:{'success' if method == 'none' else options.reward}")
        for seed in seeds
        for task in options.tasks.split(",")
        for method in options.methods.split(",")
    ]


def in_own_process(cell: Cell, options: argparse.Namespace) -> None:
    words = [f"--cell={cell.name}", f"--inputs={options.inputs}", f"--out={options.out}"]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
    print(f"{cell.name}: {'finished' if done.returncode == 0 else done.stderr[-2000:]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--reward", choices=list(MODES), default="learned")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--inputs", type=Path, default=Path("outputs/benchmarks/finetune/inputs"))
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/finetune"))
    parser.add_argument("--cell", help="TASK:SEED:METHOD:REWARD, run in this process")
    parser.add_argument("--aggregate", action="store_true", help="only print what is finished")
    options = parser.parse_args()
    if options.cell:
        cell = Cell.parse(options.cell)
        prepare(options.inputs, cell.scene)
        run_cell(cell, options.inputs, options.out)
        return
    if not options.aggregate:
        cells = cells_of(options)
        for scene in dict.fromkeys(cell.scene for cell in cells):
            prepare(options.inputs, scene)
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda cell: in_own_process(cell, options), cells))
    print(aggregate(options.out))


if __name__ == "__main__":
    main()
