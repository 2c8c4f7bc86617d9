"""From judgements to batches."""

import numpy as np
import pytest
import torch

from embodied_reward.errors import DatasetError
from embodied_reward.scoring.heads import TIE
from embodied_reward.scoring.preferences import Judgement, Preferences
from embodied_reward.scoring.status import Role
from embodied_reward.training.scorer_data import (
    Batches,
    FeatureTable,
    PictureTable,
    candidate_sets,
    split_judgements,
)
from embodied_reward.training.scorer_loop import shares
from embodied_reward.vision.encoders import ConvEncoder


def table(clips, frames=1):
    rows = torch.arange(clips * frames, dtype=torch.float32)[:, None].repeat(1, 3)
    return FeatureTable(rows, np.arange(0, clips * frames + 1, frames))


def preferences(rows):
    clips = 1 + max(c for r in rows for c in r.items)
    data = Preferences("p.jsonl", rows=rows)
    data.clips = [None] * clips
    return data


def test_a_batch_holds_what_the_rows_say():
    rows = [Judgement((0, 1), (0,), user=3), Judgement((4, 2, 3), (1,), reference=5)]
    batches = Batches(table(6, frames=2), candidate_sets(rows, 1, 0))
    choices = batches.choices(np.array([1, 0]))
    assert choices.offsets.tolist() == [0, 3, 5]
    assert choices.best.tolist() == [[1], [0]]
    assert choices.row.tolist() == [1, 0]
    items = choices.items
    assert items.features[:, 0].tolist()[:4] == [8, 9, 10, 11]  # clip 4, then the reference 5
    assert items.role.tolist()[:4] == [Role.CURRENT] * 2 + [Role.REFERENCE] * 2
    assert items.user.tolist() == [-1, -1, -1, 3, 3]
    assert items.group.tolist() == [0, 0, 0, 1, 1]


def test_a_batch_is_a_function_of_seed_and_step():
    rows = [Judgement((2 * i, 2 * i + 1), (0,)) for i in range(50)]
    batches = Batches(table(100), candidate_sets(rows, 1, 0))
    one, same = batches.batch(8, 5, 3), batches.batch(8, 5, 3)
    assert torch.equal(one.items.features, same.items.features)
    assert len(set(one.row.tolist())) == 8
    assert one.row.tolist() != batches.batch(8, 5, 4).row.tolist()
    assert one.row.tolist() != batches.batch(8, 6, 3).row.tolist()
    assert len(batches.batch(80, 5, 3)) == 50


def test_labels_become_pairs_across_prompts_that_keep_their_own():
    rows = [Judgement((i,), (), i % 2, prompt=f"task {i % 3}") for i in range(12)]
    sets = candidate_sets(rows, 1, 0, tie_share=0.3)
    wins = [s for s in sets if s.best == (0,)]
    assert all(r.label == (1, 0)[k] for s in wins for k, (_, r) in enumerate(s.members))
    assert any(s.members[0][1].prompt != s.members[1][1].prompt for s in wins)
    assert all(r.label == 1 for s in sets if s.best == (TIE,) for _, r in s.members)
    texts = {f"task {k}": k for k in range(3)}
    items = Batches(table(12), sets, texts, torch.zeros(3, 4)).choices(np.arange(len(sets))).items
    assert items.text.tolist() == [c % 3 for s in sets for c, _ in s.members]
    assert len({tuple(c for c, _ in s.members) for s in sets}) == len(sets)
    with pytest.raises(DatasetError, match="all 3 labels are 1"):
        candidate_sets([Judgement((i,), (), 1) for i in range(3)], 1, 0)


def test_labels_weigh_as_much_as_there_are_labels():
    rows = [Judgement((i,), (), i % 2) for i in range(40)]
    rows += [Judgement((40 + 2 * i, 41 + 2 * i), (0,)) for i in range(40)]
    batches = Batches(table(120), candidate_sets(rows, 1, 0))
    made = [batches.sets[i].from_labels for s in range(60) for i in batches.batch(8, 0, s).row]
    assert np.mean(made) == pytest.approx(0.5, abs=0.12)


def test_no_clip_is_on_both_sides_of_the_split():
    rng = np.random.default_rng(0)
    rows = [
        Judgement(tuple((4 * (i // 3) + rng.permutation(4)[:2]).tolist()), (0,)) for i in range(60)
    ]
    training, validation, shared = split_judgements(preferences(rows), 0.2, 0)
    assert not shared
    clips = [{c for r in part for c in r.items} for part in (training, validation)]
    assert not clips[0] & clips[1]
    assert 9 <= len(validation) <= 15
    assert len(training) + len(validation) == 60
    assert split_judgements(preferences(rows), 0.2, 0)[1] == validation
    assert split_judgements(preferences(rows), 0.0, 0)[1] == []
    chain = [Judgement((i, i + 1), (0,)) for i in range(20)]
    training, validation, shared = split_judgements(preferences(chain), 0.2, 0)
    assert shared
    assert len(validation) == 4


def test_pictures_are_encoded_once_with_gradients_and_alike_in_parts():
    encoder = ConvEncoder("conv64", 4, 32)
    frames = torch.randint(0, 256, (600, 32, 32, 3), dtype=torch.uint8)
    pictures = PictureTable(frames, np.arange(601), encoder)
    rows = np.array([3, 3, 0])
    found = pictures.features(rows)
    assert found.requires_grad
    assert torch.equal(found[0], found[1])
    with torch.no_grad():
        assert torch.allclose(pictures.features(np.arange(600))[rows], found, atol=1e-5)


def test_shares_of_margins():
    found = shares(torch.tensor([1.0, -1.0, 0.0, 2.0]), torch.tensor([0, 0, 1, 2]), 100)
    assert found["accuracy"] == 0.625
    assert found["top1"] == pytest.approx(1 / 3)
    few = shares(torch.ones(1000), torch.arange(1000), 10)
    assert few["low"] < 0.75  # ten independent pairs, however often they are counted
    assert np.isnan(shares(torch.zeros(0), torch.zeros(0), 3)["accuracy"])
