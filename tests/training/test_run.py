import json
import math
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from embodied_reward import config as configs
from embodied_reward.errors import ConfigError
from embodied_reward.training.reward_loop import OptimizationConfig
from embodied_reward.training.run import (
    Tracker,
    default_output_dir,
    prepare_output_dir,
    save_config,
)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run(folder, start, stop):
    tracker = Tracker(folder, step=start)
    for step in range(start, stop):
        tracker.log(step, {"loss": 1.0 / (step + 1), "time/seconds": step * 0.37})
    tracker.close()


def test_rows_hold_numbers_of_the_seed_and_no_wall_time(tmp_path):
    run(tmp_path, 0, 3)
    assert rows(tmp_path) == [{"step": s, "loss": 1.0 / (s + 1)} for s in range(3)]


def test_two_equal_runs_write_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run(tmp_path / name, 0, 5)
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (
        tmp_path / "b" / "metrics.jsonl"
    ).read_bytes()


@pytest.mark.parametrize("resumed_from", [0, 1, 4, 7, 10])
def test_a_resumed_run_writes_the_bytes_of_the_uninterrupted_one(tmp_path, resumed_from):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    run(tmp_path / "whole", 0, 10)
    # The killed run got to step 7; its newest checkpoint may be older.
    run(tmp_path / "killed", 0, 7)
    run(tmp_path / "killed", min(resumed_from, 7), 10)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_a_row_torn_by_a_kill_is_dropped(tmp_path):
    run(tmp_path, 0, 3)
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 3, "lo')
    run(tmp_path, 3, 5)
    assert [r["step"] for r in rows(tmp_path)] == [0, 1, 2, 3, 4]


def test_numbers_that_json_cannot_say_become_null(tmp_path):
    tracker = Tracker(tmp_path)
    tracker.log(0, {"a": math.nan, "b": math.inf, "c": 2})
    tracker.close()
    assert rows(tmp_path) == [{"step": 0, "a": None, "b": None, "c": 2.0}]


def test_tensorboard_has_every_scalar_and_forgets_purged_steps(tmp_path):
    run(tmp_path, 0, 6)
    # TensorBoard orders files by the second in their names, then by a counter, as text.
    time.sleep(1.0)
    run(tmp_path, 3, 5)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "time/seconds"}
    assert [e.step for e in events.Scalars("loss")] == [0, 1, 2, 3, 4]


class TestFolders:
    def test_a_used_folder_is_refused_unless_resuming(self, tmp_path):
        (tmp_path / "config.yaml").write_text("steps: 1\n")
        with pytest.raises(ConfigError, match="already exists; add --resume=true"):
            prepare_output_dir(tmp_path, resume=False)
        assert prepare_output_dir(tmp_path, resume=True) == tmp_path

    def test_an_empty_or_new_folder_is_taken(self, tmp_path):
        assert prepare_output_dir(tmp_path, resume=False) == tmp_path
        assert prepare_output_dir(tmp_path / "a" / "b", resume=False).is_dir()

    def test_a_file_is_refused(self, tmp_path):
        (tmp_path / "x").write_text("")
        with pytest.raises(ConfigError, match="is a file; choose another --output_dir"):
            prepare_output_dir(tmp_path / "x", resume=True)

    def test_the_default_name_is_one_folder_below_its_verb(self):
        path = default_output_dir("train-reward", "metaworld/drawer-open-v3")
        assert path.parent.as_posix() == "outputs/train-reward"
        assert path.name.endswith("_metaworld-drawer-open-v3")

    def test_the_saved_config_reads_back(self, tmp_path):
        config = OptimizationConfig(steps=3, lr=0.5)
        save_config(config, tmp_path)
        tree = configs.read_yaml(tmp_path / "config.yaml")
        assert configs.decode(OptimizationConfig, tree) == config
        assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]
