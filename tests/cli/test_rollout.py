"""`er rollout` on the simulated arm, which waits for its commands here."""

import json
import shutil
import subprocess

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from lerobot.datasets import LeRobotDataset
from safetensors.numpy import load_file
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward import config as configs
from embodied_reward.cli import main
from embodied_reward.cli.rollout import RolloutConfig
from embodied_reward.cli.rollout_crew import Person, SessionEnd
from embodied_reward.cli.rollout_display import (
    RerunDisplay,
    TerminalDisplay,
    line_of,
    make_display,
)
from embodied_reward.cli.rollout_record import Moment
from embodied_reward.data import open_dataset
from embodied_reward.data.journal import Journal
from embodied_reward.envs.robots.arm import State
from embodied_reward.errors import MissingDependencyError
from embodied_reward.policies.checkpoint import PolicySpec, load_policy, save_policy
from embodied_reward.policies.config import SACConfig
from embodied_reward.policies.sac import build_sac
from embodied_reward.rewards import DopamineConfig, DopamineModel, load

ARM = ("--robot.realtime=false", "--robot.size=24", "--limits=er_sim_arm", "--threads=1")
LEARNER = (
    "--learner.net_arch=16,16",
    "--learner.batch_size=16",
    "--learner.bc_steps=60",
    "--learner.gradient_steps=1",
    "--learner.learning_starts=5",
    "--learner.actor_starts=10",
)


def rollout(mode, root, *more):
    return main(["rollout", *ARM, f"--mode={mode}", f"--output_dir={root}", *more])


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    root = tmp_path_factory.mktemp("record") / "run"
    assert rollout("record", root, "--episodes=2") == 0
    return root / "episodes_00"


@pytest.fixture(scope="module")
def reward(demos, tmp_path_factory):
    """A reward model with random weights: its scores are arbitrary, but deterministic."""
    torch.manual_seed(0)
    model = DopamineModel.create(DopamineConfig(views=("front", "side")))
    model.set_references(model.dataset(list(open_dataset(demos))))
    folder = tmp_path_factory.mktemp("reward") / "pretrained_model"
    folder.mkdir()
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def tuned(demos, reward, tmp_path_factory):
    """`er train-policy` on a robot: the words of its simulator runs, --policy.* included."""
    root = tmp_path_factory.mktemp("finetune") / "run"
    more = (f"--dataset.root={demos}", f"--reward.path={reward}", "--steps=40", "--horizon=15")
    words = [word.replace("--learner.", "--policy.") for word in LEARNER]
    argv = ["--robot.type=er_sim_arm", *ARM, *words, *more, "--eval.n_episodes=2"]
    assert main(["train-policy", *argv, f"--output_dir={root}"]) == 0
    return root


def test_demonstrations_are_successes_with_the_actions_that_were_executed(demos):
    episodes = open_dataset(demos)
    assert list(episodes.successes) == [True, True]
    assert episodes.views == ("front", "side")
    episode = episodes[0]
    assert episode.task == "touch the ball"
    assert episode.fps == 10
    assert episode.success_frames[-5:].all()  # the goal is seen for a while
    assert not episode.success_frames[:-6].any()
    assert np.abs(episode.action).max() <= 1
    # The pose moves as the actions say, one control period behind.
    limits = configs.load_preset("robot", "er_sim_arm")["motors"]
    stride = np.array([m["velocity"] for m in limits.values()]) / 10
    told = episode.state[0] + np.cumsum(episode.action * stride, axis=0)
    np.testing.assert_allclose(episode.state[1:], told[:-1], atol=4.0)
    report = json.loads((demos.parent / "rollout.json").read_text())
    assert report["safety"]["holds"] == []
    assert report["safety"]["commands_sent"] == sum(episodes.lengths)


def test_one_seed_records_the_same_numbers(demos, tmp_path):
    assert rollout("record", tmp_path / "again", "--episodes=2") == 0
    again = open_dataset(tmp_path / "again" / "episodes_00")
    for a, b in zip(open_dataset(demos), again, strict=True):
        np.testing.assert_array_equal(a.action, b.action)
        np.testing.assert_array_equal(a.views["front"], b.views["front"])


