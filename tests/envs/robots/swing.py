"""Move a robot to and fro until killed; run by test_arm.py:  python swing.py RIG.json LOG"""

import json
import sys
from pathlib import Path

import numpy as np

from embodied_reward.envs.robots import arm as arms
from embodied_reward.envs.robots import lerobot_robots
from embodied_reward.envs.robots.planner import plan

TURN = 8  # ticks into either direction
SHARE = 0.4  # of the way from home to the first motor's upper limit: an arm turns on its base


def main(rig, log):
    tree = json.loads(Path(rig).read_text())
    packages = tuple(tree.get("packages", ()))
    config = lerobot_robots.decode(tree["robot"], packages)
    arm = arms.connect(config, tree["limits"], packages=packages, log=log)
    tick = 0
    while True:
        swing(arm, tick)
        tick += 1


def swing(arm, tick):
    """One control period of it; returns whether the command was sent."""
    limits, state = arm.limits, arm.observe()
    away = limits.home.copy()
    away[0] += SHARE * (limits.high[0] - away[0])
    wish = (away, limits.home)[tick // TURN % 2]
    goal = plan(np.asarray(wish), limits, sent=state.sent, velocity=state.velocity)
    sent = state.held is None and arm.command(goal, state.reading.time)
    arm.tick()
    if state.held:
        arm.release()
    return sent


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
