"""Kill or stop parts of a rollout on the simulated arm, and read from the guard's log what it did.

Run by test_kills.py:  python kill_points.py OUTPUT.json POINTS SEED

Heavy modules are loaded once and every point forks: a guard (with the arm's own camera process)
and a rollout with a real policy, reward model, learner and recorder. The rollout says in shared
memory what it is doing; the harness strikes while it does the chosen thing.
"""

# ruff: noqa: E402 (threads are limited before torch is loaded)
import json
import mmap
import os
import signal
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

torch.set_num_threads(1)

from embodied_reward import config as configs
from embodied_reward.cli.rollout_crew import Scripted, Unattended
from embodied_reward.cli.rollout_record import LiveScores, RecordedEnv
from embodied_reward.data import EpisodeRecorder
from embodied_reward.envs.robots import arm as arms
from embodied_reward.envs.robots import driver, lerobot_robots
from embodied_reward.envs.robots.arm_env import ArmEnv, Station
from embodied_reward.envs.robots.limits import limits_from
from embodied_reward.policies.config import SACConfig
from embodied_reward.policies.sac import build_sac
from embodied_reward.rewards import DopamineConfig, DopamineModel
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.types import Episode

TREE = configs.load_preset("robot", "er_sim_arm")
ROBOT = {"type": "er_sim_arm"}
LIMITS = limits_from(TREE)
PHASES = {"policy": b"p", "scorer": b"s", "learner": b"l"}
TARGETS = ("policy", "scorer", "learner", "camera")
_SHARED = struct.Struct("=cQQQ")  # phase, decisions, finished episodes, rows of the running one


class Shared:
    """What the rollout says of itself."""

    def __init__(self):
        self.memory = mmap.mmap(-1, _SHARED.size)

    def say(self, phase, *counts):
        self.memory[:] = _SHARED.pack(phase, *(counts or self.read()[1:]))

    def read(self):
        return _SHARED.unpack(self.memory[:])


def learner():
    """SAC of the real size on flat observations; its updates are what a learner does."""
    env = DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    model = build_sac(SACConfig(learning_starts=1, batch_size=64), env, seed=0)
    model.learn(3)
    return model


def reward():
    """An untrained reward model of the real size: as slow as a trained one."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (2, 12, 64, 64, 3), dtype=np.uint8)
    episode = Episode(
        views=dict(zip(("front", "side"), pictures, strict=True)),
        action=np.zeros((12, 6), np.float32),
        fps=LIMITS.rate,
        task="reach",
        index=0,
        source="noise",
        length=12,
        success=True,
    )
    model = DopamineModel.create(DopamineConfig(views=("front", "side")))
    model.set_references(model.dataset([episode, episode]))
    return model.eval()


def rollout(link, shared, folder, model, scores):
    """What `er rollout --mode=finetune` does, with an update after every decision."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    greeting = {
        "robot": ROBOT, "limits": TREE, "packages": [], "dry_run": False, "deadman": False,
        "keys": False, "log": str(folder / "safety.jsonl"),
    }  # fmt: skip
    arm = arms.greet(link, greeting, LIMITS)
    station = Station(arm, Unattended(Scripted("reach", 0)))
    recorder = EpisodeRecorder(folder / "episodes", fps=LIMITS.rate, robot_type="er_sim_arm")
    live = LiveScores(StreamScorer(scores, 1))
    plain = ArmEnv(station, "er_sim_arm", task="reach", horizon=12, terminate_on_success=False)
    env = RecordedEnv(plain, station, recorder, live, lambda moment: None)
    inner, rng, steps = live.step, np.random.default_rng(os.getpid()), 0

    def scored(frames):
        shared.say(b"s")
        out = inner(frames)
        shared.say(b"-")
        return out

    live.step = scored
    while True:
        env.reset(seed=int(rng.integers(1000)))
        done = False
        while not done:
            shared.say(b"p")
            model.policy.predict(np.zeros((1, 3), np.float32))
            action = rng.uniform(-1, 1, 6)
            shared.say(b"-")
            _, _, terminated, truncated, _ = env.step(action)
            steps, done = steps + 1, terminated or truncated
            counts = (steps, len(recorder), len(env._rows))
            if not done:
                shared.say(b"l", *counts)
                model.train(1, 64)
            shared.say(b"-", *counts)


