"""`er collect` with the real simulator and LeRobot's real writer."""

import json
import signal

import numpy as np
import pytest

from embodied_reward.cli import main
from embodied_reward.data import EpisodeRecorder, check_dataset, open_dataset

TASK = "metaworld/drawer-open-v3"
QUICK = ("--env.action_repeat=4", "--size=24", "--views=corner2,gripperPOV")


def collect(root, *more, episodes=2, quality="mixed", horizon=12):
    argv = [f"--env.id={TASK}", f"--env.horizon={horizon}", f"--quality={quality}", *QUICK]
    return main(["collect", *argv, f"--episodes={episodes}", f"--output_dir={root}", *more])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    root = tmp_path_factory.mktemp("collect") / "reference"
    assert collect(root, episodes=3) == 0
    return root


def assert_equal(first, second):
    first, second = open_dataset(first), open_dataset(second)
    assert first.lengths == second.lengths
    for a, b in zip(first, second, strict=True):
        for view in first.views:
            np.testing.assert_array_equal(a.views[view], b.views[view])
        for name in ("state", "environment_state", "action", "progress", "success_frames"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_dataset_of_a_task(reference):
    episodes = open_dataset(reference)
    check_dataset(episodes)
    assert (episodes.fps, episodes.views) == (20.0, ("corner2", "gripperPOV"))
    assert episodes.lengths == (12, 12, 12)
    assert "drawer" in episodes.tasks[0]
    for name, width in (("state", 4), ("environment_state", 35), ("action", 4)):
        assert getattr(episodes[0], name).shape == (12, width)
    assert episodes.features["next.reward"]["dtype"] == "float32"
    facts = json.loads((reference / "recording.json").read_text())
    assert facts["info"]["env"]["id"] == TASK
    assert len(facts["episodes"]) == 3
    assert all(fact["behaviour"] for fact in facts["episodes"])
    assert len({e.state.tobytes() for e in episodes}) == 3


def test_same_seed_same_dataset(reference, tmp_path):
    assert collect(tmp_path / "again", episodes=3) == 0
    assert_equal(tmp_path / "again", reference)
    assert collect(tmp_path / "other", "--seed=1", episodes=1) == 0
    other, first = open_dataset(tmp_path / "other")[0], open_dataset(reference)[0]
    assert not np.array_equal(other.environment_state, first.environment_state)


def save_then_interrupt(self, *args, save=EpisodeRecorder.save_episode, **kwargs):
    index = save(self, *args, **kwargs)
    signal.raise_signal(signal.SIGINT)
    return index


def test_interrupt_and_resume_equals_an_uninterrupted_run(reference, tmp_path, monkeypatch, capsys):
    root = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(EpisodeRecorder, "save_episode", save_then_interrupt)
        assert collect(root, episodes=3) == 130
    assert f"er collect --resume=true --output_dir={root}" in capsys.readouterr().out
    assert not root.exists()
    assert main(["collect", "--resume=true", f"--output_dir={root}"]) == 0
    assert_equal(root, reference)


def test_resume_with_another_seed_is_refused(tmp_path, monkeypatch, capsys):
    root = tmp_path / "d"
    with monkeypatch.context() as patch:
        patch.setattr(EpisodeRecorder, "save_episode", save_then_interrupt)
        assert collect(root) == 130
    assert collect(root, "--resume=true", "--seed=5") == 2
    assert "'info.seed' was 0, now 5" in capsys.readouterr().err
    assert collect(root) == 2
    assert "--resume=true" in capsys.readouterr().err


def test_resume_of_a_finished_dataset(reference, capsys):
    assert collect(reference, episodes=3) == 2
    assert "already exists; choose another path" in capsys.readouterr().err
    assert collect(reference, "--resume=true", episodes=3) == 0
    assert "is complete: 3 episodes" in capsys.readouterr().out
    assert collect(reference, "--resume=true", episodes=5) == 2
    assert "collect the other 2 into another --output_dir" in capsys.readouterr().err


def test_experts_succeed_and_show_the_goal_for_several_frames(tmp_path, capsys):
    # Resuming what was never begun begins it.
    root = tmp_path / "experts"
    assert collect(root, "--resume=true", quality="expert", horizon=60) == 0
    assert "100% successful" in capsys.readouterr().out
    for episode in open_dataset(root):
        assert episode.success
        assert len(episode) < 60
        first = int(np.argmax(episode.success_frames))
        assert len(episode) - first == 5
        assert episode.progress[first] == 1.0
        assert episode.progress[0] < 0.35


def test_an_expert_without_time_is_named(tmp_path, capsys):
    assert collect(tmp_path / "d", quality="expert", horizon=2) == 2
    error = capsys.readouterr().err
    assert "'expert' failed 20 times on episode 0" in error
    assert "--env.horizon" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--env.id=metaworld/drawer-opn-v3"], "metaworld/drawer-open-v3"),
        (["--views=corner2,conrer3"], "has no view 'conrer3'"),
        (["--quality=exprt"], "did you mean 'expert'"),
        (["--episodes=0"], "--episodes must be at least 1"),
        (["--hold_steps=-1"], "--hold_steps must be at least 0"),
        (["--episode=3"], "unknown configuration key '--episode'; did you mean 'episodes'"),
        (["--resume=true"], "--resume=true needs --output_dir=PATH"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(tmp_path, monkeypatch, capsys, argv, words):
    monkeypatch.chdir(tmp_path)
    assert main(["collect", *argv]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "preset", ["demos", "held-out", "smoke", "smoke-unseen", "quickstart", "quickstart-unseen"]
)
def test_presets_are_valid(preset):
    from embodied_reward import config
    from embodied_reward.cli.collect import CollectConfig

    assert config.parse(CollectConfig, [f"--preset={preset}"], verb="collect").episodes > 0


def test_help(capsys):
    assert main(["collect", "--help"]) == 0
    out = capsys.readouterr().out
    for words in ("--env.id=metaworld/drawer-open-v3", "--hold_steps=5", "presets: demos"):
        assert words in out


def test_a_lead_in_varies_the_start_and_is_not_recorded(tmp_path):
    assert collect(tmp_path / "fixed", quality="stop", episodes=3) == 0
    assert collect(tmp_path / "varied", "--lead_in=12", quality="stop", episodes=3) == 0
    fixed, varied = open_dataset(tmp_path / "fixed"), open_dataset(tmp_path / "varied")
    hands = np.stack([e.state[0, :3] for e in varied])
    assert np.ptp([e.state[0, :3] for e in fixed], axis=0).max() < 0.01
    assert np.ptp(hands, axis=0).max() > 0.05
    assert varied.lengths == (12, 12, 12)
    for a, b in zip(fixed, varied, strict=True):  # the same scenes
        np.testing.assert_allclose(a.environment_state[0, -3:], b.environment_state[0, -3:])


def test_a_negative_lead_in_is_refused(tmp_path, capsys):
    assert collect(tmp_path / "x", "--lead_in=-1") == 2
    assert "--lead_in must be at least 0" in capsys.readouterr().err
