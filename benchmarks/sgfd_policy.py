"""SAC in two variants of a world that go with where to move: the policy part of `sgfd.py`.

    uv run python benchmarks/sgfd_policy.py [--seeds=5] [--steps=500] [--finished]
        [--cell=WORLD:METHOD:SEED]

The table's reach task; the policy sees hand and ball as numbers and a picture of 16 px. One factor
of `--env.variation` at level 1 has two variants, and in 90 % of the training episodes the second
one goes with balls on the left, so what tells the variants apart says something about where to go.
`texture` and `light` (task-irrelevant) show in the picture. `robot` and `actuator` (task-relevant:
the drives' masses and damping by up to 4, their strength by up to 2.5; the weakest and strongest of
the first ten variants) show in the movement alone, so an arm that feels its load is imitated by one
more number: +1 or -1 with noise of 0.3.

SAC learns from the dense reward, without demonstrations; a small convolution reads the picture.
`random shift` moves replayed pictures by up to 2 px in training (DrQ). Then it is asked with the
link as in training, reversed (10 %), and in two variants of the held-out half, where the number is
0. Mean final progress of 30 fixed scenes, stochasticity off; a random policy has 0.09.

Every finished cell is kept in `--out`; many processes can share the work by `--cell`, and
`--finished` shows what is there.
"""

import argparse
import json
from functools import cache
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_reward.envs import make
from embodied_reward.envs.variation import vary
from embodied_reward.policies.config import SACConfig
from embodied_reward.policies.networks import LayerNormSACPolicy
from embodied_reward.policies.sac import build_sac
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from embodied_reward.training.decorrelation import BatchWeights
from embodied_reward.training.decorrelation_config import DecorrelationConfig

TASK, HORIZON, LINK, SCENES = "embodied_reward/TableReach-v0", 25, 0.9, 30
SIDE, SHIFT, NUMBERS = 16, 2, 24
GRADIENT_STEPS = 2
METHODS = ("plain", "shift", "StableNet", "SGFD")
TITLES = {"shift": "random shift"}
LOOKS, DYNAMICS = ("texture", "light"), ("robot", "actuator")
WORLDS = (*LOOKS, *DYNAMICS)
SETS = {"as trained": LINK, "link reversed": 1 - LINK, "unseen variants": None}
WEIGHTS = {"steps": 5, "memory": 512, "warmup": 50}


class Linked(gym.Env):
    """Two variants behind one environment; which one is reset depends on where the ball lies.

    Observations are numbers, the variant's number in `DYNAMICS`, then the picture in [-0.5, 0.5].

    Args:
        world: one of `WORLDS`.
        link: share of the episodes in which variant 1 goes with a ball on the left; None takes
            the held-out half of the world and shows 0 in place of the variant's number.
        seed: of the variants and the number's noise.
    """

    metadata = {"render_fps": 20.0}  # noqa: RUF012
    render_mode = None
    task_description = "reach the ball"

    def __init__(self, world: str, link: float | None, seed: int) -> None:
        self.world, self.link, self.rng = world, link, np.random.default_rng(seed)
        split = "test" if link is None else "train"
        self.envs = [varied(world, split, v) for v in variants(world, split)]
        self.variant = 0
        spaces = [self.envs[0].observation_space[k] for k in ("agent_pos", "environment_state")]
        count = 3 * SIDE**2
        low, high = (
            np.concatenate([*(getattr(s, side) for s in spaces), self._felt(edge), picture])
            for side, edge, picture in (
                ("low", -3.0, np.full(count, -0.5)),
                ("high", 3.0, np.full(count, 0.5)),
            )
        )
        self.observation_space = gym.spaces.Box(low.astype("f4"), high.astype("f4"))
        self.action_space = self.envs[0].action_space

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
        felt = self._felt(np.clip(sign + 0.3 * self.rng.normal(), -3, 3))
        picture = self.envs[self.variant].frames()["front"].reshape(-1) / 255 - 0.5
        return np.concatenate([obs["agent_pos"], obs["environment_state"], felt, picture]).astype(
            "f4"
        )

    def _felt(self, number: float) -> list[float]:
        return [number] if self.world in DYNAMICS else []


def varied(world: str, split: str, variant: int):  # noqa: ANN201
    env = make(TASK, views=("front",), horizon=HORIZON, reward="dense", size=SIDE)
    return vary(env, **{world: 1.0}, split=split, variant=variant)


@cache
def variants(world: str, split: str) -> tuple[int, int]:
    """The first two looks, or the two of ten dynamics that differ most."""
    if world in LOOKS:
        return 0, 1
    strength = {}
    for variant in range(10):
        env = varied(world, split, variant)
        env.reset(seed=0)
        strength[variant] = env.multipliers[world]
        env.close()
    order = sorted(strength, key=strength.__getitem__)
    return order[0], order[-1]


