import numpy as np
import pytest
import torch

from embodied_reward.errors import ConfigError, ScoringError
from embodied_reward.scoring import ScoreBatch, Scorer, ScorerCard, ScoreRequest, ScoringCore
from embodied_reward.scoring.composition import RULES, Composition, combine, rule_named
from embodied_reward.scoring.heads.composed import ComposedHead
from embodied_reward.scoring.scorer import Head, Output, Trunk
from embodied_reward.scoring.status import Status

HARMONIC = rule_named("lambda_harmonic", balance=0.5)


class Colours(Trunk):
    """Features are the mean red, green and blue in [0, 1], worked out by hand below."""

    digest, preprocess_id = "colours", "unit"

    def preprocess(self, frames):
        return frames.float() / 255

    def forward(self, inputs):
        return inputs.mean((1, 2))


class Channel(Head):
    def __init__(self, channel, fails=None):
        super().__init__()
        self.channel, self.fails = channel, fails

    def forward(self, items):
        score = items.mean_features()[:, self.channel]
        status = np.zeros(len(items), np.uint8)
        detail = {}
        if self.fails is not None:
            bad = score.numpy() > self.fails
            status[bad] = Status.LOW_MASS
            detail = {int(i): "too bright" for i in np.flatnonzero(bad)}
        return Output(score=score, status=status, detail=detail)


def flat(*colours):
    """One 2 x 2 picture per (r, g, b) in [0, 1]."""
    return np.stack([np.full((2, 2, 3), np.round(np.array(c) * 255), np.uint8) for c in colours])


def core_of(**heads):
    core = ScoringCore()
    for name, head in heads.items():
        core.register(Scorer(ScorerCard(name, "test"), Colours(), head))
    return core


PICTURES = flat((0.9, 0.1, 0), (0.5, 0.5, 0), (0, 1, 0), (1, 0.6, 0))


def test_composed_head_and_composed_replies_agree_and_a_failed_part_fails_the_whole():
    composed = ComposedHead({"r": Channel(0, fails=0.95), "g": Channel(1)}, HARMONIC)
    apart = Composition("both", ("red", "green"), HARMONIC)
    with core_of(one=composed, red=Channel(0, fails=0.95), green=Channel(1)) as core:
        request = ScoreRequest(scorers=("both", "one"), frames=PICTURES)
        inside = core.score(ScoreRequest(scorers=("one",), frames=PICTURES))["one"]
        replies = apart.score(core, request)
    assert set(replies) == {"both", "one"}
    for batch in (inside, replies["both"]):
        assert batch.status.tolist() == [0, 0, 0, Status.LOW_MASS]
        assert batch.score[:3] == pytest.approx([0.18, 0.5, 0.0], abs=4e-3)
        assert np.isnan(batch.score[3])
        assert np.isnan(batch.dims[3]).all()
        assert "too bright" in batch.detail[3]
        assert batch.dims[0] == pytest.approx([0.9, 0.1], abs=3e-3)
    assert replies["both"].dim_names == ("red", "green")
    np.testing.assert_array_equal(inside.score, replies["both"].score)


def test_every_status_of_any_part_becomes_the_status_of_the_whole():
    good = np.zeros(7, np.uint8)
    bad = np.arange(7, dtype=np.uint8)
    half = np.full(7, 0.5)
    for first, second in ((bad, good), (good, bad)):
        score, status, detail = combine(HARMONIC, ("a", "b"), (half, half), (first, second))
        assert status.tolist() == bad.tolist()
        assert np.isfinite(score).tolist() == (bad == 0).tolist()
        assert set(detail) == set(range(1, 7))


def test_scores_outside_the_domain_are_bad_input_not_numbers():
    with core_of(x=ComposedHead({"r": Channel(0), "wide": Wide()}, HARMONIC)) as core:
        batch = core.score(ScoreRequest(scorers=("x",), frames=PICTURES))["x"]
    assert batch.status.tolist() == [Status.BAD_INPUT] * 4
    assert "domain" in batch.detail[0]
    assert "wide=3" in batch.detail[0]


class Wide(Head):
    def forward(self, items):
        return Output(score=torch.full((len(items),), 3.0))


def test_replies_that_do_not_fit_are_refused():
    one = ScoreBatch(score=np.ones(2), status=np.zeros(2), scorer="red")
    two = ScoreBatch(score=np.ones(3), status=np.zeros(3), scorer="green")
    both = Composition("both", ("red", "green"), HARMONIC)
    with pytest.raises(ScoringError, match="missing: \\['green'\\]"):
        both.compose({"red": one})
    with pytest.raises(ScoringError, match="length"):
        both.compose({"red": one, "green": two})


def test_rules_are_checked_when_they_are_named():
    with pytest.raises(ConfigError, match="base_and_bonus"):
        rule_named("base_and_bonu")
    with pytest.raises(ConfigError, match="balance"):
        rule_named("lambda_harmonic", balance=2)
    with pytest.raises(ConfigError, match="unexpected"):
        rule_named("additive", weight=1)
    assert all(np.isfinite(rule_named(name)(0.5, 0.5)) for name in RULES)
    with pytest.raises(ConfigError, match="two parts"):
        ComposedHead({"r": Channel(0)}, HARMONIC)
