"""Training pairs per second: one encoding per frame for all pairs, against a naive pair loader.

    uv run python benchmarks/pair_throughput.py [--repeats=5] [--json=FILE]

Both sides train the same `dopamine` network on the same synthetic episodes (two 64 px views)
with the same pairs, loss and optimiser. The naive loader does what a pair data set in the
usual form does: every pair brings its own before, after, start and goal pictures, and the
network encodes all of them. The sides alternate inside one run; the median of each and their
ratio are printed. Absolute numbers depend on the machine, the ratio hardly does.
"""

import argparse
import dataclasses
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from embodied_reward.rewards import DopamineConfig, DopamineModel
from embodied_reward.rewards.dopamine_assembly import HopBatch
from embodied_reward.types import Episode

VIEWS = ("front", "wrist")
NAIVE_BATCH = 32


def episode(index: int, length: int = 60) -> Episode:
    rng = np.random.default_rng(index)
    views = {v: rng.integers(0, 256, (length, 64, 64, 3), np.uint8) for v in VIEWS}
    action = np.zeros((length, 4), np.float32)
    return Episode(views, action, 20.0, "noise", index, f"synthetic#{index}", length, success=True)


def naive(batch: HopBatch, rng: np.random.Generator) -> HopBatch:
    """Return a batch of NAIVE_BATCH pairs in which nothing is shared between pairs."""
    pairs = batch.pairs
    pick = torch.from_numpy(rng.choice(len(pairs.hop), NAIVE_BATCH, replace=False))
    roles = [getattr(pairs, role)[pick] for role in ("before", "after", "start", "goal")]
    place = torch.arange(NAIVE_BATCH)
    n, rows = 4 * NAIVE_BATCH, torch.cat(roles)
    return dataclasses.replace(
        batch,
        frames=batch.frames[rows],
        present=batch.present[rows],
        part=batch.part[rows],
        pairs=dataclasses.replace(
            pairs,
            before=place,
            after=place + NAIVE_BATCH,
            start=place + 2 * NAIVE_BATCH,
            goal=place + 3 * NAIVE_BATCH,
            hop=pairs.hop[pick],
            weight=pairs.weight[:, pick],
        ),
        success_frame=torch.arange(n),
        success_goal=(place + 3 * NAIVE_BATCH).repeat(4),
        success=torch.zeros(n),
    )


def pairs_per_second(model: DopamineModel, optimizer: torch.optim.Optimizer, batch: HopBatch):
    began = time.perf_counter()
    optimizer.zero_grad()
    loss, _ = model.loss(batch)
    loss.backward()
    optimizer.step()
    return len(batch.pairs.hop) / (time.perf_counter() - began)


def measure(repeats: int) -> dict:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = DopamineModel.create(DopamineConfig(views=VIEWS))
    optimizer = torch.optim.AdamW(model.parameters())
    data = model.dataset([episode(i) for i in range(6)])
    rates: dict[str, list[float]] = {"shared": [], "naive": []}
    for step in range(repeats + 1):
        batch = data.batch(4, 0, step)
        shared = pairs_per_second(model, optimizer, batch)
        single = pairs_per_second(model, optimizer, naive(batch, rng))
        if step:  # the first round warms the allocator up
            rates["shared"].append(shared)
            rates["naive"].append(single)
    median = {k: statistics.median(v) for k, v in rates.items()}
    return {
        "pairs_per_second": median,
        "ratio": median["shared"] / median["naive"],
        "repeats": repeats,
        "threads": 1,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.repeats)
    for side, rate in result["pairs_per_second"].items():
        print(f"{side:>7}: {rate:10.1f} pairs/s")
    print(f"  ratio: {result['ratio']:10.1f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