def test_fine_tuning_is_the_simulators_trainer(tuned, demos, reward):
    rows = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
    assert {r["step"] for r in rows if "eval/success_rate" in r} >= {0}
    assert any(key.startswith("episode/") for row in rows for key in row)  # the reward's accounts
    assert load_policy(tuned).spec.meta["env"]["id"] == "robot/er_sim_arm"
    assert json.loads((tuned / "rollout.json").read_text())["evaluations"]["0"]
    # Everything that moved was recorded, with what the reward model said of it.
    episodes = open_dataset(tuned / "episodes_00")
    features = json.loads((tuned / "episodes_00" / "meta" / "info.json").read_text())["features"]
    assert {"learned.potential", "learned.uncertainty", "intervention"} <= set(features)
    assert len(episodes) >= 6
    phi = load(reward).score_episode(episodes[0]).potential
    assert _column(tuned / "episodes_00", "learned.potential", 0) == pytest.approx(phi, abs=1e-4)


def _column(root, name, episode):
    import pyarrow.parquet as pq

    files = sorted((root / "data").rglob("*.parquet"))
    rows = [row for f in files for row in pq.read_table(f).to_pylist()]
    values = [r[name] for r in rows if r["episode_index"] == episode]
    return np.ravel(values).astype(float)


def test_a_fine_tuned_policy_is_evaluated(tuned, reward, tmp_path, capsys):
    more = (f"--policy.path={tuned}", f"--reward.path={reward}", "--episodes=2", "--horizon=10")
    assert rollout("evaluate", tmp_path / "run", *more) == 0
    assert "of 2 succeeded" in capsys.readouterr().out
    report = json.loads((tmp_path / "run" / "rollout.json").read_text())
    assert len(report["success"]) == 2
    assert len(open_dataset(tmp_path / "run" / "episodes_00")) == 2


def test_fine_tuning_continues_from_its_checkpoint(tuned, tmp_path, capsys):
    root = tmp_path / "run"
    shutil.copytree(tuned, root, symlinks=True)  # `last` and `best` are links
    argv = [f"--output_dir={root}", "--resume=true", "--steps=60"]
    assert main(["train-policy", *argv]) == 0  # the run's own file says that it has a robot
    assert "resuming at decision" in capsys.readouterr().out
    assert len(open_dataset(root / "episodes_01")) >= 2  # the first recording is left alone


def test_fine_tuning_starts_from_a_given_policy(tuned, demos, tmp_path):
    root, more = tmp_path / "run", (f"--dataset.root={demos}", "--reward.mode=success")
    words = (f"--policy.path={tuned}", "--steps=1", "--horizon=5", "--eval.n_episodes=1")
    assert rollout("finetune", root, *LEARNER, *more, *words) == 0
    start = load_file(tuned / "checkpoints" / "best" / "pretrained_model" / "model.safetensors")
    first = sorted((root / "checkpoints").glob("0*"))[0]
    now = load_file(first / "pretrained_model" / "model.safetensors")
    assert start.keys() == now.keys()
    for key in start:
        np.testing.assert_array_equal(start[key], now[key])


def test_a_policy_knows_which_motors_it_moves(tmp_path, capsys):
    few = "--motors=shoulder_pan.pos,elbow_flex.pos"
    words = ("--only_success=false", "--episodes=1", "--horizon=6")
    assert rollout("record", tmp_path / "demos", few, *words) == 0
    demos = tmp_path / "demos" / "episodes_00"
    assert open_dataset(demos)[0].action.shape[1] == 2
    facts = json.loads((demos / "recording.json").read_text())["episodes"][0]
    assert facts["success"] is False
    start = ("--policy.path=" + str(tmp_path / "small"), "--episodes=1", "--horizon=3")
    network = build_sac(SACConfig(net_arch=(8, 8)), DummyVecEnv([lambda: Flat(2)]), seed=0)
    for motors, root in ((["shoulder_pan.pos", "elbow_flex.pos"], "right"), ([], "wrong")):
        spec = PolicySpec(
            config=SACConfig(net_arch=(8, 8)),
            observation={"agent_pos": (6,), "environment_state": (3,)},
            low=-np.ones(2, np.float32),
            high=np.ones(2, np.float32),
            meta={"motors": motors},
        )
        shutil.rmtree(tmp_path / "small", ignore_errors=True)
        save_policy(network, spec, tmp_path / "small")
        assert rollout("evaluate", tmp_path / root, *start) == (0 if motors else 2)
    assert "moves 2 motors" in capsys.readouterr().err
    assert open_dataset(tmp_path / "right" / "episodes_00")[0].action.shape == (3, 2)


def test_lerobots_own_loader_opens_what_was_recorded(demos):
    dataset = LeRobotDataset("local/demos", root=demos)
    assert len(dataset) == sum(open_dataset(demos).lengths)
    row = dataset[len(dataset) - 1]
    assert row["observation.images.front"].shape == (3, 24, 24)
    assert row["task"] == "touch the ball"
    assert row["next.success"]
    assert set(dataset.meta.features) >= {"intervention", "action", "observation.state"}


