"""Environments in processes: the rewards of the synchronous wrapper, one error for each fault."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.errors import EnvError
from embodied_reward.rewards import DopamineConfig, DopamineModel
from embodied_reward.scoring import FeatureCache, ScoringCore
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.frames import FramesInInfo
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from embodied_reward.shaping.workers import WorkerVecEnv
from embodied_reward.vision.encoders import EncoderConfig
from tests.rewards.conftest import VIEWS, square_episode
from tests.shaping.conftest import Corridor

COUNT = 3

# Test modules cannot be imported in another process, so their classes travel by value.
for module in (sys.modules[__name__], sys.modules[Corridor.__module__]):
    cloudpickle.register_pickle_by_value(module)


class Slowed(Corridor):
    """A corridor with two cameras that takes its time, differently every step."""

    fault = ""

    def step(self, action):
        result = super().step(action)
        time.sleep(0.002 * self.np_random.integers(4))
        if self.fault == "raise" and self.t == 2:
            raise RuntimeError("the gripper fell off")
        if self.fault == "hang" and self.t == 2:
            time.sleep(60)
        if self.fault == "stop" and self.t == 2:
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.fault == "freeze" and self.t == 2:  # too large for a pipe that nobody reads yet
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGSTOP)).start()
            result[-1]["map"] = np.zeros(4_000_000, np.uint8)
        if self.fault == "die" and self.t == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    def frames(self):
        picture = np.full((32, 32, 3), 30, np.uint8)
        picture[4:12, 4 * self.x : 4 * self.x + 6] = (250, 90, self.start * 40)
        return {"front": picture, "side": np.ascontiguousarray(picture.transpose(1, 0, 2))}


def make(start, fault=""):
    env = Slowed(start=start)
    env.fault = fault
    return Monitor(FramesInInfo(env))


def makers(fault=""):
    return [partial(make, start, fault if start == 1 else "") for start in range(COUNT)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    encoder = EncoderConfig(image_size=32)
    config = DopamineConfig(views=VIEWS, encoder=encoder, dim=32, hidden=32)
    model = DopamineModel.create(config, task="squares")
    model.set_references(model.dataset([square_episode(i) for i in range(3)]))
    return model.eval()


def play(venv, model, steps=20):
    env = LearnedRewardVecEnv(
        venv, mode_named("potential"), gamma=0.9, scorer=StreamScorer(model, COUNT)
    )
    env.seed(3)
    rows, rng = [env.reset()], np.random.default_rng(0)
    infos = []
    for _ in range(steps):
        obs, rewards, dones, info = env.step(rng.uniform(-0.3, 1, (COUNT, 1)).astype(np.float32))
        rows += [obs, rewards, dones]
        infos += [(i["potential"], i["shaping"], i["env_reward"]) for i in info]
        assert not any("frames" in i for i in info)
    env.close()
    return rows, np.array(infos)


def test_rewards_are_those_of_the_synchronous_wrapper(model):
    model.use(None)
    rows, infos = play(DummyVecEnv(makers()), model)
    assert sum(row.any() for row in rows[3::3]) > 3  # some episodes ended
    with ScoringCore(cache=FeatureCache()) as core:
        model.use(core)
        model.train().eval()
        got, others = play(WorkerVecEnv(makers()), model)
        hits, asked = core.stats()["cache_hits"], core.stats()["cache_misses"]
    model.use(None)
    for a, b in zip(rows, got, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(infos, others, atol=1e-5)
    assert hits > 0
    assert asked > 0


def test_in_strict_mode_they_have_the_same_bits(model):
    found = []
    for kind in (DummyVecEnv, WorkerVecEnv):
        with ScoringCore(cache=FeatureCache(), mode="strict", canonical=2) as core:
            model.use(core)
            model.train().eval()
            found.append(play(kind(makers()), model))
    model.use(None)
    (a, x), (b, y) = found
    assert all((one == other).all() for one, other in zip(a, b, strict=True))
    assert (x == y).all()


def test_frames_are_encoded_while_another_environment_still_simulates(model):
    """The listener hears of the fast environments before the slow one is done."""
    heard = []
    env = WorkerVecEnv([partial(make, 0), partial(make, 2), Late])
    env.on_arrival = lambda infos: heard.append((time.monotonic(), len(infos)))
    env.reset()
    heard.clear()
    env.step(np.ones((3, 1), np.float32))
    done = time.monotonic()
    env.close()
    assert sum(count for _, count in heard) == 2
    assert done - heard[-1][0] > 0.2


class Late(gym.Wrapper):
    def __init__(self):
        super().__init__(make(1))

    def step(self, action):
        time.sleep(0.4)
        return super().step(action)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "raise",
            r"environment 1 \(toy/arm\) failed in step 2: RuntimeError: the gripper fell off",
        ),
        ("die", r"process of environment 1 \(toy/arm\) \(pid \d+\) ended in step 2, exit code -9"),
        (
            "hang",
            r"environment 1 \(toy/arm\) gave no answer within 2 s in step 2.*worker_timeout",
        ),
        ("stop", r"environment 1 \(toy/arm\) gave no answer within 2 s in step 2"),
        (
            "freeze",
            r"environment 1 \(toy/arm\) gave no answer within 2 s in step 2, in the middle",
        ),
    ],
)
def test_a_process_that_goes_wrong_is_one_error_in_time(fault, message):
    env = WorkerVecEnv(makers(fault), timeout=2.0, name="toy/arm")
    processes = env.processes
    env.reset()
    env.step(np.ones((COUNT, 1), np.float32))
    began = time.monotonic()
    env.step_async(np.ones((COUNT, 1), np.float32))
    time.sleep(1.0 if fault == "freeze" else 0.0)
    with pytest.raises(EnvError, match=message):
        env.step_wait()
    assert time.monotonic() - began < 12
    assert not any(process.is_alive() for process in processes)
    env.close()


def test_an_environment_that_cannot_be_made_is_an_error():
    with pytest.raises(EnvError, match=r"environment 0 failed when it was made: .*broken scene"):
        WorkerVecEnv([impossible])


def impossible():
    raise ValueError("broken scene")


def test_closing_leaves_no_process_behind():
    env = WorkerVecEnv(makers())
    processes = env.processes
    env.reset()
    env.step_async(np.ones((COUNT, 1), np.float32))
    env.close()
    env.close()
    assert not any(process.is_alive() for process in processes)


HANGS = """
import time, numpy as np, gymnasium as gym
from embodied_reward.shaping.workers import WorkerVecEnv

class Hangs(gym.Env):
    observation_space = action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        time.sleep(600)

if __name__ == "__main__":
    env = WorkerVecEnv([Hangs])
    env.reset()
    env.step_async(np.zeros((1, 1), np.float32))
    print(env.processes[0].pid, flush=True)
    env.step_wait()
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
@pytest.mark.slow
def test_a_process_leaves_with_its_parent_even_in_a_step_that_hangs(tmp_path):
    script = tmp_path / "hangs.py"
    script.write_text(HANGS)
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        worker = Path("/proc") / parent.stdout.readline().strip()
        time.sleep(0.5)
        assert worker.exists()
        parent.kill()
    deadline = time.monotonic() + 20
    while worker.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not worker.exists()
