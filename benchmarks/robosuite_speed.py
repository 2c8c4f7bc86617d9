"""Steps with two pictures per second: ours against robosuite's own GymWrapper, in one run.

    uv run python benchmarks/robosuite_speed.py [--rounds=5] [--steps=40] [--json=FILE]

Sides, on the same task, arm, controller, cameras (agentview and the wrist's, 84 px) and actions:

    ours            `make("robosuite/Lift", pixels=True, size=84)`
    stock soft      GymWrapper with hard_reset=False
    stock           GymWrapper as it comes, which compiles the model anew at every reset

A round is one episode per side, a reset and then `steps` steps; sides take turns inside every
round, in an order that rotates. Each side lives in a process of its own: robosuite draws into
whatever GL context is current, so two renderers in one process disturb each other. Seconds are CPU
time of the process (llvmpipe draws in threads of it), medians of the rounds; wall-clock time
depends on who else is at work.
"""

import argparse
import json
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from embodied_reward.envs import make
from embodied_reward.envs.rendering import gl_renderer
from embodied_reward.envs.robosuite import backend

VIEWS, SIZE = ("agentview", "robot0_eye_in_hand"), 84


def ours(task: str) -> gym.Env:
    return make(f"robosuite/{task}", views=VIEWS, size=SIZE, pixels=True, horizon=10**6)


def stock(task: str, hard_reset: bool) -> Any:
    suite = backend.load_robosuite()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's, about float64 observations
        from robosuite.wrappers import GymWrapper

        return GymWrapper(
            suite.make(
                task,
                robots="Panda",
                has_offscreen_renderer=True,
                use_camera_obs=True,
                camera_names=list(VIEWS),
                camera_heights=SIZE,
                camera_widths=SIZE,
                hard_reset=hard_reset,
                horizon=10**6,
                reward_shaping=True,
            )
        )


def episode(env: Any, steps: int, rng: np.random.Generator) -> dict[str, float]:
    """Return seconds of CPU: of the reset, of one step, and steps per second of both."""
    begun = time.process_time()
    env.reset()
    reset = time.process_time() - begun
    for _ in range(steps):
        env.step(rng.uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32))
    total = time.process_time() - begun
    return {
        "reset_ms": 1e3 * reset,
        "step_ms": 1e3 * (total - reset) / steps,
        "steps_per_second": steps / total,
    }


SIDES: dict[str, Callable[[str], Any]] = {
    "ours": ours,
    "stock soft": partial(stock, hard_reset=False),
    "stock": partial(stock, hard_reset=True),
}


def serve(side: str, task: str, steps: int, pipe: Connection) -> None:
    """Play an episode for every seed that comes, until None does."""
    env = SIDES[side](task)
    episode(env, 3, np.random.default_rng(0))  # compiles and warms up
    pipe.send(None)
    while (seed := pipe.recv()) is not None:
        pipe.send(episode(env, steps, np.random.default_rng(seed)))
    env.close()


def measure(task: str, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Return side -> median of every number over the rounds."""
    context = multiprocessing.get_context("spawn")
    pipes, found = {}, {side: [] for side in SIDES}
    for side in SIDES:
        pipes[side], other = context.Pipe()
        context.Process(target=serve, args=(side, task, steps, other), daemon=True).start()
        pipes[side].recv()
    order = list(SIDES)
    for k in range(rounds):
        for side in order[k % len(order) :] + order[: k % len(order)]:
            pipes[side].send(k)
            found[side].append(pipes[side].recv())
    for pipe in pipes.values():
        pipe.send(None)
    return {
        side: {key: round(statistics.median(r[key] for r in rows), 2) for key in rows[0]}
        for side, rows in found.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["Lift", "Door"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    tasks = {task: measure(task, given.rounds, given.steps) for task in given.tasks}
    for sides in tasks.values():
        rate = sides["ours"]["steps_per_second"]
        for name in ("stock soft", "stock"):
            sides[name]["ours_is_faster_by"] = round(rate / sides[name]["steps_per_second"], 2)
    result = {"gl_renderer": gl_renderer(), "views": VIEWS, "size": SIZE, "tasks": tasks}
    text = json.dumps(result, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