def test_a_fault_ends_the_episode_and_not_the_run(tuned, tmp_path, capsys):
    more = (f"--policy.path={tuned}", "--episodes=3", "--horizon=10")
    fault = "--robot.faults.plan=encoder_nan:elbow_flex@1.5"
    assert rollout("evaluate", tmp_path / "run", *more, fault) == 0
    assert "encoder of 'elbow_flex.pos' says nan" in capsys.readouterr().out
    folder = tmp_path / "run"
    assert len(json.loads((folder / "rollout.json").read_text())["safety"]["holds"]) == 1
    facts = json.loads((folder / "episodes_00" / "recording.json").read_text())["episodes"]
    assert sum("held" in fact for fact in facts) == 1


def test_a_dry_run_moves_nothing(tmp_path, tuned):
    more = (f"--policy.path={tuned}", "--episodes=1", "--horizon=4", "--dry_run=true")
    assert rollout("evaluate", tmp_path / "run", *more) == 0
    state = open_dataset(tmp_path / "run" / "episodes_00")[0].state
    np.testing.assert_allclose(state, np.tile(state[0], (4, 1)), atol=1e-6)


REFUSED = [
    ((), "limits"),
    (("--limits=nothing",), "no preset 'nothing'"),
    (("--limits=er_sim_arm", "--mode=play"), "unknown --mode"),
    (("--limits=er_sim_arm", "--mode=evaluate"), "--policy.path"),
    (("--limits=er_sim_arm", "--mode=finetune"), "does not begin with random motions"),
    (("--limits=er_sim_arm", "--mode=finetune", "--learner.type=ppo"), "learner.type=sac"),
    (("--limits=er_sim_arm", "--robot.type=er_sim_am"), "did you mean 'er_sim_arm'"),
    (("--limits=er_sim_arm", "--robot.task=walk"), "reach"),
    (("--limits=er_sim_arm", "--deadman=true", "--unattended=true"), "dead-man"),
    (("--limits=er_sim_arm", "--packages=no_such_package"), "no_such_package"),
    (("--limits=er_sim_arm", "--display=tv"), "--display"),
]


@pytest.mark.parametrize(("argv", "says"), REFUSED)
def test_what_cannot_run_is_refused_before_anything_moves(argv, says, tmp_path, capsys):
    root = tmp_path / "run"
    words = ["rollout", "--robot.realtime=false", *argv, f"--output_dir={root}"]
    assert main(words) == 2
    assert says in capsys.readouterr().err
    assert not root.exists() or not any(root.iterdir())


def test_limits_of_another_robot_are_refused(tmp_path, capsys):
    tree = configs.load_preset("robot", "er_sim_arm")
    tree["motors"]["wrist.pos"] = tree["motors"].pop("wrist_roll.pos")
    tree["workspace"] = "none"
    (tmp_path / "limits.yaml").write_text(yaml.safe_dump(tree))
    words = ["--robot.realtime=false", f"--limits={tmp_path / 'limits.yaml'}"]
    assert main(["rollout", *words, f"--output_dir={tmp_path / 'run'}"]) == 2
    assert "wrist_roll.pos" in capsys.readouterr().err


def test_another_rate_than_the_demonstrations_or_the_policys_is_refused(
    demos, tuned, tmp_path, capsys
):
    tree = configs.load_preset("robot", "er_sim_arm")
    tree["rate_hz"] = 5
    (tmp_path / "slow.yaml").write_text(yaml.safe_dump(tree))
    slow, start = f"--limits={tmp_path / 'slow.yaml'}", f"--policy.path={tuned}"
    refused = {
        "give --limits with rate_hz: 10, or demonstrations of 5": (
            "finetune",
            f"--dataset.root={demos}",
        ),
        "decides 10 times per second, and the limits have rate_hz: 5": ("evaluate", start),
    }
    for says, (mode, word) in refused.items():
        assert rollout(mode, tmp_path / mode, slow, word, "--reward.mode=success") == 2
        assert says in capsys.readouterr().err


