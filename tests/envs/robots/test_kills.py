"""Kill or stop policy, reward model, learner or camera: the arm is held, and no row is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embodied_reward import config as configs
from embodied_reward.envs.robots.limits import limits_from

SCRIPT = Path(__file__).with_name("kill_points.py")
LIMITS = limits_from(configs.load_preset("robot", "er_sim_arm"))


def struck(tmp_path, count, seed):
    output = tmp_path / "points.json"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), str(output), str(count), str(seed)],
        capture_output=True,
        text=True,
        timeout=300 + 30 * count,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(output.read_text())


def check(points):
    for point in points:
        assert point["struck"], point
        assert point["hold_after_s"] is not None, point
        # Without real-time priority a busy system may be late, whatever we do.
        periods = 2 if point["real_time_priority"] else 20
        assert point["hold_after_s"] <= periods * LIMITS.period, point
        # What was announced as finished is there; of the running episode every row that was
        # announced is (one more may be: it was written, but not announced yet).
        assert point["episodes_on_disk"] >= point["episodes_said"], point
        if point["episodes_on_disk"] == point["episodes_said"]:
            assert point["rows_on_disk"] >= point["rows_said"], point


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, forks")
def test_a_killed_rollout_leaves_the_arm_held(tmp_path):
    check(struck(tmp_path, 1, 0))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, forks")
def test_every_part_killed_and_stopped_at_many_points(tmp_path):
    points = struck(tmp_path, 80, 1)
    check(points)
    assert sum(not point["resting"] for point in points) >= 50
