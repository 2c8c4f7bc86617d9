"""What the headline study says of the potential in the rollouts of a run."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from embodied_reward.cli.headline.potential import REPLAY, potential_summary
from embodied_reward.cli.headline.report import potential_table


def replay(root, *rollouts):
    """Write the replay of rollouts (potentials, won, ended)."""
    columns = {"potentials": [], "rewards": [], "dones": [], "episode_ids": []}
    for number, (phi, won, ended) in enumerate(rollouts):
        last = np.arange(len(phi)) == len(phi) - 1
        columns["potentials"] += list(phi)
        columns["rewards"] += list(1.0 * (won & last))
        columns["dones"] += list(1.0 * (ended & last))
        columns["episode_ids"] += [number] * len(phi)
    (root / REPLAY).parent.mkdir(parents=True)
    save_file({k: np.array(v)[:, None] for k, v in columns.items()}, root / REPLAY)
    return potential_summary(root)


def test_failed_and_successful_rollouts_are_told_apart(tmp_path):
    found = replay(
        tmp_path,
        ([0.0, 0.9, 0.4], False, True),
        ([0.1, 0.3], False, True),
        ([0.2, 0.5, 0.8], True, True),
        ([0.0, 1.0], False, False),  # its end was stored after the checkpoint
    )
    assert found == pytest.approx(
        {
            "failed_highest": 0.6,
            "failed_high": 0.5,
            "failed_variation": (1.4 + 0.2) / 2,
            "succeeded_variation": 0.6,
            "succeeded_last": 0.8,
        }
    )


def test_what_was_not_seen_is_unknown_and_no_potential_is_none(tmp_path):
    found = replay(tmp_path / "a", ([0.0, 0.9], False, True))
    assert (found["succeeded_last"], found["succeeded_variation"]) == (None, None)
    assert replay(tmp_path / "b", ([0.0, 0.0], True, True)) is None


def test_the_table_averages_over_seeds_what_is_known():
    cells = [
        {"task": "push", "condition": "oracle", "potential": dict.fromkeys(KEYS, value)}
        for value in (0.2, 0.4, None)
    ]
    line = potential_table([*cells, {"task": "push", "condition": "none"}]).splitlines()[-1]
    assert line == "| push | true progress, shaped | 3 | 0.30 | 0.30 | 0.30 | 0.30 | 0.30 |"


KEYS = (
    "failed_highest", "failed_high", "failed_variation", "succeeded_variation", "succeeded_last",
)  # fmt: skip
