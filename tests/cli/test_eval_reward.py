import json
import math

import av
import numpy as np
import pytest

from embodied_reward.cli import main
from embodied_reward.cli.eval_reward import pick_shown, row_names
from embodied_reward.data import EpisodeRecorder, open_dataset
from embodied_reward.metrics.catalogue import METRICS, groups
from embodied_reward.rewards import DopamineConfig, DopamineModel, TccConfig, TccModel, load
from embodied_reward.scoring import ScoringCore
from embodied_reward.training.reward_loop import OptimizationConfig, RewardTrainer
from embodied_reward.training.seeding import seed_everything, set_threads
from embodied_reward.vision.encoders import EncoderConfig

VIEWS = ("front", "wrist")


def rows(index, success):
    """A bright square crosses the picture; failures turn back half-way."""
    length = 30 + 3 * index
    path = np.linspace(0, 1, length)
    progress = path if success else np.minimum(path, 1 - path) * 0.9
    rng = np.random.default_rng(index)
    for t, y in enumerate(progress):
        picture = rng.integers(20, 40, (24, 24, 3), np.uint8)
        x = int(y * 18)
        picture[9:15, x : x + 6] = (250, 200, 40)
        yield {
            "observation.images.front": picture,
            "observation.images.wrist": picture[::-1].copy(),
            "observation.state": np.zeros(2, np.float32),
            "action": np.zeros(2, np.float32),
            "next.reward": 0.0,
            "next.done": t == length - 1,
            # The row's outcome is the next observation.
            "next.success": success and t >= length - 4,
            "progress": np.float32(y),
        }


def record(root, outcomes):
    with EpisodeRecorder(root, fps=10, robot_type="toy") as recorder:
        for index, success in enumerate(outcomes):
            for row in rows(index, success):
                recorder.add(row)
            recorder.save_episode("cross the table")
        return recorder.finish()


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    return record(tmp_path_factory.mktemp("data") / "demos", [True, True, True])


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    return record(tmp_path_factory.mktemp("data") / "unseen", [True, False, True, False])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, demos):
    """A real dopamine model, trained for seconds."""
    set_threads(1)
    seed_everything(0)
    folder = tmp_path_factory.mktemp("run")
    encoder = EncoderConfig(image_size=32)
    config = DopamineConfig(views=VIEWS, encoder=encoder, dim=32, hidden=64, pairs=120)
    optimization = OptimizationConfig(steps=50, batch_size=3, warmup=5, val_freq=50)
    episodes = list(open_dataset(demos))
    model = DopamineModel.create(config, task="cross the table")
    trainer = RewardTrainer(model, episodes, [], config=optimization, folder=folder, seed=0)
    trainer.run(progress=False)
    return folder


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, run_folder, demos, unseen):
    out = tmp_path_factory.mktemp("eval") / "out"
    argv = [
        "eval-reward",
        f"--reward_model.path={run_folder}",
        f"--dataset.root={unseen}",
        f"--reference.root={demos}",
        f"--output_dir={out}",
        "--videos=2",
        "--resamples=40",
    ]
    assert main(argv) == 0
    return argv, out


def test_writes_every_promised_file(evaluated):
    _, out = evaluated
    files = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert files == {
        "metrics.json",
        "summary.png",
        *(f"episodes/episode_{i:03d}.{kind}" for i in (0, 1) for kind in ("png", "mp4")),
    }
    with av.open(str(out / "episodes" / "episode_000.mp4")) as container:
        assert container.streams.video[0].frames == 30


def test_metrics_stand_beside_every_baseline(evaluated):
    _, out = evaluated
    report = json.loads((out / "metrics.json").read_text())
    assert set(report["baselines"]) == {
        "constant up", "constant down", "constant", "random", "time index", "pixel distance",
    }  # fmt: skip
    for metrics in report["baselines"].values():
        assert set(metrics) == set(report["metrics"])
    assert len(report["episodes"]) == 4
    assert [e["success"] for e in report["episodes"]] == [True, False, True, False]
    # Fifty steps on three demonstrations: enough to know the toy, not to be exact.
    assert report["metrics"]["voc_min"]["value"] > 0.4
    assert report["metrics"]["spearman"]["value"] > 0.8
    assert report["metrics"]["success_auc"]["value"] == 1.0
    assert report["metrics"]["kendall_tau_a"]["value"] is None
    assert {"anchored", "incremental", "view front", "view wrist"} <= set(report["readings"])
    chosen = report["readings"]["anchored"]
    assert chosen["mae"] == report["metrics"]["mae"]["value"]


