import json
import math

import numpy as np
import pytest
import torch

from embodied_reward.errors import DatasetError, NonFiniteError
from embodied_reward.rewards import DopamineModel
from embodied_reward.training.checkpoint import latest
from embodied_reward.training.reward_loop import (
    OptimizationConfig,
    RewardTrainer,
    learning_rate,
    split_episodes,
)
from tests.rewards.conftest import small_config, square_episode

QUICK = OptimizationConfig(
    steps=12, batch_size=2, warmup=2, val_freq=4, save_freq=5, log_freq=1, lr=2e-3
)


def trainer(folder, config=QUICK, seed=0):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    training, validation = split_episodes([square_episode(i) for i in range(5)], 0.2, seed)
    model = DopamineModel.create(small_config(pairs=60))
    return RewardTrainer(model, training, validation, config=config, folder=folder, seed=seed)


def weights(run):
    return {k: v.clone() for k, v in run.model.state_dict().items()}


def test_same_seed_same_metrics_and_weights(tmp_path):
    runs = [trainer(tmp_path / name) for name in ("a", "b")]
    for run in runs:
        run.run(progress=False)
    one, two = ((tmp_path / n / "metrics.jsonl").read_bytes() for n in ("a", "b"))
    assert one == two
    assert b"val/spearman" in one
    for a, b in zip(weights(runs[0]).values(), weights(runs[1]).values(), strict=True):
        assert torch.equal(a, b)
    other = trainer(tmp_path / "c", seed=1)
    other.run(progress=False)
    assert (tmp_path / "c" / "metrics.jsonl").read_bytes() != one


@pytest.mark.parametrize("killed_at", [3, 5, 7, 11])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, killed_at, monkeypatch):
    whole = trainer(tmp_path / "whole")
    whole.run(progress=False)
    broken = trainer(tmp_path / "broken")
    update = broken.update

    def dying():
        if broken.step == killed_at:
            raise RuntimeError("power cut")  # not KeyboardInterrupt: nothing may be saved
        return update()

    monkeypatch.setattr(broken, "update", dying)
    with pytest.raises(RuntimeError, match="power cut"):
        broken.run(progress=False)
    again = trainer(tmp_path / "broken")
    assert again.resume() is (killed_at >= 4)
    again.run(progress=False)
    for a, b in zip(weights(whole).values(), weights(again).values(), strict=True):
        assert torch.equal(a, b)
    one, two = ((tmp_path / n / "metrics.jsonl").read_text() for n in ("whole", "broken"))
    assert one == two


def test_ctrl_c_leaves_a_checkpoint_at_that_step(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    update = run.update

    def interrupted():
        if run.step == 6:
            raise KeyboardInterrupt
        return update()

    monkeypatch.setattr(run, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run(progress=False)
    again = trainer(tmp_path)
    assert again.resume()
    assert again.step == 6


def test_best_checkpoint_has_the_lowest_validation_loss(tmp_path):
    best = trainer(tmp_path).run(progress=False)
    rows = [json.loads(r) for r in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = {r["step"]: r["val/loss"] for r in rows if "val/loss" in r}
    assert int(best.name) == min(losses, key=losses.get)
    assert latest(tmp_path / "checkpoints").name == "00000012"


def test_a_non_finite_loss_changes_nothing(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    run.update()
    before = weights(run)
    loss = run.model.loss

    def broken(batch):
        value, logs = loss(batch)
        return value * math.nan, {**logs, "loss": math.nan}

    monkeypatch.setattr(run.model, "loss", broken)
    with pytest.raises(NonFiniteError, match=r"step 1: loss nan .* left unchanged"):
        run.update()
    for a, b in zip(before.values(), weights(run).values(), strict=True):
        assert torch.equal(a, b)


def test_split_is_seeded_and_disjoint():
    episodes = [square_episode(i, length=8) for i in range(10)]
    training, validation = split_episodes(episodes, 0.2, 3)
    assert (len(training), len(validation)) == (8, 2)
    assert {e.index for e in training}.isdisjoint(e.index for e in validation)
    assert [e.index for e in split_episodes(episodes, 0.2, 3)[1]] == [e.index for e in validation]
    assert split_episodes(episodes[:1], 0.2, 3)[1] == []
    with pytest.raises(DatasetError, match="has no episodes"):
        split_episodes([], 0.2, 0)


def test_learning_rate_warms_up_and_decays():
    config = OptimizationConfig(steps=100, warmup=10, lr=1.0)
    rates = np.array([learning_rate(s, config) for s in range(101)])
    assert rates.argmax() in (9, 10)
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.05)
    assert (np.diff(rates[10:]) < 0).all()
