"""P(yes): it judges, it is antisymmetric, it says when it does not know, it ignores neighbours."""

import json

import numpy as np
import pytest
import torch

from embodied_reward.errors import CheckpointError, ConfigError
from embodied_reward.scoring import Role, ScoreRequest, ScoringCore, Status
from embodied_reward.scoring.language.config import read_item_scorer
from embodied_reward.scoring.language.fit import fit_reader
from embodied_reward.scoring.language.reader import Turn
from embodied_reward.scoring.language.small import small_reader
from embodied_reward.scoring.language.yes_token import YesTokenConfig, YesTokenScorer

from .conftest import LARGER, disk_pairs

ROLES = np.array([Role.REFERENCE, Role.CURRENT], np.uint8)


def scorer_of(reader, **more):
    return YesTokenScorer(reader, YesTokenConfig(comparison=LARGER, prompt=LARGER, **more))


def compare(pairs, **more):
    """A request that compares every second picture with its first."""
    n = len(pairs)
    return ScoreRequest(
        scorers="yes_token",
        frames=np.stack([image for a, b, *_ in pairs for image in (a, b)]),
        offsets=np.arange(n + 1) * 2,
        role=np.tile(ROLES, n),
        **more,
    )


def score(scorer, request, mode="tolerance"):
    with ScoringCore(mode=mode) as core:
        core.register(scorer)
        return core.score(request)[scorer.card.name]


def auc(scores, labels):
    return float((scores[labels][:, None] > scores[~labels][None]).mean())


@pytest.mark.slow
def test_it_tells_which_disk_is_larger(judge):
    pairs = disk_pairs(500, seed=1)
    labels = np.array([larger for *_, larger in pairs])
    found = auc(score(scorer_of(judge), compare(pairs)).require_ok(), labels)
    assert found >= 0.95
    # Looking at the second picture alone goes a long way, so that is what must be beaten.
    area = np.array([(b[..., 0] > 100).sum() for _, b, _ in pairs])
    print(f"larger disk: AUC {found:.3f}, by the second picture's area {auc(area, labels):.2f}")
    assert found > auc(area, labels) + 0.05


def test_both_orders_add_up_to_one_only_because_of_the_debiasing(judge):
    pairs = disk_pairs(40, seed=2)
    swapped = [(b, a) for a, b, _ in pairs]
    there, back = (score(scorer_of(judge), compare(p)) for p in (pairs, swapped))
    np.testing.assert_allclose(there.dims[:, 0] + back.dims[:, 0], 1, atol=1e-6)
    np.testing.assert_allclose(there.score, -back.score, atol=1e-5)
    raw = [score(scorer_of(judge, debias=False), compare(p)) for p in (pairs, swapped)]
    assert np.abs(raw[0].dims[:, 0] + raw[1].dims[:, 0] - 1).max() > 1e-3


def test_the_columns_belong_together(judge):
    batch = score(scorer_of(judge, debias=False), compare(disk_pairs(12, seed=3)))
    probability, mass, margin = batch.dims.T
    assert batch.dim_names == ("probability", "mass", "margin")
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-margin)), rtol=1e-5)
    np.testing.assert_array_equal(batch.score, margin)
    assert ((mass > 0.5) & (mass <= 1 + 1e-6)).all()
    other = score(scorer_of(judge, debias=False, score="probability"), compare(disk_pairs(12, 3)))
    np.testing.assert_array_equal(other.score, probability)


def test_margin_is_the_log_ratio_of_the_models_own_probabilities(judge):
    pairs = disk_pairs(3, seed=4)
    batch = score(scorer_of(judge, debias=False), compare(pairs))
    yes, no = (judge.tokenizer.convert_tokens_to_ids(w) for w in ("yes", "no"))
    for (a, b, _), margin in zip(pairs, batch.score, strict=True):
        text = judge.processor.image_token * 2 + " " + LARGER
        inputs = judge.processor(images=[a, b], text=text, return_tensors="pt")
        with torch.no_grad():
            logits = judge.model(**inputs).logits[0, -1]
        assert margin == pytest.approx(float(logits[yes] - logits[no]), abs=1e-4)


