"""A scorer as a reward function: TRL's contract, None for failures, advantages of the others."""

import numpy as np
import pytest
import torch
from PIL import Image

from embodied_reward.errors import QueueFullError, RequestError, ScoringError
from embodied_reward.scoring import ItemScorer, Output, ScorerCard, ScoringCore, Status
from embodied_reward.scoring.trl import group_advantages, reward_function

from .conftest import pictures, scorer_of

BROKEN = 255


class Brightness(ItemScorer):
    """Mean of an item's pixels and the length of its text; fails on pictures that are all white."""

    def __init__(self, name="brightness"):
        self.card = ScorerCard(name=name, type="test")
        self.seen = []

    def evaluate(self, items):
        self.seen += zip([len(f) for f in items.frames], items.texts, strict=True)
        means = [np.mean([f.mean() for f in frames]) if frames else 0 for frames in items.frames]
        bad = [not frames or m == BROKEN for frames, m in zip(items.frames, means, strict=True)]
        return Output(
            score=torch.tensor([np.nan if b else m / 255 for b, m in zip(bad, means, strict=True)]),
            status=np.where(bad, Status.SCORER_ERROR, Status.OK).astype(np.uint8),
        )


@pytest.fixture
def scorer():
    return Brightness()


@pytest.fixture
def core(scorer):
    with ScoringCore() as core:
        core.register(scorer)
        yield core


def test_one_failure_in_a_group_leaves_the_others_exactly_their_advantages(core):
    n = 24
    frames = pictures(n) // 2 + 60
    frames[5] = BROKEN
    prompts = ["the same prompt"] * n
    rewards = reward_function(core, "brightness")(
        prompts=prompts, completions=[""] * n, images=list(frames)
    )
    assert rewards[5] is None
    assert all(isinstance(r, float) for i, r in enumerate(rewards) if i != 5)
    others = [r for i, r in enumerate(rewards) if i != 5]
    expected = group_advantages(others, 23)
    found = np.delete(group_advantages(rewards, n), 5)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert group_advantages(rewards, n)[5] == 0.0


def test_zero_for_a_failure_is_wrong_and_by_how_much():
    rng = np.random.default_rng(0)
    good = rng.normal(0.80, 0.05, 24)
    right = group_advantages([None, *good[1:]], 24)[1:]
    wrong = group_advantages([0.0, *good[1:]], 24)[1:]
    assert np.std(right) / np.std(wrong) > 3
    below = right < 0
    assert (wrong[below] > 0).mean() > 0.3  # below the mean, and yet encouraged
    assert np.abs(right - wrong).max() > 0.5


def test_advantages_are_those_of_trl():
    rewards = torch.tensor(np.random.default_rng(1).normal(size=(3, 8)))
    trl = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    flat = rewards.flatten().numpy()
    np.testing.assert_allclose(group_advantages(flat, 8), trl.flatten(), atol=1e-12)
    centred = rewards - rewards.mean(1, keepdim=True)
    np.testing.assert_allclose(group_advantages(flat, 8, scale=False), centred.flatten())
    assert group_advantages([None, None, 3.0, None], 4).tolist() == [0, 0, 0, 0]
    with pytest.raises(RequestError, match="groups of 3"):
        group_advantages([1.0, 2.0], 3)


def test_standard_and_conversational_formats_and_columns(core, scorer):
    frame = pictures(1)[0]
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "draw a cup"}]},
    ]
    function = reward_function(core, "brightness")
    function(prompts=["a mug", conversation], completions=["", ""], images=[frame, [frame, frame]])
    assert sorted(scorer.seen) == [(1, "a mug"), (2, "draw a cup")]
    scorer.seen.clear()
    said = [[{"role": "assistant", "content": "a red mug"}]]
    reward_function(core, "brightness", text="completions", images="image")(
        prompts=["what is it?"], completions=said, image=[frame], solution=["mug"]
    )
    reward_function(core, "brightness", text="solution", images="completions")(
        prompts=["draw"], completions=[frame], solution=["mug"]
    )
    reward_function(core, "brightness", text="")(prompts=["draw"], completions=[""], images=[frame])
    assert scorer.seen == [(1, "a red mug"), (1, "mug"), (1, None)]


def test_pictures_may_be_pillow_arrays_or_files(core, tmp_path):
    frame = pictures(1, seed=3)[0]
    Image.fromarray(frame).save(tmp_path / "a.png")
    images = [frame, Image.fromarray(frame), str(tmp_path / "a.png"), np.stack([frame, frame])]
    rewards = reward_function(core, "brightness")(
        prompts=["x"] * 4, completions=[""] * 4, images=images
    )
    assert rewards == pytest.approx([frame.mean() / 255] * 4)


def test_the_trainer_can_log_it(core):
    frames = [*pictures(3), np.full((4, 4, 3), BROKEN, np.uint8)]
    logged = {}
    function = reward_function(core, "brightness", name="light")
    assert function.__name__ == "light"
    assert reward_function(core, "brightness").__name__ == "brightness"
    function(
        prompts=["x"] * 4,
        completions=[""] * 4,
        images=frames,
        completion_ids=[[1]] * 4,
        trainer_state=object(),
        log_metric=logged.__setitem__,
    )
    assert logged == {"light/failed": 0.25}


def test_when_nothing_can_be_scored_training_stops(core):
    white = np.full((4, 4, 3), BROKEN, np.uint8)
    call = {"prompts": ["x"] * 2, "completions": [""] * 2}
    with pytest.raises(ScoringError):
        reward_function(core, "brightness")(**call, images=[white, None])
    strict = reward_function(core, "brightness", on_failure="raise")
    with pytest.raises(ScoringError, match="item 1"):
        strict(**call, images=[pictures(1)[0], white])
    with pytest.raises(RequestError, match="on_failure"):
        reward_function(core, "brightness", on_failure="zero")


def test_mistakes_in_columns_are_named(core):
    call = {"prompts": ["x"], "completions": [""]}
    with pytest.raises(RequestError, match="no column 'images'.*pics"):
        reward_function(core, "brightness")(**call, pics=[pictures(1)[0]])
    with pytest.raises(RequestError, match="uint8"):
        reward_function(core, "brightness")(**call, images=[np.zeros((4, 4, 3), np.float32)])
    with pytest.raises(RequestError, match="2 entries for 1"):
        reward_function(core, "brightness")(**call, images=[None, None])


def test_a_full_queue_is_waited_for_but_not_for_ever(core):
    class Busy:
        def __init__(self, times):
            self.times = times

        def score(self, request):
            self.times -= 1
            if self.times >= 0:
                raise QueueFullError("full", retry_after=0.02)
            return core.score(request)

    call = {"prompts": ["x"], "completions": [""], "images": [pictures(1)[0]]}
    assert len(reward_function(Busy(3), "brightness")(**call)) == 1
    with pytest.raises(QueueFullError):
        reward_function(Busy(10**6), "brightness", timeout=0.2)(**call)


def test_scorers_with_a_trunk_work_too(trunk):
    with ScoringCore() as core:
        core.register(scorer_of(trunk))
        rewards = reward_function(core, "mean", text="")(
            prompts=["x"] * 3, completions=[""] * 3, images=list(pictures(3))
        )
    assert len(set(rewards)) == 3
