"""Maps of picture scorers: laid back over the picture, by every trunk; families I and M."""

import numpy as np
import pytest
import torch

from embodied_reward.errors import ConfigError
from embodied_reward.scoring import ScoreRequest, ScoringCore
from embodied_reward.scoring.cosine import cosine_scorer
from embodied_reward.scoring.saliency import explain_pictures
from embodied_reward.scoring.transformers_trunk import TransformersTrunk
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.vision.encoders import ConvEncoder
from embodied_reward.vision.saliency import SaliencyOptions
from tests.scoring.conftest import ConstantHead, MeanHead, pictures, scorer_of
from tests.scoring.test_trunks import FAMILIES, TEXTS


def conv_scorer(head=None):
    torch.manual_seed(0)
    return scorer_of(EncoderTrunk(ConvEncoder("conv64", 64, 32)), head)


def cosine(family, seed=0):
    torch.manual_seed(seed)
    return cosine_scorer(family, TransformersTrunk(*FAMILIES[family]()))


@pytest.mark.parametrize("method", ["normgrad", "attention"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_transformer_has_maps_of_the_pictures_own_size(family, method):
    frames = pictures(3, size=32)[:, :, :24]
    more = {"reference": pictures(1, seed=9)[0]} if family == "dino" else {"text": TEXTS[0]}
    maps = explain_pictures(cosine(family), frames, SaliencyOptions(method), **more)
    assert maps.values.shape == (3, 32, 24)
    assert maps.ok.all()
    np.testing.assert_allclose(maps.values.sum((1, 2)), 1)
    assert np.ptp(maps.values[0]) > 0


def test_the_text_decides_where_a_two_tower_model_looks():
    scorer, frames = cosine("clip"), pictures(1)
    one, two = (
        explain_pictures(scorer, frames, SaliencyOptions("attention"), text=text).values.ravel()
        for text in TEXTS[:2]
    )
    assert not np.allclose(one, two, rtol=1e-3)


def test_a_map_is_laid_back_over_what_the_crop_left():
    scorer = cosine("clip")
    wide = np.repeat(pictures(1), 3, axis=2)  # 32 x 96: the crop keeps the middle third
    maps = explain_pictures(scorer, wide, SaliencyOptions("attention"), text=TEXTS[0])
    assert maps.values.shape == (1, 32, 96)
    assert maps.values[0, :, 33:63].sum() > 0.85
    assert maps.values[0, :, :30].sum() == maps.values[0, :, 66:].sum() == 0
    middle = explain_pictures(
        scorer, wide[:, :, 32:64], SaliencyOptions("attention"), text=TEXTS[0]
    )
    np.testing.assert_allclose(maps.values[0, :, 32:64], middle.values[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 24), (21, 19), (45, 20), (33, 47)])
def test_crop_and_padding_are_undone(shape):
    pixels = cosine("clip").trunk.pixels
    loose = type(pixels)(**{**vars(pixels), "shortest": None})
    picture = torch.zeros(1, 3, *shape, dtype=torch.float64)
    place = tuple(side // 2 for side in shape)
    picture[..., place[0], place[1]] = 1
    seen = loose.resized(picture)[:, 0]  # where the model sees that pixel
    back = loose.back(seen, *shape)
    torch.testing.assert_close(back, picture[:, 0])


@pytest.mark.parametrize("method", ["normgrad", "lrp"])
def test_maps_through_the_core_are_those_of_the_scorer_and_leave_scores_alone(method):
    scorer, frames = conv_scorer(), pictures(3)
    request = ScoreRequest(scorers="mean", frames=frames)
    with ScoringCore() as core:
        core.register(scorer)
        before = core.score(request)["mean"].score
        maps = core.explain("mean", frames, SaliencyOptions(method))
        after = core.score(request)["mean"].score
    np.testing.assert_array_equal(before, after)
    alone = explain_pictures(scorer, frames, SaliencyOptions(method))
    np.testing.assert_allclose(maps.values, alone.values)
    assert maps.ok.all()


def test_a_constant_head_has_no_map():
    maps = explain_pictures(conv_scorer(ConstantHead(3)), pictures(2))
    assert not maps.ok.any()
    assert np.isnan(maps.values).all()


def test_what_has_no_map_says_so(scorer):
    with pytest.raises(ConfigError, match="take attention for a transformer"):
        explain_pictures(scorer, pictures(1), SaliencyOptions("lrp"))
    with pytest.raises(ConfigError, match="no layer 'x'"):
        explain_pictures(scorer, pictures(1), SaliencyOptions(layers=("x",)))


def test_paired_evaluations_in_one_request_estimate_the_gradient():
    """Family I: simultaneous perturbation (SPSA), both halves of every pair in one request.

    The score of a picture does not depend on its batch, so differences as small as one level
    of colour hold; averaged over directions they are the gradient on the perturbed block.
    """
    scorer = conv_scorer(MeanHead(64, seed=3))
    frame = pictures(1, seed=5) // 2 + 64
    rng, block, pairs, step = np.random.default_rng(0), (slice(8, 16), slice(8, 16)), 600, 2
    signs = rng.choice([-1, 1], (pairs, 8, 8, 3))
    halves = np.repeat(frame, 2 * pairs, 0).astype(int)
    halves[:pairs, block[0], block[1]] += step * signs
    halves[pairs:, block[0], block[1]] -= step * signs
    with ScoringCore(mode="strict") as core:
        core.register(scorer)
        score = core.score(ScoreRequest(scorers="mean", frames=halves.astype(np.uint8)))["mean"]
        again = core.score(ScoreRequest(scorers="mean", frames=halves.astype(np.uint8)))["mean"]
        images = torch.from_numpy(frame).movedim(-1, 1) / 255
        _, exact = core.gradient("mean", images.float())
    score.require_ok()
    np.testing.assert_array_equal(score.score, again.score)
    difference = (score.score[:pairs] - score.score[pairs:]) / (2 * step)
    estimate = (difference[:, None, None, None] * signs).mean(0).ravel()
    wanted = exact[0, :, block[0], block[1]].movedim(0, -1).numpy().ravel()
    cosine = estimate @ wanted / np.linalg.norm(estimate) / np.linalg.norm(wanted)
    assert cosine > 0.8  # 192 directions from 600 pairs: sqrt(600 / (600 + 192)) = 0.87