@pytest.mark.parametrize("mode", ["tolerance", "strict"])
def test_the_slot_and_the_neighbours_do_not_matter(judge, mode):
    pairs = disk_pairs(11, seed=5)
    whole = score(scorer_of(judge), compare(pairs), mode).score
    turned = score(scorer_of(judge), compare(pairs[::-1]), mode).score[::-1]
    alone = [score(scorer_of(judge), compare([p]), mode).score[0] for p in pairs[:3]]
    if mode == "strict":
        assert whole.tobytes() == turned.tobytes()
        assert whole[:3].tolist() == alone
    else:
        np.testing.assert_allclose(whole, turned, atol=1e-5)
        np.testing.assert_allclose(whole[:3], alone, atol=1e-5)


def test_a_model_that_says_something_else_is_low_mass_and_not_a_number(untrained):
    batch = score(scorer_of(untrained), compare(disk_pairs(4, seed=6)))
    assert set(batch.status.tolist()) == {Status.LOW_MASS}
    assert np.isnan(batch.score).all()
    assert np.isnan(batch.dims).all()
    assert "min_mass" in batch.detail[0]


def test_one_pass_per_question(judge, monkeypatch):
    seen = []
    forward = judge.model.forward

    def counting(*args, **kwargs):
        seen.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(judge.model, "forward", counting)
    score(scorer_of(judge, debias=False), compare(disk_pairs(8, seed=7)))
    assert sum(seen) == 8
    seen.clear()
    score(scorer_of(judge), compare(disk_pairs(8, seed=7)))
    assert sum(seen) == 16


def test_items_that_lack_something_fail_alone(judge):
    a, b, _ = disk_pairs(1, seed=8)[0]
    request = ScoreRequest(
        scorers="yes_token",
        frames=np.stack([a, b]),
        index=[0, 1, 0],
        offsets=[0, 2, 3, 3],
        role=np.array([Role.REFERENCE, Role.CURRENT, Role.REFERENCE], np.uint8),
    )
    batch = score(scorer_of(judge), request)
    assert batch.status.tolist() == [Status.OK, Status.BAD_INPUT, Status.BAD_INPUT]
    assert batch.score[0] == pytest.approx(score(scorer_of(judge), compare([(a, b)])).score[0])
    wants_text = YesTokenScorer(judge, YesTokenConfig())
    bare = score(wants_text, ScoreRequest(scorers="yes_token", frames=a[None]))
    assert bare.status.tolist() == [Status.BAD_INPUT]
    assert "text" in bare.detail[0]


def test_braces_of_a_text_are_only_text(untrained):
    scorer = YesTokenScorer(untrained, YesTokenConfig(min_mass=0.0))
    a = disk_pairs(1, seed=9)[0][0]
    request = ScoreRequest(scorers="yes_token", frames=a[None], texts="a {red} {0} disk")
    assert score(scorer, request).ok.all()


def test_saved_and_read_again_it_scores_the_same(judge, tmp_path):
    scorer = scorer_of(judge, name="larger")
    scorer.save(tmp_path / "larger")
    again = read_item_scorer(tmp_path / "larger")
    assert again.card == scorer.card
    request = compare(disk_pairs(5, seed=10))
    here, there = (score(s, _named(request, "larger")) for s in (scorer, again))
    assert here == there
    config = tmp_path / "larger" / "config.json"
    tree = json.loads(config.read_text())
    config.write_text(json.dumps({**tree, "model_sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match="other weights"):
        read_item_scorer(tmp_path / "larger")
    config.write_text(json.dumps({**tree, "min_mas": 0.2}))
    with pytest.raises(ConfigError, match="min_mass"):
        read_item_scorer(tmp_path / "larger")


def _named(request, name):
    return ScoreRequest(
        scorers=name, frames=request.frames, offsets=request.offsets, role=request.role
    )


def test_words_that_are_no_token_are_refused(untrained):
    with pytest.raises(ConfigError, match="single token"):
        YesTokenScorer(untrained, YesTokenConfig(yes=("oui",)))
    with pytest.raises(ConfigError, match="min_mass"):
        YesTokenScorer(untrained, YesTokenConfig(min_mass=2.0))


def test_training_needs_answers_and_repeats_itself():
    a, b, _ = disk_pairs(1, seed=0)[0]
    reader = small_reader([LARGER, "yes no"])
    with pytest.raises(ConfigError, match="answer"):
        fit_reader(reader, [Turn((a, b), LARGER)], steps=1, generator=np.random.default_rng(0))
    turns = [Turn((a, b), LARGER, "yes"), Turn((b, a), LARGER, "no")]
    runs = [
        fit_reader(
            small_reader([LARGER, "yes no"]), turns, steps=3, generator=np.random.default_rng(0)
        )
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