class Reader(BaseFeaturesExtractor):
    """The numbers as they are, and `NUMBERS` more from a convolution over the picture.

    Args:
        observation_space: of `Linked`.
        shift: whether pictures are moved at random while training.
    """

    def __init__(self, observation_space: gym.spaces.Box, shift: bool) -> None:
        self.width = observation_space.shape[0] - 3 * SIDE**2
        super().__init__(observation_space, self.width + NUMBERS)
        self.shift = shift
        self.network = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(SIDE**2, NUMBERS),
            nn.LayerNorm(NUMBERS),
            nn.Tanh(),
        )

    def forward(self, observations: Tensor) -> Tensor:
        picture = observations[:, self.width :].view(-1, SIDE, SIDE, 3).permute(0, 3, 1, 2)
        if self.shift and self.training:
            picture = shifted(picture)
        return torch.cat([observations[:, : self.width], self.network(picture)], dim=1)


def shifted(pictures: Tensor) -> Tensor:
    """Move each of Tensor["b c h w"] by up to `SHIFT` pixels; edges are repeated."""
    padded = F.pad(pictures, (SHIFT,) * 4, mode="replicate").permute(0, 2, 3, 1)
    corner = torch.randint(2 * SHIFT + 1, (2, len(pictures), 1))
    rows, columns = corner + torch.arange(SIDE)
    batch = torch.arange(len(pictures)).view(-1, 1, 1)
    return padded[batch, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


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
    path = cell_path(world, method, seed, steps, out)
    if not path.exists():
        model, weights = trained(world, method, seed, steps)
        found = {name: final_progress(model, world, link) for name, link in SETS.items()}
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found | {"weights": weights.logs if weights else {}}) + "\n")
    return json.loads(path.read_text())


def cell_path(world: str, method: str, seed: int, steps: int, out: Path) -> Path:
    return out / f"policy_{world}_{method}_{seed}_{steps}.json"


def trained(world: str, method: str, seed: int, steps: int):  # noqa: ANN201
    """Return the model and what weighed its batches."""
    torch.manual_seed(seed)
    config = SACConfig(
        net_arch=(64, 64),
        gamma=0.9,
        learning_rate=1e-3,
        gradient_steps=GRADIENT_STEPS,
        batch_size=128,
        bc_steps=0,
        ent_coef="auto_0.02",
        tau=0.02,
        buffer_size=max(steps, 1),
    )
    reader = {
        "features_extractor_class": Reader,
        "features_extractor_kwargs": {"shift": method == "shift"},
    }
    weights = weights_of(method, seed)
    network = (LayerNormSACPolicy, reader)
    env = learner(world, seed)
    model = build_sac(config, env, seed=seed, network=network, sample_weights=weights)
    model.set_logger(Logger(None, []))
    model.learn(steps)
    return model, weights


def cell(values: list[float]) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f}, {max(values):.2f})"


def policy_study(options: argparse.Namespace) -> dict:
    """Return world -> method -> what every seed gave."""
    results: dict = {w: {m: [] for m in METHODS} for w in WORLDS}
    for seed in range(options.seeds):
        for world in WORLDS:
            for method in METHODS:
                given = (world, method, seed, options.steps, options.out)
                if not options.finished or cell_path(*given).exists():
                    results[world][method].append(run(*given))
    return results


def show(results: dict) -> None:
    print(
        f"\n| variation | method | seeds | {' | '.join(SETS)} |\n" + "|---" * (3 + len(SETS)) + "|"
    )
    for world, methods in results.items():
        for method, rows in methods.items():
            cells = " | ".join(cell([r[name] for r in rows]) for name in SETS if rows)
            print(f"| {world} | {TITLES.get(method, method)} | {len(rows)} | {cells} |")
    for world, methods in results.items():
        for method in ("StableNet", "SGFD"):
            logs = [r["weights"] for r in methods[method]]
            kept = {
                k: round(float(np.median([log[k] for log in logs])), 4) for k in logs and logs[0]
            }
            print(f"{world}, {method}, newest batch, median: {kept}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500, help="decisions")
    parser.add_argument("--cell", help="WORLD:METHOD:SEED, this one alone")
    parser.add_argument("--finished", action="store_true", help="show what is there, run nothing")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/sgfd_policy"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.cell:
        world, method, seed = options.cell.split(":")
        print(options.cell, run(world, method, int(seed), options.steps, options.out))
        return
    results = policy_study(options)
    show(results)
    (options.out / "sgfd_policy.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