def test_rows_of_a_killed_episode_are_kept_by_the_next_run(tmp_path):
    recording = tmp_path / "run" / "episodes_00.recording"
    first = tmp_path / "first"
    assert rollout("record", first, "--episodes=1") == 0
    # What a killed run leaves: its recording, and the rows of the episode that was running.
    episode = open_dataset(first / "episodes_00")[0]
    journal = Journal(recording)
    for t in range(4):
        journal.add(
            {
                "observation.images.front": episode.views["front"][t],
                "observation.images.side": episode.views["side"][t],
                "observation.state": episode.state[t],
                "observation.environment_state": episode.environment_state[t],
                "progress": episode.progress[t],
                "action": episode.action[t],
                "next.reward": 0.0,
                "next.done": False,
                "next.success": False,
                "intervention": False,
            }
        )
    shutil.copy(first / "config.yaml", tmp_path / "run")
    (recording / "unfinished" / "row-000004.npz").write_bytes(b"half a row")
    assert rollout("record", tmp_path / "run", "--episodes=2", "--resume=true") == 0
    episodes = open_dataset(tmp_path / "run" / "episodes_00")
    assert episodes.lengths[0] == 4
    np.testing.assert_array_equal(episodes[0].action, episode.action[:4])
    facts = json.loads((tmp_path / "run" / "episodes_00" / "recording.json").read_text())
    assert facts["episodes"][0]["unfinished"]


class Flat(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (9,), np.float32)

    def __init__(self, motors):
        self.action_space = gym.spaces.Box(-1, 1, (motors,), np.float32)


class Arm:
    """Plays the keys that a person presses, one poll each."""

    def __init__(self, script, held=None):
        self.script, self.held, self.released, self.enabled = list(script), held, 0, [True]

    def observe(self):
        keys = self.script.pop(0) if self.script else "q"
        enabled = self.enabled.pop(0) if len(self.enabled) > 1 else self.enabled[0]
        return State(None, self.held, np.zeros(0), np.zeros(0), keys=keys, enabled=enabled)

    def rest(self):
        pass

    def reset_scene(self, seed):
        self.held = None  # a simulator resets its guard too
        return True

    def release(self):
        self.released, self.held = self.released + 1, None
        return True


def test_a_person_releases_a_hold_labels_and_leaves():
    said, arm = [], Arm(["", "x", "", "\n", ""], held="the stop key was pressed")
    person = Person(None, said.append)
    person.prepare(arm, 0)
    assert arm.released == 1
    assert "the stop key was pressed" in said[0]
    person.begin()
    person.take("s")
    assert person.label is True
    person.take("f")
    assert person.label is False
    person.take("x")
    assert person.discarded
    person.take("q")
    with pytest.raises(SessionEnd):
        person.prepare(Arm([""]), 1)


def test_after_q_nothing_moves_and_nothing_is_released():
    finished = []
    arm = Arm(["", "", "q"], held="the stop key was pressed")
    person = Person(None, lambda line: None, lambda: finished.append(True))
    with pytest.raises(SessionEnd):
        person.prepare(arm, 0)
    assert finished == [True]
    assert arm.released == 0
    assert arm.held


def test_a_person_is_asked_for_the_dead_man_key():
    said, arm = [], Arm(["", "", "", ""])
    arm.enabled = [False, False, False, True, True]
    person = Person(None, said.append)
    person.prepare(arm, 0)
    assert "dead-man" in said[0]


def test_the_live_line_shows_what_is_known():
    info = {"is_success": True, "intervention": True, "held": "x"}
    scores = {"learned.potential": 0.5, "learned.success": 0.25, "learned.uncertainty": 0.1}
    line = line_of(Moment(2, 7, {}, scores, info))
    for part in ("episode 2", "[##########          ] 0.50", "success 0.25", "OPERATOR", "HELD"):
        assert part in line
    assert "Φ" not in line_of(Moment(0, 0, {}, {}, {"is_success": False}))


def test_rerun_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="rerun-sdk"):
        make_display("rerun", print)
    make_display("auto", print)


def test_rerun_gets_pictures_curves_and_holds(tmp_path):
    rerun = pytest.importorskip("rerun")
    show = RerunDisplay(spawn=False)
    rerun.save(tmp_path / "shown.rrd")
    for t in range(3):
        info = {"is_success": False, "intervention": t == 1, "held": "stuck" if t == 2 else None}
        frames = {"front": np.full((8, 8, 3), t, np.uint8)}
        show(Moment(0, t, frames, {"learned.potential": 0.25 * t}, info))
    rerun.disconnect()
    words = ["rerun", "rrd", "print", "-vvv", str(tmp_path / "shown.rrd")]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    for path in ("cameras/front", "scores/potential", "scores/intervention", "log", "stuck"):
        assert path in printed


def test_without_windows_rerun_is_not_chosen(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(make_display("auto", print), TerminalDisplay)


def test_help_names_every_field(capsys):
    assert main(["rollout", "--help"]) == 0
    out = capsys.readouterr().out
    for key in configs.known_keys(RolloutConfig):
        if key.startswith("teleop"):
            continue  # depends on what is plugged in
        assert f"--{key}" in out, key