def test_every_undefined_metric_has_a_reason_in_the_report(evaluated):
    _, out = evaluated
    report = json.loads((out / "metrics.json").read_text())
    for name, metrics in {"model": report["metrics"], **report["baselines"]}.items():
        for metric, entry in metrics.items():
            assert (entry["value"] is None) == ("reason" in entry), (name, metric)
    # The model can be judged on everything but given qualities.
    undefined = {m for m, entry in report["metrics"].items() if entry["value"] is None}
    assert undefined == {"kendall_tau_a"}
    assert sum(sum(row.values()) for row in report["outcomes"].values()) == 4


def test_robustness_of_model_and_baselines_is_reported(evaluated):
    _, out = evaluated
    report = json.loads((out / "metrics.json").read_text())
    found = report["robustness"]
    assert set(found) == {"model", *report["baselines"]}
    assert found["model"]["episodes"] == 4
    assert found["model"]["whole"]["mae"] == report["metrics"]["mae"]["value"]
    for view in VIEWS:
        less = found["model"]["without"][view]
        assert 0 < less["mae"] != found["model"]["whole"]["mae"]
        assert found["pixel distance"]["without"][view]["mae"] > 0
    assert 0 < found["model"]["stability"]["view jitter"] < 0.3
    assert found["constant"]["stability"] == {"view jitter": 0.0, "lighting": 0.0}


def test_verbose_prints_every_group_within_100_columns(evaluated, tmp_path, capsys, monkeypatch):
    argv, _ = evaluated
    monkeypatch.setenv("COLUMNS", "100")
    more = ["--videos=0", "--resamples=0", "--verbose=true", "--robustness=2"]
    assert main([*argv[:4], f"--output_dir={tmp_path}", *more]) == 0
    lines = capsys.readouterr().out.splitlines()
    for group, names in groups().items():
        titles = [METRICS[name].title for name in names]
        heads = [line for line in lines if line.startswith(f"{group} ")]
        assert any(all(title in head for title in titles) for head in heads), group
    assert "- tau_a: fewer than two episodes have a given quality" in lines
    assert any(line.startswith("without front") for line in lines)
    tables = [line for line in lines if line[:8] in ("model   ", "pixel di", "without ")]
    assert len(tables) > 12
    assert max(map(len, tables)) <= 100


def test_same_seed_writes_the_same_bytes(evaluated, tmp_path):
    argv, out = evaluated
    again = [a for a in argv if not a.startswith("--output_dir")] + [f"--output_dir={tmp_path}"]
    assert main(again) == 0
    assert (tmp_path / "metrics.json").read_bytes() == (out / "metrics.json").read_bytes()


def test_prints_table_warnings_and_paths_in_80_columns(evaluated, tmp_path, capsys, monkeypatch):
    argv, _ = evaluated
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*argv[:3], f"--output_dir={tmp_path}", "--videos=0", "--resamples=0"]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    model = next(line.split() for line in lines if line.startswith("model "))
    assert len(model) == 11
    baselines = ("constant up", "constant down", "random", "time index", "pixel distance")
    for name in baselines:
        assert any(line.startswith(name) for line in lines), name
    assert "the evaluated episodes' own successes" in printed
    assert "No baseline beats the model" in printed or "WARNING: '" in printed
    assert str(tmp_path / "metrics.json") in printed
    assert "er train-policy" in printed
    assert all(len(line) <= 80 for line in lines if line[:8] in ("model   ", "pixel di"))