def cameras_of(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def strike(shared, target, guard, child, number, rng):
    """Wait for the moment, then send the signal; returns when, or None where it never came."""
    wait = time.monotonic() + 60
    while shared.read()[1] < 3 and time.monotonic() < wait:
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 1.0))
    if target == "camera":
        victims = cameras_of(guard)
        while shared.read()[0] in (b"\0",) or not victims:
            time.sleep(0.01)
            victims = cameras_of(guard)
    else:
        victims = [child]
        while shared.read()[0] != PHASES[target]:
            if time.monotonic() > wait:
                return None
            time.sleep(0.0002)
    for victim in victims:
        os.kill(victim, number)
    return time.monotonic()


def events(folder):
    path = folder / "safety.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def fork(run):
    pid = os.fork()
    if pid:
        return pid
    try:
        run()
    finally:
        os._exit(0)


def point(target, number, rng, model, scores):
    """One strike; returns what came of it."""
    ours, theirs = socket.socketpair()
    shared, folder = Shared(), Path(tempfile.mkdtemp(prefix="er-kill-"))
    guard = fork(lambda: (ours.close(), driver.serve(theirs)))
    theirs.close()
    child = fork(lambda: rollout(ours, shared, folder, model, scores))
    ours.close()
    try:
        struck = strike(shared, target, guard, child, number, rng)
        time.sleep(0.8)
        _, _, episodes, rows = shared.read()
    finally:
        for pid in (*cameras_of(guard), child):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(child, 0)
        os.waitpid(guard, 0)
    return {"target": target, "signal": signal.Signals(number).name} | outcome(
        events(folder), struck, folder / "episodes.recording", episodes, rows
    )


def outcome(log, struck, recording, episodes, rows):
    """Read from the guard's log how long the arm could move on after the strike."""
    marks = [e for e in log if e["event"] in ("go", "rest", "hold", "start")]
    before = [e["event"] for e in marks if struck and e["monotonic"] < struck]
    after = [e for e in log if struck and e["monotonic"] >= struck]
    moving = before[-1:] == ["go"] or any(e["event"] == "go" for e in after)
    stop = next((e for e in after if e["event"] in ("hold", "rest")), None)
    still = next((e for e in after if e["event"] == "still"), None)
    return {
        "struck": struck is not None,
        "real_time_priority": any(e.get("real_time_priority") for e in log),
        "resting": not moving,  # between two episodes, or held already: it stays where it is
        "hold_after_s": (stop and stop["monotonic"] - struck) if moving else 0.0,
        "still_after_s": still and still["monotonic"] - struck,
        "reason": stop and stop.get("reason"),
        "episodes_said": episodes,
        "episodes_on_disk": len(sorted(recording.glob("episode-*.npz"))),
        "rows_said": rows,
        "rows_on_disk": len(sorted((recording / "unfinished").glob("row-*.npz"))),
    }


def main(output, count, seed):
    rng = np.random.default_rng(seed)
    lerobot_robots.decode(ROBOT)
    from embodied_reward.envs.robots import sim_arm

    sim_arm.ErSimArm  # noqa: B018 (loaded before forking)
    model, scores = learner(), reward()
    results = []
    for index in range(count):
        target = TARGETS[index % len(TARGETS)]
        number = (signal.SIGKILL, signal.SIGSTOP)[index // len(TARGETS) % 2]
        results.append(point(target, number, rng, model, scores))
        print(json.dumps(results[-1]), flush=True)
    Path(output).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
