"""Requests that cannot be meant are refused, each with one error that says what and how."""

import numpy as np
import pytest
import torch

from embodied_reward.errors import RequestError
from embodied_reward.scoring import ScoreRequest
from embodied_reward.vision.preprocess import to_input
from tests.scoring.conftest import pictures, scorer_of

FRAMES = pictures(4)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (dict(frames=FRAMES / 255.0), "must be uint8 .* scale floats"),
        (dict(frames=FRAMES[0]), "must be uint8"),
        (dict(frames=FRAMES[..., :1]), "channels last, RGB"),
        (dict(frames=[FRAMES, "x"]), r"frames\[1\] must be uint8"),
        (dict(index=[0, 4]), "index holds 4; accepted: 0 to 3"),
        (dict(index=[0.5, 1]), "index must be int64"),
        (dict(offsets=[0, 2]), "offsets must rise from 0 to the number of frame references 4"),
        (dict(offsets=[0, 3, 2, 4]), "offsets must rise"),
        (dict(view=[0, 1, 2, 3], views=("a", "b")), "camera 3, but views has only 2"),
        (dict(role=[9, 0, 0, 0]), "role holds 9"),
        (dict(time=[0, 1, np.nan, 2]), "time holds nan"),
        (dict(texts=("a", "b")), "2 texts for 4 items"),
        (dict(texts=("a",), text=[0, 0, 0, 1]), "text holds 1"),
        (dict(text=[0, 0]), r"text must be int64 \[4\]"),
        (dict(group=[-1, 0, 0, 0]), "group holds -1"),
        (dict(passes=-1), "passes"),
        (dict(seed=-1), "seed"),
        (dict(timeout=0), "positive seconds"),
        (dict(timeout=float("nan")), "positive seconds"),
        (dict(priority=7), "accepted: 0 CONTROL"),
        (dict(scorers=()), "at least one scorer"),
        (dict(scorers=("a", "a")), "each once"),
        (dict(scorers=(1,)), "must hold strings"),
    ],
)
def test_a_wrong_column_is_named(columns, message):
    with pytest.raises(RequestError, match=message):
        ScoreRequest(**{"scorers": "a", "frames": FRAMES, **columns})


def test_requests_are_keyword_only():
    with pytest.raises(TypeError):
        ScoreRequest(("a",), FRAMES)


def test_scores_can_be_differentiated_in_the_pixels(encoder):
    """Against autograd through a graph without our preprocessing code, and against differences."""
    import copy

    from embodied_reward.scoring.differentiable import score_gradient, score_images
    from embodied_reward.scoring.trunks import EncoderTrunk
    from tests.scoring.conftest import MeanHead

    double = copy.deepcopy(encoder).double()
    trunk = EncoderTrunk(double)
    scorer = scorer_of(trunk, MeanHead().double())
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 12, 12, generator=generator, dtype=torch.float64)
    images.requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda x: score_images(scorer, x), (images,), nondet_tol=0.0, fast_mode=True
    )
    _, gradient = score_gradient(scorer, images.detach())
    resized = torch.nn.functional.interpolate(
        images, size=(32, 32), mode="bilinear", antialias=True, align_corners=False
    )
    by_hand = scorer.head.linear(double(resized)).sum()
    (expected,) = torch.autograd.grad(by_hand, images)
    assert torch.allclose(gradient, expected, atol=1e-12)
    assert gradient.abs().max() > 0


def test_bytes_and_floats_are_preprocessed_alike():
    frames = torch.from_numpy(pictures(2, size=48))
    from_bytes = to_input(frames, 32)
    from_floats = to_input(frames.movedim(-1, -3) / 255.0, 32)
    assert (from_bytes - from_floats).abs().max() <= 1.01 / 255


@pytest.mark.parametrize("size", [20, 32, 75])
def test_resizing_is_pillows_within_one_level(size):
    from PIL import Image

    frame = pictures(1, size=64)[0]
    expected = np.asarray(
        Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR), np.int16
    )
    found = (to_input(torch.from_numpy(frame[None].copy()), size)[0] * 255).round()
    found = found.movedim(0, -1).numpy().astype(np.int16)
    assert np.abs(found - expected).max() <= 1
    if size < 32:
        plain = torch.nn.functional.interpolate(
            torch.from_numpy(frame).movedim(-1, 0)[None].float(), size=(size, size), mode="bilinear"
        )
        plain = plain[0].movedim(0, -1).round().numpy()
        assert np.abs(plain - expected).max() > 10, "the test must be able to see aliasing"


def test_scoring_imports_no_simulator_no_lerobot_no_sb3():
    import subprocess
    import sys

    code = (
        "import sys, embodied_reward.scoring as s\n"
        "[getattr(s, n) for n in s.__all__]\n"
        "bad = {'mujoco', 'metaworld', 'lerobot', 'stable_baselines3', 'gymnasium'}\n"
        "bad &= set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
