"""The learned reward inside LeRobot's online loop: resets, terminations, truncations."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from lerobot.envs import HILSerlRobotEnvConfig
from lerobot.envs.configs import HILSerlProcessorConfig, ResetConfig
from lerobot.lerobot_types import TransitionKey
from lerobot.processor import DataProcessorPipeline, DeviceProcessorStep, TimeLimitProcessorStep
from lerobot.rl.buffer import ReplayBuffer
from lerobot.rl.gym_manipulator import (
    make_processors,
    reset_and_build_transition,
    step_env_and_process_transition,
)

from embodied_reward import rewards
from embodied_reward.data import open_dataset
from embodied_reward.errors import ConfigError, EnvError
from embodied_reward.lerobot_plugin import ShapedRewardProcessorStep
from embodied_reward.lerobot_plugin.pixel_frames import PixelFrames
from embodied_reward.lerobot_plugin.shaped_reward_processor import insert_shaped_reward
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.shaping import MODES
from embodied_reward.shaping.ledger import EPISODE
from embodied_reward.shaping.wrapper import LearnedReward
from tests.lerobot_plugin.conftest import TINY

GAMMA, KAPPA = 0.9, 2.0
VIEWS = ("corner2", "gripperPOV")


class Film(gym.Env):
    """Shows recorded episodes one after the other, in the form of LeRobot's environments."""

    metadata = {"render_fps": 10}  # noqa: RUF012

    def __init__(self, terminates_at=None):
        self.action_space = gym.spaces.Box(-1, 1, (4,), np.float32)
        self.observation_space = gym.spaces.Dict()
        self.films = [{v: e.views[v] for v in VIEWS} for e in open_dataset(TINY)]
        self.terminates_at, self.episode = terminates_at, -1

    def reset(self, *, seed=None, options=None):
        self.episode, self.t = (self.episode + 1) % len(self.films), 0
        return self.seen(), {"is_success": False}

    def step(self, action):
        self.t += 1
        done = self.t == self.terminates_at
        return self.seen(), float(done), done, False, {"is_success": done}

    def seen(self):
        pixels = {view: frames[self.t] for view, frames in self.films[self.episode].items()}
        return {"pixels": pixels, "agent_pos": np.zeros(3, np.float32)}


def potentials(folder):
    model = rewards.load(folder)
    return [model.score_episode(e).potential for e in open_dataset(TINY)]


def lerobot_loop(env, step, limit, episodes):
    """LeRobot's own loop of its actor, on its own pipelines; returns (reward, done, ...) lists."""
    reset = ResetConfig(control_time_s=limit / 10, terminate_on_success=True)
    processor = HILSerlProcessorConfig(reset=reset)
    config = HILSerlRobotEnvConfig(name="gym_hil", fps=10, processor=processor)
    env_processor, action_processor = make_processors(env, None, config)
    env_processor = insert_shaped_reward(env_processor, step)
    played = []
    for _ in range(episodes):
        transition = reset_and_build_transition(env, env_processor, action_processor)
        first = transition[TransitionKey.INFO]
        assert transition[TransitionKey.REWARD] == 0
        rows = []
        while True:
            before = transition[TransitionKey.OBSERVATION]
            transition = step_env_and_process_transition(
                env, transition, torch.zeros(4), env_processor, action_processor
            )
            rows.append((before, dict(transition)))  # LeRobot writes into the last one
            if transition[TransitionKey.DONE] or transition[TransitionKey.TRUNCATED]:
                break
        played.append((first, rows))
    return played


def step_for(checkpoints, **fields):
    settings = {"pretrained_path": str(checkpoints["dopamine"]), "gamma": GAMMA, "kappa": KAPPA}
    return ShapedRewardProcessorStep(**{**settings, **fields})


@pytest.mark.parametrize(("terminates_at", "limit"), [(6, 99), (None, 6)])
def test_lerobot_gets_the_shaped_reward_with_the_right_mask(checkpoints, terminates_at, limit):
    """F = kappa (gamma m Phi' - Phi); m = 0 at a success, Phi' kept at the time limit."""
    known = potentials(checkpoints["dopamine"])
    played = lerobot_loop(Film(terminates_at), step_for(checkpoints), limit, episodes=3)
    for phi, (first, rows) in zip(known, played, strict=True):
        assert first["potential"] == pytest.approx(phi[0], abs=1e-6)
        found = np.array([after[TransitionKey.REWARD] for _, after in rows])
        count = len(rows)
        mask = np.ones(count)
        base = np.zeros(count)
        if terminates_at:
            mask[-1], base[-1] = 0, 1
        expected = base + KAPPA * (GAMMA * mask * phi[1 : count + 1] - phi[:count])
        np.testing.assert_allclose(found, expected, atol=1e-6)
        last = rows[-1][1]
        assert last[TransitionKey.DONE] == bool(terminates_at)
        assert last[TransitionKey.TRUNCATED] == (not terminates_at)
        ledger = last[TransitionKey.INFO][EPISODE]
        tail = 0 if terminates_at else GAMMA**count * phi[count]
        assert ledger["shaping_sum"] == pytest.approx(KAPPA * (tail - phi[0]), abs=1e-5)
        assert ledger["true_success"] == bool(terminates_at)
        # What LeRobot keeps of a step holds no pictures twice.
        assert "frames" not in last[TransitionKey.INFO]


