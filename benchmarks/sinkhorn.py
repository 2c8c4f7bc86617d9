"""Batched entropic transport against a Python loop over POT (Python Optimal Transport).

    uv run python benchmarks/sinkhorn.py [--repeats=5] [--json=FILE]

Both sides compute the plans of the same 64 cosine costs of 64 x 64 frames between uniform masses,
in double precision, on one thread, until the marginals are met to 1e-9; processor time counts, so
that other programs on the machine disturb less. POT is measured in three
forms: `sinkhorn_log`, the one that never underflows and so does what ours does; the plain
`sinkhorn`, which fails at small epsilon; and the exact `emd`, against our exact plan. The sides
alternate inside one run; medians and ratios are printed. The agreement is the largest difference
between two plans' entries, times 64, i.e. in shares of a frame's mass, and between transport costs.
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: its matrix products too

import numpy as np
import ot
import torch

from embodied_reward.math.sinkhorn import cosine_cost, transport

PAIRS, FRAMES, SIZE = 64, 64, 32
LIMIT, TOLERANCE = 10_000, 1e-9


def costs(seed: int) -> torch.Tensor:
    """Return cosine costs of smooth random videos, as an encoder gives them."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(2, PAIRS, FRAMES, SIZE))
    x, y = torch.from_numpy(np.cumsum(steps, axis=2) + 3 * rng.normal(size=(2, PAIRS, 1, SIZE)))
    return cosine_cost(x, y)


def ours(cost: torch.Tensor, epsilon: float) -> np.ndarray:
    found = transport(cost, epsilon, iterations=LIMIT, tolerance=TOLERANCE)
    if not found.converged.all():
        raise SystemExit(f"not converged at epsilon {epsilon}: {found.error.max()}")
    return found.plan.numpy()


def loop_over_pot(cost: torch.Tensor, epsilon: float, method: str) -> np.ndarray:
    mass = np.full(FRAMES, 1 / FRAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # POT warns of its underflows
        if method == "emd":
            return np.stack([ot.emd(mass, mass, c) for c in cost.numpy()])
        options = {"numItermax": LIMIT, "stopThr": TOLERANCE}
        return np.stack(
            [ot.sinkhorn(mass, mass, c, epsilon, method=method, **options) for c in cost.numpy()]
        )


def seconds(call: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def compare(cost: torch.Tensor, epsilon: float, method: str, repeats: int) -> dict:
    mine, theirs = [], []
    for _ in range(repeats):
        took, plan = seconds(lambda: ours(cost, epsilon))
        mine.append(took)
        took, other = seconds(lambda: loop_over_pot(cost, epsilon, method))
        theirs.append(took)
    values = [(p * cost.numpy()).sum((1, 2)) for p in (plan, other)]
    return {
        "epsilon": epsilon,
        "peer": f"ot.{method}" if method == "emd" else f"ot.sinkhorn(method='{method}')",
        "ours_s": statistics.median(mine),
        "peer_s": statistics.median(theirs),
        "ratio": statistics.median(theirs) / statistics.median(mine),
        "plan_difference": float(np.abs(plan - other).max() * FRAMES),
        "cost_difference": float(np.abs(values[0] - values[1]).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = [(e, m) for e in (0.1, 0.05, 0.01) for m in ("sinkhorn_log", "sinkhorn")]
    rows = []
    print(f"{'epsilon':>8} {'ours [s]':>9} {'POT [s]':>9} {'ratio':>7} {'plans':>9} {'costs':>9}")
    for epsilon, method in [*cases, (0.0, "emd")]:
        rows.append(row := compare(costs(0), epsilon, method, options.repeats))
        print(
            f"{epsilon:8g} {row['ours_s']:9.4f} {row['peer_s']:9.4f} {row['ratio']:7.1f} "
            f"{row['plan_difference']:9.1e} {row['cost_difference']:9.1e}  {row['peer']}",
            flush=True,
        )
    if options.json:
        about = {"pairs": PAIRS, "frames": FRAMES, "machine": platform.machine()}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps({**about, "pot": ot.__version__, "rows": rows}, indent=2)
        )


if __name__ == "__main__":
    main()
