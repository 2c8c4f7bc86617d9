"""Scorers made of scorers, from files."""

import numpy as np
import pytest
import torch

from embodied_reward.errors import CheckpointError, ConfigError
from embodied_reward.math.video_weights import attenuation_weights, clip_time
from embodied_reward.scoring import Scorer, ScoreRequest, ScoringCore, Status
from embodied_reward.scoring.heads import HEADS
from embodied_reward.scoring.heads.artefact import ArtefactHead, fit_artefacts
from embodied_reward.scoring.heads.bradley_terry import BradleyTerryConfig
from embodied_reward.scoring.recipes import save_guard
from embodied_reward.scoring.registry import make_scorer, save_scorer
from embodied_reward.scoring.sources import open_scorer
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.vision.encoders import ConvEncoder

FRAMES = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)


def trunk(seed=0):
    torch.manual_seed(seed)
    return EncoderTrunk(ConvEncoder("conv64", 64))


def saved(folder, head_seed, trunk_seed=0):
    """Write a scorer with random weights."""
    torch.manual_seed(head_seed)
    head = HEADS["bradley_terry"].create(BradleyTerryConfig(hidden=16), 64)
    return save_scorer(make_scorer(folder.name, trunk(trunk_seed), head), folder)


@pytest.fixture
def two(tmp_path):
    saved(tmp_path / "a", 1)
    saved(tmp_path / "b", 2)
    return tmp_path


def scores(source, **request):
    scorer = source if isinstance(source, Scorer) else open_scorer(source)
    with ScoringCore(mode="strict") as core:
        core.register(scorer)
        request.setdefault("frames", FRAMES)
        return core.score(ScoreRequest(scorers=(scorer.card.name,), **request))[scorer.card.name]


def recipe(folder, text, name="r.yaml"):
    (folder / name).write_text(text)
    return folder / name


def sigmoid(values):
    return 1 / (1 + np.exp(-values.astype(np.float64)))


def test_a_composed_recipe_applies_its_rule_to_its_parts(two):
    rule = "type: composed\nrule: base_and_bonus\nsettings: {weight: 0.5}\n"
    file = recipe(two, rule + "parts: {x: a, y: b}\nsigmoid: [x, y]\n")
    whole = scores(file)
    x, y = sigmoid(scores(two / "a").score), sigmoid(scores(two / "b").score)
    np.testing.assert_allclose(whole.require_ok(), x * (1 + 0.5 * y), rtol=1e-5)
    np.testing.assert_allclose(whole.dims, np.stack([x, y], 1), rtol=1e-5)
    assert np.std(whole.score) > 0
    raw = scores(recipe(two, rule + "parts: {x: a, y: b}\n"))
    outside = (scores(two / "a").score < 0) | (scores(two / "b").score < 0)
    assert outside.any()
    assert (raw.status[outside] == Status.BAD_INPUT).all()


def test_parts_of_a_composed_recipe_are_encoded_once(two):
    text = "type: composed\nrule: additive\nparts: {x: a, y: b}\nsigmoid: [x, y]\n"
    scorer = open_scorer(recipe(two, text))
    with ScoringCore() as core:
        core.register(scorer)
        core.score(ScoreRequest(scorers=("r",), frames=FRAMES))
        assert core.stats()["trunk_images"] == len(FRAMES)


def test_a_video_recipe_weighs_the_frames_by_time(two):
    file = recipe(two, "type: video\nname: clip\nhead: a\nrate: 3\nanchor: end\n")
    assert open_scorer(file).card.name == "clip"
    single = scores(two / "a").score
    clip = scores(file, offsets=[0, 5, 12], time=np.arange(12.0))
    for (start, stop), value in zip(((0, 5), (5, 12)), clip.require_ok(), strict=True):
        weights = attenuation_weights(clip_time(np.arange(start, stop)), rate=3, anchor=1.0)
        np.testing.assert_allclose(value, weights @ single[start:stop], rtol=1e-5)


def guarded(folder, base, weight=2.0):
    scorer = open_scorer(base)
    x = scorer.trunk.forward(scorer.trunk.preprocess(torch.from_numpy(FRAMES)))
    classifier = fit_artefacts(x[:6], x[6:], torch.Generator().manual_seed(0), hidden=8, steps=20)
    head = ArtefactHead(scorer.head, classifier, weight)
    folder.mkdir()
    save_guard(folder, folder.name, base, scorer, head, 8)
    return Scorer(scorer.card, scorer.trunk, head)


def test_a_guard_on_disk_scores_as_the_one_in_memory_and_may_be_a_part(two):
    expected = scores(guarded(two / "g", two / "a"))
    reply = scores(two / "g")
    np.testing.assert_array_equal(reply.score, expected.score)
    np.testing.assert_allclose(reply.score, reply.dims @ [1, -2], rtol=1e-5)
    assert scores(recipe(two, "type: video\nhead: g\n")).ok.all()


def test_a_guard_knows_its_base(two):
    guarded(two / "g", two / "a")
    saved(two / "a2", 3)
    for file in ("model.safetensors", "config.json"):
        (two / "a" / file).write_bytes((two / "a2" / file).read_bytes())
    with pytest.raises(CheckpointError, match="er guard-scorer again"):
        open_scorer(two / "g")


def test_cards_tell_recipes_apart(two):
    text = "type: composed\nrule: additive\nsettings: {{balance: {}}}\nparts: {{x: a, y: b}}\n"
    first, other, again = (open_scorer(recipe(two, text.format(v))).card for v in (0.5, 0.4, 0.5))
    assert first == again
    assert first.weights_sha256 != other.weights_sha256
    assert first.trunk_sha256 == other.trunk_sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type: composed\nrule: additive\npart: {}\n", "unknown key 'part'.*'parts'"),
        ("type: composed\nrule: additive\n", "lacks the key 'parts'"),
        ("type: composed\nrule: additive\nparts: {x: a}\n", "two scorers or more"),
        ("type: composed\nrule: additiv\nparts: {x: a, y: b}\n", "'additive'"),
        ("type: composed\nrule: additive\nparts: {x: a, y: b}\nsigmoid: [z]\n", "no part"),
        ("type: composed\nrule: additive\nparts: {x: a, y: c}\n", "do not share one trunk"),
        ("type: composed\nrule: additive\nparts: {x: a, y: e.yaml}\n", "without a trunk"),
        ("type: composed\nrule: additive\nparts: {x: a, y: r.yaml}\n", "part of itself"),
        ("type: video\nhead: a\nanchor: middle\n", "no anchor 'middle'"),
        ("type: video\nhead: a\nrate: fast\n", "rate"),
        ("type: video\nhead: nowhere\n", "no scorer at"),
    ],
)
def test_recipes_that_cannot_work_are_refused(two, text, message):
    saved(two / "c", 3, trunk_seed=1)
    recipe(two, "type: openai\nurl: http://127.0.0.1:9\nmodel: m\n", "e.yaml")
    with pytest.raises((ConfigError, CheckpointError), match=message):
        open_scorer(recipe(two, text))