def test_lerobots_replay_buffer_takes_it(checkpoints):
    played = lerobot_loop(Film(4), step_for(checkpoints), 99, episodes=1)
    _, rows = played[0]
    buffer = ReplayBuffer(
        8,
        device="cpu",
        state_keys=["observation.state"],
        image_augmentation_function=torch.nn.Identity(),
    )
    for before, after in rows:
        buffer.add(
            state={"observation.state": before["observation.state"]},
            action=torch.zeros(1, 4),
            reward=after[TransitionKey.REWARD],
            next_state={"observation.state": after[TransitionKey.OBSERVATION]["observation.state"]},
            done=after[TransitionKey.DONE],
            truncated=after[TransitionKey.TRUNCATED],
        )
    expected = [after[TransitionKey.REWARD] for _, after in rows]
    torch.testing.assert_close(buffer.rewards[:4], torch.tensor(expected))
    assert buffer.dones[:4].tolist() == [False, False, False, True]


def test_the_step_stands_behind_the_time_limit_and_before_batching(checkpoints):
    step, plain = step_for(checkpoints), DataProcessorPipeline([])
    limit, device = TimeLimitProcessorStep(3), DeviceProcessorStep(device="cpu")
    pipeline = insert_shaped_reward(DataProcessorPipeline([limit, device]), step)
    assert list(pipeline.steps) == [limit, step, device]
    assert list(insert_shaped_reward(plain, step).steps) == [step]


def test_a_pipeline_with_the_step_is_saved_and_loaded_by_lerobot(checkpoints, tmp_path):
    DataProcessorPipeline([step_for(checkpoints)], name="env").save_pretrained(tmp_path)
    loaded = DataProcessorPipeline.from_pretrained(tmp_path, config_filename="env.json")
    assert loaded.steps[0].get_config() == step_for(checkpoints).get_config()


def test_a_detector_pays_and_ends_in_place_of_the_environment(checkpoints):
    """Threshold 0.5 over 3 frames on an untuned detector; the mask follows its verdict."""
    step = step_for(checkpoints, success_path=str(checkpoints["success"]))
    model = rewards.load(checkpoints["success"])
    fires = [
        int(np.argmax(model.calibration.detector.episode(s) if model.calibration else done(s)))
        for s in [model.score_episode(e).success for e in open_dataset(TINY)]
    ]
    phi = potentials(checkpoints["dopamine"])
    played = lerobot_loop(Film(None), step, 30, episodes=3)
    assert any(fires), "the fixture's detector fires somewhere"
    for k, (_, rows) in enumerate(played):
        if 0 < fires[k] <= 30:
            assert len(rows) == fires[k]
            last = rows[-1][1]
            assert last[TransitionKey.DONE]
            expected = 1 - KAPPA * phi[k][len(rows) - 1]
            assert last[TransitionKey.REWARD] == pytest.approx(expected, abs=1e-6)


def done(success):
    high = success >= 0.5
    return np.r_[False, False, high[2:] & high[1:-1] & high[:-2]]


def test_wrong_settings_are_refused(checkpoints):
    with pytest.raises(ConfigError, match="learner's own discount"):
        ShapedRewardProcessorStep(pretrained_path=str(checkpoints["dopamine"]))
    with pytest.raises(ConfigError, match="potentail"):
        step_for(checkpoints, mode="potentail")
    with pytest.raises(ConfigError, match="success detector"):
        step_for(checkpoints, pretrained_path=str(checkpoints["success"]))
    with pytest.raises(ConfigError, match="'dopamine'; train a detector"):
        step_for(checkpoints, success_path=str(checkpoints["dopamine"]))
    with pytest.raises(ConfigError, match="progress"):
        step_for(checkpoints, mode="oracle")
    step = step_for(checkpoints)
    batch = {f"observation.images.{v}": torch.zeros(2, 3, 8, 8) for v in VIEWS}
    with pytest.raises(ConfigError, match="one environment, got 2"):
        step({TransitionKey.OBSERVATION: batch, TransitionKey.INFO: {}})


def test_the_gymnasium_wrapper_agrees_with_the_step(checkpoints):
    """Two doors to one computation: LearnedReward around pixels, and the pipeline step."""
    model = rewards.load(checkpoints["dopamine"])
    scorer = StreamScorer(model, 1)
    env = LearnedReward(
        PixelFrames(Film(6)), MODES["potential"], gamma=GAMMA, kappa=KAPPA, scorer=scorer
    )
    env.reset()
    wrapped = [env.step(np.zeros(4))[1] for _ in range(6)]
    _, rows = lerobot_loop(Film(6), step_for(checkpoints), 99, episodes=1)[0]
    np.testing.assert_allclose(wrapped, [a[TransitionKey.REWARD] for _, a in rows], atol=1e-6)


def test_an_environment_without_pixels_says_so():
    class Blind(Film):
        def seen(self):
            return {"agent_pos": np.zeros(3)}

    env = PixelFrames(Blind())
    env.reset()
    with pytest.raises(EnvError, match="holds no `pixels`"):
        env.frames()
