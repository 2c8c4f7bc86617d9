import numpy as np
import pytest

from embodied_reward.vision.corruptions import CORRUPTIONS, corrupt


def pictures(n=6):
    """Stripes and squares: something that blur, tearing and holes change."""
    rng = np.random.default_rng(1)
    frames = np.zeros((n, 64, 64, 3), np.uint8)
    frames[:, ::8] = 90
    frames[:, :, ::16] = 200
    for frame in frames:
        y, x = rng.integers(0, 48, 2)
        frame[y : y + 16, x : x + 16] = rng.integers(0, 256, 3)
    return frames


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_every_picture_changes_the_same_way_for_the_same_seed(kind):
    frames = pictures()
    before = frames.copy()
    first = CORRUPTIONS[kind](frames, np.random.default_rng(3))
    again = CORRUPTIONS[kind](frames, np.random.default_rng(3))
    np.testing.assert_array_equal(frames, before)
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.uint8
    assert first.shape == frames.shape
    assert (first != frames).any((1, 2, 3)).all()


def test_what_each_corruption_keeps():
    frames, rng = pictures(), np.random.default_rng(0)
    blurred = CORRUPTIONS["blur"](frames, rng)
    assert blurred.std((1, 2, 3)).max() < frames.std((1, 2, 3)).min()
    np.testing.assert_allclose(blurred.mean((1, 2, 3)), frames.mean((1, 2, 3)), rtol=0.03)
    torn = CORRUPTIONS["tear"](frames, rng)
    np.testing.assert_array_equal(torn[:, :16], frames[:, :16])
    np.testing.assert_array_equal(np.sort(torn, axis=2), np.sort(frames, axis=2))


def test_a_mixture_draws_from_the_named_kinds():
    frames = pictures(40)
    only = corrupt(frames, np.random.default_rng(0), ("tear",))
    np.testing.assert_array_equal(np.sort(only, axis=2), np.sort(frames, axis=2))
    mixed = corrupt(frames, np.random.default_rng(0))
    same_pixels = (np.sort(mixed, axis=2) == np.sort(frames, axis=2)).all((1, 2, 3))
    assert 2 <= same_pixels.sum() <= 20


def test_tiny_pictures_survive():
    tiny = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    for corruption in CORRUPTIONS.values():
        assert corruption(tiny, np.random.default_rng(0)).shape == tiny.shape
