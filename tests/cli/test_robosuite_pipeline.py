"""From demonstrations to a policy on robosuite: the commands of `docs/robosuite.md`, shorter."""

import json

import pytest

from embodied_reward import cli


def er(verb, *arguments):
    assert cli.main([verb, *arguments]) == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("task", "horizon"), [("Lift", 50), ("Door", 100)])
def test_the_whole_road(tmp_path, capfd, task, horizon):
    env = [f"--env.id=robosuite/{task}", "--env.action_repeat=2", f"--env.horizon={horizon}"]
    demos, unseen, reward, policy = (tmp_path / name for name in ("demos", "unseen", "rm", "pi"))
    er("collect", *env, "--episodes=10", "--lead_in=8", f"--output_dir={demos}")
    mixed = ["--episodes=10", "--quality=mixed", "--seed=7"]
    er("collect", *env, *mixed, f"--output_dir={unseen}")
    short = ["--steps=40", "--val_freq=20", "--save_freq=20"]
    kind = "--reward_model.type=dopamine"
    er("train-reward", f"--dataset.root={demos}", kind, *short, f"--output_dir={reward}")
    model, data = f"--reward_model.path={reward}", f"--dataset.root={unseen}"
    er("eval-reward", model, data, f"--reference.root={demos}", f"--output_dir={tmp_path / 'q'}")
    metrics = json.loads((tmp_path / "q" / "metrics.json").read_text())["metrics"]
    # A constant or random potential orders nothing: both have 0.
    assert metrics["voc_min"]["value"] > 0.4
    learn = ["--policy.type=sac", "--steps=60", "--policy.actor_starts=40", "--eval.n_episodes=5"]
    paid = [f"--reward.path={reward}", "--reward.mode=potential", f"--dataset.root={demos}"]
    er("train-policy", *env, *learn, *paid, f"--output_dir={policy}")
    er("eval-policy", f"--policy.path={policy}", "--episodes=5", f"--output_dir={tmp_path / 'e'}")
    found = json.loads((tmp_path / "e" / "metrics.json").read_text())
    # The cloned start is kept where learning was too short to beat it; nobody wins by chance.
    assert found["eval/success_rate"] >= 0.2
    assert list((tmp_path / "e" / "videos").glob("*.mp4"))
    assert f"robosuite/{task}" in capfd.readouterr().out
