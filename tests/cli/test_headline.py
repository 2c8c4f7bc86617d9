"""`er benchmark headline` on a task of the suite: every condition, resuming, errors, tables."""

import json
import shutil

import pytest

from embodied_reward.cli import main
from embodied_reward.cli.headline import run
from embodied_reward.cli.headline.config import CONDITIONS
from embodied_reward.cli.headline.report import draw, overall_table, task_table
from embodied_reward.cli.headline.summary import summarise

TASK = "embodied_reward/SweepToGoal-Gripper-v0"
TINY = (
    f"--tasks={TASK}",
    "--seeds=0",
    "--rollouts=4",
    "--horizon=30",
    "--size=32",
    "--negatives=2",
    "--unseen=2",
    "--reward_steps=2",
    "--reward_model.pairs=20",
    "--policy.net_arch=16,16",
    "--policy.batch_size=16",
    "--policy.bc_steps=40",
    "--policy.gradient_steps=1",
    "--policy.learning_starts=10",
    "--policy.actor_starts=20",
    "--imitate_every=2",
    "--eval_every=2",
    "--eval_episodes=2",
    "--final_episodes=3",
)


def headline(folder, *more):
    return main(["benchmark", "headline", *TINY, f"--output_dir={folder}", *more])


def in_this_process(jobs, count, on_poll):
    """Stands in for processes, each of which would import everything anew."""
    for job in jobs:
        job.work(*job.arguments)
        on_poll([job.name])
    return {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("headline") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "run_jobs", in_this_process)
        assert headline(folder) == 0
    return folder


@pytest.fixture
def copied(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "run_jobs", in_this_process)
    return shutil.copytree(finished, tmp_path / "out", symlinks=True)


def result(folder, condition):
    name = TASK.replace("/", "-")
    return json.loads((folder / "cells" / f"{name}_seed0_{condition}.json").read_text())


def test_every_condition_spends_its_rollouts_and_says_what_it_cost(finished):
    for condition in CONDITIONS:
        found = result(finished, condition)
        spent = 0 if condition == "none" else 4
        assert (found["condition"], found["rollouts"]) == (condition, spent)
        # The reward model's two negatives are rollouts too.
        own = spent - 2 if CONDITIONS[condition].scored else spent
        assert len(found["own_success"]) == own
        assert own <= found["decisions"] <= own * 30
        assert [p["rollouts"] for p in found["curve"]] == list(range(spent - own, spent + 1, 2))
        assert found["final"]["episodes"] == 3
        assert found["wall_seconds"] > 0
        assert found["cpu_seconds"] > 0
        assert found["versions"]["torch"]
    assert set(result(finished, "learned")["reward"]["unseen"]) >= {"spearman", "mae"}
    assert "reward" not in result(finished, "oracle")
    assert 0 <= result(finished, "oracle")["potential"]["failed_highest"] <= 1
    assert "potential" not in result(finished, "success")


def test_one_changed_setting_of_the_learner_leaves_the_recipe_alone(finished):
    policy = json.loads((finished / "settings.json").read_text())["policy"]
    assert (policy["gradient_steps"], policy["batch_size"]) == (1, 16)  # as given
    assert (policy["residual_bound"], policy["gamma"], policy["bc_weight"]) == (1.0, 0.97, 0.0)


def test_all_conditions_start_from_one_clone(finished):
    # Self-imitation clones without a residual, so its first weights are others.
    first = {c: result(finished, c)["curve"][0]["success"] for c in CONDITIONS}
    assert len({v for c, v in first.items() if c != "self_imitation"}) == 1


def test_writes_results_table_and_picture(finished):
    tree = json.loads((finished / "results.json").read_text())
    assert [c["condition"] for c in tree["cells"]] == list(CONDITIONS)
    assert tree["settings"]["rollouts"] == 4
    assert tree["summary"]["tasks"][TASK].keys() == CONDITIONS.keys()
    assert (finished / "results.png").read_bytes().startswith(b"\x89PNG")
    table = (finished / "table.md").read_text()
    assert all(condition.label in table for condition in CONDITIONS.values())


def test_goes_on_where_it_was_stopped_with_the_same_numbers(copied, monkeypatch, capsys):
    path = copied / "cells" / f"{TASK.replace('/', '-')}_seed0_learned.json"
    before = json.loads(path.read_text())
    path.unlink()
    ran = []

    def once(jobs, count, on_poll):
        ran.extend(job.name.rsplit("_", 1)[1] for job in jobs)
        return in_this_process(jobs, count, on_poll)

    monkeypatch.setattr(run, "run_jobs", once)
    # A half-written run of a killed cell is thrown away, not continued.
    (copied / "runs" / path.stem / "metrics.jsonl").write_text('{"step": 0, "episode/length"')
    assert headline(copied) == 0
    assert ran == ["learned"]
    after = json.loads(path.read_text())
    for key in ("wall_seconds", "cpu_seconds"):
        del before[key], after[key]
    assert after == before