def test_failures_are_shown_too():
    assert pick_shown([True, True, True, False, False], 3) == [0, 1, 3]
    assert pick_shown([True, True], 5) == [0, 1]
    assert pick_shown([False, None, False], 2) == [0, 1]
    assert pick_shown([True], 0) == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--reward_model.path=RUN"),
        (["--reward_model.path=/nowhere"], "no reward model at '/nowhere'"),
        (["--reward_model.pth=x"], "did you mean 'reward_model.path'"),
    ],
)
def test_bad_input_is_one_line(argv, message, capsys):
    assert main(["eval-reward", *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("er eval-reward: ")
    assert message in error
    assert error.count("\n") == 1


def test_missing_views_stop_before_anything_is_written(run_folder, tmp_path, capsys):
    with EpisodeRecorder(tmp_path / "other", fps=10, robot_type="toy") as recorder:
        for row in rows(0, True):
            row.pop("observation.images.wrist")
            recorder.add(row)
        recorder.save_episode("cross")
        root = recorder.finish()
    out = tmp_path / "out"
    argv = [f"--reward_model.path={run_folder}", f"--dataset.root={root}", f"--output_dir={out}"]
    assert main(["eval-reward", *argv]) == 2
    assert "no view 'wrist'" in capsys.readouterr().err
    assert not out.exists()


def test_unknown_numbers_become_null_not_nan(evaluated):
    _, out = evaluated

    def refuse(constant):
        raise AssertionError(constant)

    report = json.loads((out / "metrics.json").read_text(), parse_constant=refuse)
    low = report["metrics"]["mae"]["low"]
    assert math.isfinite(low)


@pytest.fixture(scope="module")
def one_eyed(tmp_path_factory, demos):
    """An untrained `tcc` that looks at one view, at another size, and has no success head."""
    seed_everything(0)
    encoder = EncoderConfig(image_size=48)
    config = TccConfig(views=("wrist",), encoder=encoder, dim=16, success_weight=0.0)
    model = TccModel.create(config, task="cross the table").eval()
    model.set_references(model.dataset(list(open_dataset(demos))))
    folder = tmp_path_factory.mktemp("one_eyed")
    model.save(folder)
    return folder


def test_other_models_stand_beside_the_model(evaluated, one_eyed, tmp_path, capsys, monkeypatch):
    argv, out = evaluated
    run = argv[1].partition("=")[2]
    monkeypatch.setenv("COLUMNS", "80")
    again = [a for a in argv if not a.startswith(("--output_dir", "--videos"))]
    again += [f"--output_dir={tmp_path}", "--videos=0", f"--compare={one_eyed},{run},{one_eyed}"]
    assert main(again) == 0
    report = json.loads((tmp_path / "metrics.json").read_text())
    before = json.loads((out / "metrics.json").read_text())
    for key in ("metrics", "baselines", "episodes", "beaten_by", "readings"):
        assert report[key] == before[key], key
    compared = report["compared"]
    assert set(compared) == {"tcc", "dopamine", "tcc 2"}
    assert compared["dopamine"]["metrics"] == report["metrics"]
    assert compared["tcc"]["reward_model"]["views"] == ["wrist"]
    assert compared["tcc"]["reward_model"]["path"] == str(one_eyed)
    # No success head: unknown, and neither filled with the potential nor a failed frame.
    assert compared["tcc"]["metrics"]["success_auc"]["value"] is None
    assert compared["tcc"]["metrics"]["frame_success_auc"]["value"] is None
    assert compared["tcc"]["metrics"]["mae"]["value"] > 0
    assert all(e["failed_frames"] == 0 for e in compared["tcc"]["episodes"])
    assert {b["baseline"] for b in compared["tcc"]["beaten_by"]} <= set(report["baselines"])
    lines = capsys.readouterr().out.splitlines()
    for name in ("model ", "tcc ", "dopamine ", "tcc 2 ", "pixel distance"):
        assert any(line.startswith(name) for line in lines), name
    assert f"tcc: {one_eyed}" in lines
    assert (tmp_path / "summary.png").stat().st_size > 10_000


def test_a_compared_model_must_find_its_views(run_folder, one_eyed, tmp_path, capsys):
    with EpisodeRecorder(tmp_path / "other", fps=10, robot_type="toy") as recorder:
        for row in rows(0, True):
            row.pop("observation.images.front")
            recorder.add(row)
        recorder.save_episode("cross")
        root = recorder.finish()
    argv = [f"--reward_model.path={one_eyed}", f"--dataset.root={root}"]
    assert main(["eval-reward", *argv, f"--compare={run_folder}"]) == 2
    assert "no view 'front'" in capsys.readouterr().err


def test_rows_are_named_by_type_and_numbered():
    assert row_names(["tcc", "model", "tcc", "tcc"]) == ["tcc", "model 2", "tcc 2", "tcc 3"]


def test_every_picture_is_encoded_once_for_all_models_and_readings(
    tmp_path, run_folder, unseen, monkeypatch
):
    """Two models of one encoder, each looking at every episode: the second finds it all there."""
    found, close = [], ScoringCore.close

    def counted(core):
        found.append(core.stats())
        close(core)

    monkeypatch.setattr(ScoringCore, "close", counted)
    argv = ["eval-reward", f"--reward_model.path={run_folder}", f"--compare={run_folder}"]
    argv += [f"--dataset.root={unseen}", "--resamples=20", "--videos=0", "--robustness=0"]
    cache = f"--cache.folder={tmp_path / 'features'}"
    for name in ("first", "again"):
        assert main([*argv, cache, f"--output_dir={tmp_path / name}"]) == 0
    first, again = found
    model = load(run_folder)
    pictures = {p.tobytes() for e in open_dataset(unseen) for v in VIEWS for p in e.views[v]}
    references = 2 * len(VIEWS) * len(model.reference_goal)
    assert 0 < first["trunk_images"] <= len(pictures) + references
    assert first["cache_hits"] >= len(pictures)
    assert again.get("trunk_images", 0) == 0
    a, b = (json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("first", "again"))
    assert a["metrics"] == b["metrics"] == b["compared"]["dopamine"]["metrics"]
