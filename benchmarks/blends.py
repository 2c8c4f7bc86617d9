"""What each blend makes of a reward that helps, one that misleads, and a goal that is far away.

    uv run python benchmarks/blends.py --seeds=3

A point on a line starts at 0 and succeeds at `goal`; the learned reward is `absolute`, kappa times
a progress that rises towards the goal ("helps") or away from it ("misleads"): neither keeps the
optimal policy, since an attempt that goes on is paid longer. Reported: success over the last 50
episodes of training, one number per seed. Writes JSON, goes on where it was stopped and prints the
table of docs/blends.md.
"""

import argparse
import dataclasses
import itertools
import json
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.policies.blends import BlendConfig, make_blend
from embodied_reward.policies.blends.env import BlendCallback, BlendedVecEnv
from embodied_reward.policies.config import PPOConfig, SACConfig
from embodied_reward.policies.ppo import build_ppo
from embodied_reward.policies.sac import build_sac
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.frames import ProgressInInfo
from embodied_reward.shaping.vector import LearnedRewardVecEnv

GAMMA, KAPPA, ENVS = 0.95, 0.3, 4
ABSOLUTE = dataclasses.replace(mode_named("absolute"), source="progress")
CASES = {  # name -> (progress rises with x, goal, decisions per episode, reward mode)
    "helps": (1, 1.0, 10, ABSOLUTE),
    "misleads": (-1, 1.0, 10, ABSOLUTE),
    "far": (1, 3.0, 20, mode_named("success")),
}
BLENDS = {
    "helps": ("success only", "fixed", "bilevel", "group"),
    "misleads": ("success only", "fixed", "bilevel", "group"),
    "far": ("success only", "exploration"),
}


class Line(gym.Env):
    observation_space = gym.spaces.Box(-99, 99, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, side, goal, horizon):
        self.side, self.goal, self.horizon = side, goal, horizon

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = 0.0, 0
        return self._obs(), {"is_success": False}

    def step(self, action):
        self.x += 0.3 * float(np.clip(action[0], -1, 1))
        self.t += 1
        won = self.x >= self.goal
        return self._obs(), float(won), won, self.t >= self.horizon, {"is_success": won}

    def progress(self):
        return float(np.clip(0.5 + self.side * self.x / 4, 0, 1))

    def _obs(self):
        return np.array([self.x, self.t / self.horizon], np.float32)


class Successes(BaseCallback):
    def __init__(self):
        super().__init__()
        self.won = []

    def _on_step(self):
        pairs = zip(self.locals["infos"], self.locals["dones"], strict=True)
        self.won += [bool(info["is_success"]) for info, done in pairs if done]
        return True


def build(kind, env, relabel, seed):
    small = {"net_arch": (32, 32), "bc_steps": 0, "gamma": GAMMA, "batch_size": 64}
    if kind == "ppo":
        config = PPOConfig(n_steps=64, learning_rate=3e-3, target_kl=None, n_epochs=5, **small)
        return build_ppo(config, env, seed=seed)
    sizes = {"buffer_size": 5000, "learning_starts": 200, "gradient_steps": 1}
    config = SACConfig(learning_rate=1e-3, **sizes, **small)
    return build_sac(config, env, relabel=relabel, seed=seed)


def run(kind, case, name, seed, steps):
    side, goal, horizon, mode = CASES[case]
    mode = mode_named("success") if name == "success only" else mode
    vector = DummyVecEnv([lambda: ProgressInInfo(Line(side, goal, horizon))] * ENVS)
    vector.seed(seed)
    env = LearnedRewardVecEnv(vector, mode, gamma=GAMMA, kappa=KAPPA)
    config = BlendConfig(window=40)
    known = {"success only": "fixed"}.get(name, name)
    blend = make_blend(known, config, count=ENVS, gamma=GAMMA, seed=seed, widths=(2, 1))

    def relabel(base, phi, after, ended):
        weight = blend.weight if blend else 1.0
        return base + weight * mode.added(phi, after, ended, GAMMA, KAPPA)

    model = build(kind, BlendedVecEnv(env, blend) if blend else env, relabel, seed)
    if blend and blend.bonuses and kind == "sac":
        model.replay_buffer.bonus = blend.bonus
    seen, began = Successes(), time.process_time()
    model.learn(steps, [*([BlendCallback(blend)] if blend else []), seen])
    first = seen.won.index(True) + 1 if any(seen.won) else None
    return {
        "learner": kind,
        "case": case,
        "blend": name,
        "seed": seed,
        "success": float(np.mean(seen.won[-50:])),
        "first_success": first,
        "episodes": len(seen.won),
        "weight": blend.weight if blend else 1.0,
        "cpu_s": round(time.process_time() - began, 1),
    }


def table(rows):
    """Return one line per case and blend, each learner's success per seed, as Markdown."""
    learners = sorted({row["learner"] for row in rows})
    lines = ["| reward | blend | " + " | ".join(map(str.upper, learners)) + " |"]
    lines.append("|---" * (2 + len(learners)) + "|")
    for case, names in BLENDS.items():
        for name in names:
            cells = [per_seed(rows, learner, case, name) for learner in learners]
            lines.append(f"| {case} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def per_seed(rows, learner, case, name):
    chosen = [r for r in rows if (r["learner"], r["case"], r["blend"]) == (learner, case, name)]
    return ", ".join(f"{r['success']:.2f}" for r in sorted(chosen, key=lambda r: r["seed"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/blends.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(options.output.read_text()) if options.output.exists() else []
    done = {(r["learner"], r["case"], r["blend"], r["seed"]) for r in rows}
    cases = [(case, name) for case, names in BLENDS.items() for name in names]
    for kind, (case, name), seed in itertools.product(("ppo", "sac"), cases, range(options.seeds)):
        if (kind, case, name, seed) not in done:
            rows.append(run(kind, case, name, seed, options.steps))
            print(json.dumps(rows[-1]), flush=True)
            options.output.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