def test_an_interrupted_study_says_how_to_continue(copied, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_jobs", interrupted)
    assert headline(copied) == 130
    assert f"er benchmark headline --output_dir={copied}" in capsys.readouterr().out


def test_a_failed_cell_is_named_and_makes_the_status_1(copied, monkeypatch, capsys):
    monkeypatch.setattr(run, "run_jobs", lambda *_: {"some_cell": "out of luck"})
    assert headline(copied) == 1
    assert "failed: some_cell: out of luck" in capsys.readouterr().err


def test_takes_over_the_cells_of_an_earlier_study(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "run_jobs", lambda jobs, *_: dict.fromkeys([j.name for j in jobs], ""))
    known = f"--known={finished / 'results.json'}"
    assert headline(tmp_path / "new", known) == 0
    assert result(tmp_path / "new", "oracle") == result(finished, "oracle")
    # Their numbers would not be comparable under other settings.
    assert headline(tmp_path / "other", known, "--kappa=2") == 2


def test_other_settings_in_the_same_folder_are_refused(copied, capsys):
    assert headline(copied, "--horizon=31") == 2
    assert "holds cells with horizon=30, now 31" in capsys.readouterr().err
    # What is run may change, how it is run may not.
    assert headline(copied, "--conditions=oracle,none", "--jobs=2") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--tasks=drawer-opn-v3", "unknown environment 'metaworld/drawer-opn-v3'"),
        ("--conditions=lerned", "unknown condition 'lerned'; did you mean 'learned'"),
        ("--seeds=0,0", "nothing twice"),
        ("--rollouts=2", "--rollouts must be at least 3"),
        ("--policy.type=ppo", "--policy.type=ppo is not SAC"),
        ("--known=nowhere.json", "'nowhere.json' cannot be read"),
        ("--eval_every=0", "--eval_every must be at least 1"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    kept = [w for w in TINY if not w.startswith((words.split("=")[0] + "=", "--policy."))]
    argv = ["benchmark", "headline", *kept, f"--output_dir={tmp_path / 'out'}", words]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / "cells").exists()


def made_up(task, seed, condition, final, curve=()):
    points = [{"rollouts": x, "success": y} for x, y in curve]
    cost = {"rollouts": 150, "decisions": 1000, "wall_seconds": 60.0, "cpu_seconds": 30.0}
    who = {"task": task, "seed": seed, "condition": condition}
    return who | cost | {"final": {"success": final}, "curve": points}


def test_conditions_are_compared_on_the_scenes_they_share():
    rows = [
        made_up("easy", 0, "success", 1.0),
        made_up("easy", 1, "success", 0.8),
        made_up("hard", 0, "success", 0.0),
        made_up("easy", 0, "oracle", 1.0),
        made_up("easy", 1, "oracle", 1.0),
        made_up("hard", 0, "learned", 0.5),
    ]
    overall = summarise(rows)["overall"]
    # The oracle ran on the easy task only, where success alone has 0.9, not 0.6.
    assert overall["oracle"]["success_only_iqm"] == pytest.approx(0.9)
    assert overall["oracle"]["improvement"] == pytest.approx(0.75)
    assert overall["learned"]["success_only_iqm"] == 0.0
    assert overall["learned"]["improvement"] == 1.0
    assert overall["learned"]["interval"] is None  # a single run
    assert overall["success"]["improvement"] == 0.5


def test_a_condition_without_common_scenes_has_no_comparison():
    rows = [made_up("easy", 0, "success", 1.0), made_up("easy", 1, "oracle", 1.0)]
    assert summarise(rows)["overall"]["oracle"]["improvement"] is None
    assert "| - | - |" in overall_table(summarise(rows))


def test_the_curve_holds_the_points_that_all_seeds_have():
    rows = [
        made_up("t", 0, "success", 1.0, [(0, 0.2), (25, 0.4), (50, 1.0)]),
        made_up("t", 1, "success", 0.6, [(0, 0.0), (25, 0.2)]),
    ]
    found = summarise(rows)["tasks"]["t"]["success"]
    assert [(p["rollouts"], p["mean"]) for p in found["curve"]] == [
        (0, pytest.approx(0.1)),
        (25, pytest.approx(0.3)),
    ]
    assert found["mean"] == pytest.approx(0.8)
    assert found["interval"] == [0.6, 1.0]
    # The curve's mean leaves the start out: (.4 + 1) / 2 and .2.
    line = "| t | success only | 0.80 [0.60, 1.00] | 1.00 0.60 | 0.45 |"
    assert line in task_table(summarise(rows))
    assert len(draw(summarise(rows)).axes[0].lines) == 1


@pytest.mark.slow
def test_two_jobs_give_the_same_numbers(finished, tmp_path):
    assert headline(tmp_path, "--conditions=success,none", "--jobs=2") == 0
    for condition in ("success", "none"):
        now, then = result(tmp_path, condition), result(finished, condition)
        assert (now["curve"], now["final"]) == (then["curve"], then["final"])
