"""Critic updates and decisions per core-second, beside Stable-Baselines3's SAC.

    uv run python benchmarks/rl.py [--repeats=7] [--json=FILE]

Both learners get the same sizes of networks, batch and update ratio, the same transitions (39
observed numbers and 4 actions, as in Meta-World) and one torch thread. They alternate inside one
run; the median of the CPU time is reported, which other processes on the machine hardly move.
Two things differ by design, and both are in the numbers: ours has LayerNorm in the critics, and
updates the actor once per decision, SB3 once per critic update. At a ratio of 1 both do the same
number of actor updates. SBX takes part where it is installed.
"""

import argparse
import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.policies.config import SACConfig
from embodied_reward.policies.sac import build_sac

# (hidden width, batch, critic updates per decision)
SETTINGS = ((256, 256, 1), (128, 128, 1), (128, 128, 8))
FILL = 2000


class Walk(gym.Env):
    """A random walk that costs next to nothing: what is left is the learner."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (39,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (4,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.at, self.t = np.zeros(39, np.float32), 0
        return self.at, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.at = self.at + self.np_random.normal(0, 0.1, 39).astype(np.float32)
        self.at[:4] += action
        self.t += 1
        return self.at, -float(np.square(action).sum()), False, self.t >= 150, {}


def ours(width: int, batch: int, ratio: int) -> OffPolicyAlgorithm:
    config = SACConfig(
        net_arch=(width, width),
        batch_size=batch,
        gradient_steps=ratio,
        learning_starts=FILL,
        bc_steps=0,
        tau=0.005,
        ent_coef="auto",
    )
    return build_sac(config, DummyVecEnv([Walk]), seed=0)


def sb3(width: int, batch: int, ratio: int) -> OffPolicyAlgorithm:
    return SAC(
        "MlpPolicy",
        DummyVecEnv([Walk]),
        batch_size=batch,
        gradient_steps=ratio,
        buffer_size=100_000,
        learning_starts=FILL,
        policy_kwargs={"net_arch": [width, width]},
        seed=0,
        device="cpu",
    )


def sbx_sac(width: int, batch: int, ratio: int) -> OffPolicyAlgorithm:
    import sbx

    return sbx.SAC(
        "MlpPolicy",
        DummyVecEnv([Walk]),
        batch_size=batch,
        gradient_steps=ratio,
        policy_delay=1,
        buffer_size=100_000,
        learning_starts=FILL,
        policy_kwargs={"net_arch": [width, width]},
        seed=0,
    )


def learners() -> dict[str, Callable[[int, int, int], OffPolicyAlgorithm]]:
    found: dict[str, Any] = {"ours": ours, "sb3": sb3}
    return {**found, "sbx": sbx_sac} if importlib.util.find_spec("sbx") else found


def updates_per_second(model: OffPolicyAlgorithm, batch: int, ratio: int) -> float:
    """Return critic updates per core-second of `train` alone."""
    calls = max(1, 40 // ratio)
    began = time.process_time()
    for _ in range(calls):
        model.train(gradient_steps=ratio, batch_size=batch)
    return calls * ratio / (time.process_time() - began)


def decisions_per_second(model: OffPolicyAlgorithm, ratio: int) -> float:
    """Return decisions per core-second of `learn`: acting, storing and updating."""
    count = max(5, 40 // ratio)
    began = time.process_time()
    model.learn(count, reset_num_timesteps=False)
    return count / (time.process_time() - began)


def measure(width: int, batch: int, ratio: int, repeats: int) -> dict[str, dict[str, float]]:
    models = {name: make(width, batch, ratio) for name, make in learners().items()}
    rows: dict[str, dict[str, list[float]]] = {n: {"updates": [], "decisions": []} for n in models}
    for model in models.values():
        model.set_logger(Logger(None, []))
        model.learn(FILL + 10)  # fills the buffer and warms up
    for _ in range(repeats):
        for name, model in models.items():
            rows[name]["updates"].append(updates_per_second(model, batch, ratio))
            rows[name]["decisions"].append(decisions_per_second(model, ratio))
    return {n: {k: statistics.median(v) for k, v in row.items()} for n, row in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    report: list[dict[str, Any]] = []
    print(f"{'width':>6}{'batch':>7}{'ratio':>7}  learner  updates/s  decisions/s (per core)")
    for width, batch, ratio in SETTINGS:
        rows = measure(width, batch, ratio, args.repeats)
        for name, row in rows.items():
            factor = {k: row[k] / rows["sb3"][k] for k in row}
            report.append({"width": width, "batch": batch, "ratio": ratio, "name": name} | row)
            print(
                f"{width:>6}{batch:>7}{ratio:>7}  {name:7}{row['updates']:>11.1f}"
                f"{row['decisions']:>13.1f}   x{factor['updates']:.2f} x{factor['decisions']:.2f}",
                flush=True,
            )
    if "sbx" not in learners():
        print("SBX is not installed: not run")
    if args.json:
        machine = {"machine": platform.processor(), "torch": torch.__version__}
        args.json.write_text(json.dumps({**machine, "rows": report}, indent=1))


if __name__ == "__main__":
    main()
