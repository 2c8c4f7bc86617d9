"""The table that ends a training run: success at its start, its best and its end."""

from collections.abc import Mapping

import numpy as np

from embodied_reward.policies.evaluate import Evaluation


def success_table(history: Mapping[int, Evaluation], unit: str) -> str:
    """Return one row each for the first, the best and the last evaluation.

    Args:
        history: step -> evaluation, at least one.
        unit: what a step is, e.g. "decisions".
    """
    best = max(history, key=lambda step: (history[step].success_rate, step))
    rows = {"start": min(history), "best": best, "end": max(history)}
    lines = [f"{'':8}{unit:>10}  success rate (95 % interval), mean decisions"]
    for name, step in rows.items():
        low, high = history[step].interval
        length = np.mean(history[step].lengths)
        rate = history[step].success_rate
        lines.append(f"{name:8}{step:>10}  {rate:4.0%} ({low:.0%} to {high:.0%}), {length:.0f}")
    return "\n".join(lines)
