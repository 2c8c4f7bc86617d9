"""Likelihood of a text: the true caption wins, every item has its own loss, padding is masked."""

import numpy as np
import pytest
import torch

from embodied_reward.errors import ConfigError
from embodied_reward.scoring import ScoreRequest, ScoringCore, Status
from embodied_reward.scoring.language.config import read_item_scorer
from embodied_reward.scoring.language.likelihood import LikelihoodConfig, LikelihoodScorer

from .conftest import CAPTIONS, DESCRIBE, captioned


def scorer_of(reader, **more):
    return LikelihoodScorer(reader, LikelihoodConfig(query=DESCRIBE, **more))


def ask(scorer, images, texts, mode="tolerance"):
    with ScoringCore(mode=mode) as core:
        core.register(scorer)
        request = ScoreRequest(
            scorers="likelihood",
            frames=np.stack(images),
            texts=tuple(texts),
            text=np.arange(len(texts)),
        )
        return core.score(request)["likelihood"]


@pytest.mark.slow
def test_the_true_caption_wins_over_all_others(captioner):
    cases = captioned(60, seed=1)
    images = [image for image, _ in cases for _ in CAPTIONS]
    batch = ask(scorer_of(captioner), images, CAPTIONS * len(cases))
    scores = batch.require_ok().reshape(len(cases), len(CAPTIONS))
    truth = np.array([CAPTIONS.index(text) for _, text in cases])
    right = (scores.argmax(1) == truth).mean()
    print(f"the true caption of {len(CAPTIONS)}: {right:.2f} of {len(cases)} pictures")
    assert right >= 0.95
    # What the picture adds: the same captions on grey pictures win by chance only.
    grey = [np.full_like(image, 128) for image, _ in cases[:20] for _ in CAPTIONS]
    blind = ask(scorer_of(captioner), grey, CAPTIONS * 20).score.reshape(20, -1)
    assert (blind.argmax(1) == truth[:20]).mean() < 0.4


def test_every_item_has_the_loss_that_it_has_alone(captioner):
    cases = captioned(7, seed=2)
    texts = ["a", "a red disk", *CAPTIONS[:4], CAPTIONS[4] + " on the left on the left"]
    batch = ask(scorer_of(captioner, batch=7), [image for image, _ in cases], texts)
    losses = []
    for (image, _), text, mean in zip(cases, texts, batch.score, strict=True):
        prompt = captioner.processor.image_token + " " + DESCRIBE
        inputs = captioner.processor(images=image, text=prompt, return_tensors="pt")
        answer = captioner.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        ids = torch.cat([inputs["input_ids"], answer], 1)
        labels = ids.clone()
        labels[:, : inputs["input_ids"].shape[1]] = -100
        with torch.no_grad():
            loss = captioner.model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=inputs["pixel_values"],
                labels=labels,
            ).loss
        assert mean == pytest.approx(-float(loss), abs=1e-5)
        assert mean == pytest.approx(ask(scorer_of(captioner), [image], [text]).score[0], abs=1e-6)
        losses.append(float(loss))
    # The mean of the batch would be one number for all of them.
    assert np.ptp(losses) > 0.1


def test_a_batch_gives_every_item_its_own_number_to_1e_6(captioner):
    cases = captioned(8, seed=3)
    texts = [" ".join(["a red disk on the left"] * (1 + k % 4)) for k in range(8)]
    images = [image for image, _ in cases]
    together = ask(scorer_of(captioner, batch=8), images, texts).dims
    alone = ask(scorer_of(captioner, batch=1), images, texts).dims
    np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-6)
    strict = [ask(scorer_of(captioner), images[:k], texts[:k], "strict").score for k in (8, 3)]
    assert strict[0][:3].tobytes() == strict[1].tobytes()


def test_the_sum_counts_every_token_and_the_mean_does_not(captioner):
    image, text = captioned(1, seed=4)[0]
    mean, total = (
        ask(scorer_of(captioner, reduction=how), [image], [text]) for how in ("mean", "sum")
    )
    assert total.score[0] == pytest.approx(mean.score[0] * len(text.split()), rel=1e-5)
    assert mean.dim_names == ("mean_log_p", "sum_log_p")
    twice = text + " " + text
    longer = [ask(scorer_of(captioner, reduction=how), [image], [twice]) for how in ("mean", "sum")]
    assert longer[1].score[0] < total.score[0]
    assert abs(longer[0].score[0]) < abs(longer[1].score[0])


def test_items_without_text_or_frame_fail_alone(captioner):
    image, text = captioned(1, seed=5)[0]
    with ScoringCore() as core:
        core.register(scorer_of(captioner))
        request = ScoreRequest(
            scorers="likelihood",
            frames=image[None],
            index=[0, 0],
            offsets=[0, 1, 2, 2],
            texts=text,
            text=[0, -1, 0],
        )
        batch = core.score(request)["likelihood"]
    assert batch.status.tolist() == [Status.OK, Status.BAD_INPUT, Status.BAD_INPUT]
    assert np.isnan(batch.score[1:]).all()


def test_saved_and_read_again_it_scores_the_same(captioner, tmp_path):
    scorer = scorer_of(captioner, name="likelihood")
    scorer.save(tmp_path / "caption")
    again = read_item_scorer(tmp_path / "caption")
    image, text = captioned(1, seed=6)[0]
    assert ask(scorer, [image], [text]) == ask(again, [image], [text])
    with pytest.raises(ConfigError, match="reduction"):
        scorer_of(captioner, reduction="median")
