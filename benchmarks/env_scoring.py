"""What a visual reward costs: 8 Meta-World environments, 2 cameras, 64 px, a `dopamine` model.

    uv run python benchmarks/env_scoring.py [--rounds=7] [--steps=20] [--json=FILE]

Sides, on the same environments, actions and rounds:

    render              the frames alone: no reward
    core                the visual reward by the scoring core, after all environments are done
    overlapped          the same, frames encoded as each environment delivers them
    loop                a call per environment and camera of the same model, on one picture each

Environments step in turn in one process (`serial`) or each in its own (`workers`; only there can
scoring overlap). The sides alternate inside every round, in an order that rotates; medians of the
rounds and ratios are printed. `scoring` times the reward alone, on frames rendered before. One
thread for torch. Absolute numbers depend on the machine, ratios less so.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from embodied_reward.cli.env_config import EnvConfig
from embodied_reward.cli.policy_env import SingleEnv
from embodied_reward.data import open_dataset
from embodied_reward.rewards import DopamineConfig, DopamineModel
from embodied_reward.scoring import FeatureCache, ScoringCore
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from embodied_reward.shaping.workers import WorkerVecEnv
from embodied_reward.types import Scores, UInt8

COUNT, VIEWS, SIZE = 8, ("corner2", "gripperPOV"), 64
PRELOAD = ("embodied_reward.cli.policy_env", "embodied_reward.data")
DEMOS = Path(__file__).parents[1] / "datasets" / "window_open_tiny"


class LoopScorer:
    """The reward as it is without a core: every environment and every camera by itself."""

    views = VIEWS

    def __init__(self, model: DopamineModel, count: int) -> None:
        self.model, self.carry = model, [{} for _ in range(count)]

    def start(self, rows: Sequence[int], frames: Mapping[str, UInt8]) -> Scores:
        for k, row in enumerate(rows):
            self.carry[row] = self.model.start(self._features(frames, k))
        return self._score(rows, frames)

    def step(self, frames: Mapping[str, UInt8]) -> Scores:
        return self._score(range(len(self.carry)), frames)

    def _features(self, frames: Mapping[str, UInt8], k: int) -> torch.Tensor:
        views = [self.model.encode({v: frames[v][k : k + 1]})[:, i] for i, v in enumerate(VIEWS)]
        return torch.stack(views, 1)

    @torch.inference_mode()
    def _score(self, rows: Sequence[int], frames: Mapping[str, UInt8]) -> Scores:
        found = []
        for k, row in enumerate(rows):
            scores, self.carry[row] = self.model.score(self._features(frames, k), self.carry[row])
            found.append(scores)
        names = ("potential", "success", "uncertainty", "ok")
        return Scores(*(np.concatenate([getattr(s, n) for s in found]) for n in names))


def reward_model() -> DopamineModel:
    """Return an untrained model with real reference frames: it costs what a trained one does."""
    torch.manual_seed(0)
    model = DopamineModel.create(DopamineConfig(views=VIEWS), task="slide the window open")
    model.set_references(model.dataset(list(open_dataset(DEMOS))))
    # As many as a training run keeps; the demonstrations at hand are fewer.
    rows = torch.arange(model.config.references) % len(model.reference_goal)
    model.reference_start = model.reference_start[rows]
    model.reference_goal = model.reference_goal[rows]
    model.reference_tasks = model.reference_tasks[:1] * len(rows)
    return model.eval()


def environments(kind: type) -> VecEnv:
    config = EnvConfig(id="metaworld/window-open-v3", horizon=100_000)
    single = SingleEnv(config, views=VIEWS, size=SIZE, frames=True)
    makers = [partial(single.make, seed) for seed in range(COUNT)]
    venv = WorkerVecEnv(makers, preload=PRELOAD) if kind is WorkerVecEnv else kind(makers)
    venv.seed(0)
    return venv


def timed(env: VecEnv, actions: np.ndarray) -> float:
    """Return frames per second over the actions Float32["t b a"]."""
    env.reset()
    env.step(actions[0])
    began = time.perf_counter()
    for action in actions[1:]:
        env.step(action)
    return (len(actions) - 1) * COUNT * len(VIEWS) / (time.perf_counter() - began)


def rewarded(venv: VecEnv, scorer: Any, *, ahead: bool = False) -> LearnedRewardVecEnv:
    env = LearnedRewardVecEnv(venv, mode_named("potential"), gamma=0.99, scorer=scorer)
    if isinstance(venv, WorkerVecEnv) and not ahead:
        venv.on_arrival = None
    return env


def sides(
    serial: VecEnv, workers: VecEnv, model: DopamineModel, core: ScoringCore
) -> dict[str, Callable[[np.ndarray], float]]:
    """Return name -> function of actions that measures one round."""

    def side(venv: VecEnv, scorer: str, ahead: bool = False) -> Callable[[np.ndarray], float]:
        def run(actions: np.ndarray) -> float:
            if scorer == "none":
                venv.on_arrival = None  # type: ignore[attr-defined]
                return timed(venv, actions)
            model.use(core if scorer == "core" else None)
            made = StreamScorer(model, COUNT) if scorer == "core" else LoopScorer(model, COUNT)
            return timed(rewarded(venv, made, ahead=ahead), actions)

        return run

    found = {}
    for name, venv in (("serial", serial), ("workers", workers)):
        found[f"{name} render"] = side(venv, "none")
        found[f"{name} core"] = side(venv, "core")
        found[f"{name} loop"] = side(venv, "loop")
    found["workers overlapped"] = side(workers, "core", ahead=True)
    return found


def record(venv: VecEnv, actions: np.ndarray) -> list[dict[str, UInt8]]:
    """Return frames view -> UInt8["b h w 3"] of every step, to be scored without rendering."""
    venv.reset()
    frames = []
    for action in actions:
        _, _, _, infos = venv.step(action)
        frames.append({v: np.stack([info["frames"][v] for info in infos]) for v in VIEWS})
    return frames


def scoring_alone(scorer: Any, frames: list[dict[str, UInt8]]) -> tuple[float, float]:
    """Return pictures scored per second of the clock and of CPU time; no picture comes twice."""
    scorer.start(list(range(COUNT)), frames[0])
    scorer.step(frames[1])
    began, cpu = time.perf_counter(), time.process_time()
    for step in frames[2:]:
        scorer.step(step)
    count = (len(frames) - 2) * COUNT * len(VIEWS)
    return count / (time.perf_counter() - began), count / (time.process_time() - cpu)


def measure(rounds: int, steps: int) -> dict:
    torch.set_num_threads(1)
    model, rng = reward_model(), np.random.default_rng(0)
    serial, workers = environments(DummyVecEnv), environments(WorkerVecEnv)
    rates: dict[str, list[float]] = {}
    try:
        for number in range(rounds + 1):
            # New frames every round, and a new core: nothing comes out of the cache.
            actions = rng.uniform(-1, 1, (steps + 1, COUNT, 4)).astype(np.float32)
            with ScoringCore(cache=FeatureCache(capacity_bytes=64 << 20)) as core:
                found = round_of(sides(serial, workers, model, core), actions, number)
            found |= alone(model, record(serial, actions), number)
            for name, rate in found.items() if number else ():  # the first round warms up
                rates.setdefault(name, []).append(rate)
    finally:
        serial.close()
        workers.close()
    return summary(rates, rounds, steps)


def round_of(
    chosen: dict[str, Callable[[np.ndarray], float]], actions: np.ndarray, number: int
) -> dict[str, float]:
    names = list(chosen)
    first = number % len(names)
    return {name: chosen[name](actions) for name in names[first:] + names[:first]}


def alone(model: DopamineModel, frames: list[dict[str, UInt8]], number: int) -> dict[str, float]:
    def by_core() -> tuple[float, float]:
        with ScoringCore(cache=FeatureCache(capacity_bytes=64 << 20)) as core:
            model.use(core)
            return scoring_alone(StreamScorer(model, COUNT), frames)

    def by_loop() -> tuple[float, float]:
        model.use(None)
        return scoring_alone(LoopScorer(model, COUNT), frames)

    order = [("scoring core", by_core), ("scoring loop", by_loop)]
    found = {name: run() for name, run in order[:: 1 if number % 2 else -1]}
    cpu = {f"{name}, CPU": rates[1] for name, rates in found.items()}
    return {**{name: rates[0] for name, rates in found.items()}, **cpu}


def summary(rates: dict[str, list[float]], rounds: int, steps: int) -> dict:
    median = {name: statistics.median(values) for name, values in rates.items()}
    spread = {name: [min(values), max(values)] for name, values in rates.items()}

    def ratio(a: str, b: str) -> float:
        pairs = zip(rates[a], rates[b], strict=True)
        return statistics.median(x / y for x, y in pairs)

    return {
        "frames_per_second": median,
        "range": spread,
        "ratios": {
            "serial core / render": ratio("serial core", "serial render"),
            "workers core / render": ratio("workers core", "workers render"),
            "workers overlapped / render": ratio("workers overlapped", "workers render"),
            "workers overlapped / core": ratio("workers overlapped", "workers core"),
            "serial core / loop": ratio("serial core", "serial loop"),
            "workers overlapped / loop": ratio("workers overlapped", "workers loop"),
            "scoring core / loop": ratio("scoring core", "scoring loop"),
            "scoring core / loop, CPU": ratio("scoring core, CPU", "scoring loop, CPU"),
        },
        "environments": COUNT,
        "views": len(VIEWS),
        "size": SIZE,
        "rounds": rounds,
        "steps": steps,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.rounds, options.steps)
    for name, rate in result["frames_per_second"].items():
        low, high = result["range"][name]
        print(f"{name:>20}: {rate:8.1f} frames/s  ({low:.1f} to {high:.1f})")
    for name, value in result["ratios"].items():
        print(f"{name:>30}: {value:5.2f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
