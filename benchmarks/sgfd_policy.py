"""SAC from states with a spurious column: the policy part of `benchmarks/sgfd.py`.

    uv run python benchmarks/sgfd_policy.py [--seeds=5] [--steps=800]

The table's reach task in two variants. One more number in the observation says which variant it is,
as a picture's background or the feel of an arm would: +1 or -1 with noise of 0.3. In 90 % of the
training episodes the second variant goes with balls on the left, so the column says
something about where to go; balls and hand are in the observation too. `colour`: nothing else
differs (task-irrelevant). `actuator`: the drives are stronger or weaker by up to 2.5 (`vary`;
task-relevant). SAC learns from the dense reward, without demonstrations, and is then asked with the
link as in training, reversed (10 %), and with a column of 0 that it never saw (for `actuator`: in
variants of the held-out half). Mean final progress of 40 fixed scenes, stochasticity off.
"""

import argparse
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.envs import make
from embodied_reward.envs.variation import vary
from embodied_reward.policies.config import SACConfig
from embodied_reward.policies.sac import build_sac
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from embodied_reward.training.decorrelation import BatchWeights
from embodied_reward.training.decorrelation_config import DecorrelationConfig

TASK, HORIZON, LINK, SCENES = "embodied_reward/TableReach-v0", 25, 0.9, 40
METHODS = ("plain", "StableNet", "SGFD")
WORLDS = ("colour", "actuator")
SETS = {"as trained": LINK, "link reversed": 1 - LINK, "unseen variants": None}
WEIGHTS = {"steps": 5, "memory": 512, "warmup": 50}


class Linked(gym.Env):
    """Two variants behind one environment; which one is reset depends on where the ball lies.

    Args:
        world: one of `WORLDS`.
        link: share of the episodes in which variant 1 goes with a ball on the left; None takes
            the held-out half of the world and shows 0 in the column.
        seed: of the variants and the column.
    """

    metadata = {"render_fps": 20.0}  # noqa: RUF012
    render_mode = None
    task_description = "reach the ball"

    def __init__(self, world: str, link: float | None, seed: int) -> None:
        self.link, self.rng = link, np.random.default_rng(seed)
        self.envs = [self._one(world, variant) for variant in (0, 1)]
        self.variant = 0
        low, high = (
            np.concatenate([getattr(s, side) for s in self._space(self.envs[0])] + [[edge]])
            for side, edge in (("low", -3.0), ("high", 3.0))
        )
        self.observation_space = gym.spaces.Box(low.astype("f4"), high.astype("f4"))
        self.action_space = self.envs[0].action_space

    def _one(self, world: str, variant: int):
        env = make(TASK, horizon=HORIZON, reward="dense", size=16)
        if world == "colour":
            return env
        split = "test" if self.link is None else "train"
        return vary(env, actuator=1.0, split=split, variant=ACTUATORS[split][variant])

    def _space(self, env):
        return [env.observation_space[k] for k in ("agent_pos", "environment_state")]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        scene = int(self.rng.integers(2**31))
        obs, _ = self.envs[0].reset(seed=scene)
        left = obs["environment_state"][0] < 0
        follows = self.rng.random() < (0.5 if self.link is None else self.link)
        self.variant = int(left == follows)
        obs, info = self.envs[self.variant].reset(seed=scene)
        return self._seen(obs), {**info, "variant": self.variant}

    def step(self, action):
        obs, reward, terminated, truncated, info = self.envs[self.variant].step(action)
        return self._seen(obs), reward, terminated, truncated, {**info, "variant": self.variant}

    def progress(self) -> float:
        return self.envs[self.variant].progress()

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def _seen(self, obs):
        sign = 0.0 if self.link is None else 2.0 * self.variant - 1.0
        column = np.clip(sign + 0.3 * self.rng.normal(), -3, 3)
        return np.concatenate([obs["agent_pos"], obs["environment_state"], [column]]).astype("f4")


def actuators() -> dict[str, tuple[int, int]]:
    """Split -> the variants with the weakest and the strongest drives of the first ten."""
    found = {}
    for split in ("train", "test"):
        strength = {}
        for variant in range(10):
            env = vary(make(TASK, size=16), actuator=1.0, split=split, variant=variant)
            env.reset(seed=0)
            strength[variant] = env.multipliers["actuator"]
            env.close()
        order = sorted(strength, key=strength.get)
        found[split] = (order[0], order[-1])
    return found


ACTUATORS = actuators()


def learner(world: str, seed: int) -> LearnedRewardVecEnv:
    env = Monitor(Linked(world, LINK, seed))
    vector = DummyVecEnv([lambda: env])
    vector.seed(seed)
    return LearnedRewardVecEnv(vector, mode_named("task"), gamma=0.9)


def weights_of(method: str, seed: int) -> BatchWeights | None:
    kind = {"StableNet": "stablenet", "SGFD": "sgfd"}.get(method)
    if kind is None:
        return None
    return BatchWeights(DecorrelationConfig(type=kind, **WEIGHTS), variants=2, seed=seed)


def final_progress(model, world: str, link: float | None) -> float:
    env, found = Linked(world, link, 0), []
    for scene in range(SCENES):
        obs, _ = env.reset(seed=50_000 + scene)
        over = False
        while not over:
            action, _ = model.predict(obs, deterministic=True)
            obs, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
        found.append(env.progress())
    env.close()
    return float(np.mean(found))


def run(world: str, method: str, seed: int, steps: int, out: Path) -> dict:
    path = out / f"policy_{world}_{method}_{seed}_{steps}.json"
    if path.exists():
        return json.loads(path.read_text())
    torch.manual_seed(seed)
    config = SACConfig(
        net_arch=(64, 64),
        gamma=0.9,
        learning_rate=1e-3,
        gradient_steps=2,
        batch_size=128,
        bc_steps=0,
        ent_coef="auto_0.02",
        tau=0.02,
    )
    weights = weights_of(method, seed)
    model = build_sac(config, learner(world, seed), seed=seed, sample_weights=weights)
    model.set_logger(Logger(None, []))
    model.learn(steps)
    result: dict = {name: final_progress(model, world, link) for name, link in SETS.items()}
    result["weights"] = weights.logs if weights else {}
    path.write_text(json.dumps(result) + "\n")
    return result


def cell(values: list[float]) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f}, {max(values):.2f})"


def policy_study(seeds: int, out: Path, steps: int = 800) -> dict:
    results: dict = {w: {m: [] for m in METHODS} for w in WORLDS}
    for seed in range(seeds):
        for world in WORLDS:
            for method in METHODS:
                results[world][method].append(run(world, method, seed, steps, out))
    print(f"\n| variation | method | {' | '.join(SETS)} |\n" + "|---" * (2 + len(SETS)) + "|")
    for world, methods in results.items():
        for method, rows in methods.items():
            cells = " | ".join(cell([r[name] for r in rows]) for name in SETS)
            print(f"| {world} | {method} | {cells} |")
    for world, methods in results.items():
        for method in ("StableNet", "SGFD"):
            logs = [r["weights"] for r in methods[method]]
            kept = {k: round(float(np.median([log[k] for log in logs])), 4) for k in logs[0]}
            print(f"{world}, {method}, newest batch, median: {kept}")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/sgfd"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    results = policy_study(options.seeds, options.out, options.steps)
    (options.out / "sgfd_policy.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
