"""The suite in numbers and pictures: frames per second, what every behaviour achieves, a sheet.

    uv run python benchmarks/task_suite.py [--tasks=SweepToGoal,Avoid] [--episodes=100]
        [--behaviours=expert,noisy] [--json=FILE] [--sheet=FILE.png] [--speed-only]

Frames per second are those of one view at 64 px, rendered after every step of random actions:
"per core" divides by the processor time of the whole process, software GL's threads included;
"wall" by the clock, which on a shared machine says as much about the neighbours.
"""

import argparse
import json
import time
from pathlib import Path

import matplotlib
import numpy as np

from embodied_reward.envs import make, make_behaviour
from embodied_reward.envs.tasks.catalogue import PREFIX, names

BEHAVIOURS = "expert,noisy,careless,wander,stop,retreat,miss"
HORIZON = 150


def roll(env, quality: str, seed: int) -> dict[str, float]:
    observation, info = env.reset(seed=seed)
    act = make_behaviour(env, quality, np.random.default_rng(seed))
    total, steps, over = 0.0, 0, False
    while not over:
        observation, _, terminated, truncated, info = env.step(act(observation))
        total, steps, over = total + info["true_reward"], steps + 1, terminated or truncated
    return {
        "success": float(info["is_success"]),
        "progress": env.progress(),
        "steps": float(steps),
        "true_return": total,
    }


def achieved(name: str, quality: str, episodes: int) -> dict[str, float]:
    env = make(f"{PREFIX}/{name}", horizon=HORIZON)
    rows = [roll(env, quality, 10_000 + seed) for seed in range(episodes)]
    env.close()
    return {key: round(float(np.mean([r[key] for r in rows])), 3) for key in rows[0]}


def frames_per_second(name: str, frames: int = 600) -> dict[str, float]:
    env = make(f"{PREFIX}/{name}", horizon=10**6, size=64, views=()).unwrapped
    env.reset(seed=0)
    env.frames()
    env.action_space.seed(0)
    views = len(env.views)
    cpu, wall, render = time.process_time(), time.perf_counter(), 0.0
    for _ in range(frames):
        env.step(env.action_space.sample())
        began = time.process_time()
        env.frames()
        render += time.process_time() - began
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    env.close()
    rates = {"render_per_core": render, "with_step_per_core": cpu, "with_step_wall": wall}
    return {key: round(views * frames / seconds) for key, seconds in rates.items()}


def course(name: str, size: int, count: int) -> list[dict[str, np.ndarray]]:
    """Pictures of an expert's episode at equal distances in time, first and last included."""
    every = make(f"{PREFIX}/{name}").unwrapped.rules.cameras
    env = make(f"{PREFIX}/{name}", size=size, horizon=HORIZON, views=every)
    observation, _ = env.reset(seed=1)
    act, over = make_behaviour(env, "expert", np.random.default_rng(1)), False
    frames = [env.frames()]
    while not over:
        observation, _, terminated, truncated, _ = env.step(act(observation))
        frames.append(env.frames())
        over = terminated or truncated
    env.close()
    return [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]


def sheet(tasks: list[str], path: Path, size: int = 112, count: int = 4) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = 2
    rows = -(-len(tasks) // columns)
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=(13, 1.08 * rows))
    for axis in axes.flat:
        axis.axis("off")
    for axis, name in zip(axes.flat, tasks, strict=False):
        shown = course(name, size, count)
        # Default views in full, and of further cameras the first picture.
        views = [[frame[view] for frame in shown] for view in shown[0]]
        axis.imshow(np.hstack([p for view in views for p in view][: 2 * count]))
        axis.set_title(f"{name}: {', '.join(list(shown[0])[:2])}", fontsize=8, loc="left")
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="", help="parts of names, separated by commas")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--behaviours", default=BEHAVIOURS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--speed-only", action="store_true")
    options = parser.parse_args()
    tasks = [n for n in names() if any(part in n for part in options.tasks.split(","))]
    if options.sheet:
        sheet(tasks, options.sheet)
        return
    results = {}
    for name in tasks:
        row: dict[str, dict[str, float]] = {"frames_per_second": frames_per_second(name)}
        if not options.speed_only:
            for quality in options.behaviours.split(","):
                row[quality] = achieved(name, quality, options.episodes)
        print(name, json.dumps(row), flush=True)
        results[name] = row
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
