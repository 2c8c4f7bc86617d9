"""Share of saliency beside share of area, and the pictures of maps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.metrics.saliency import edges, focus, focus_on, pooled
from embodied_reward.metrics.saliency_overlay import overlay, overlays, write_strip
from embodied_reward.vision.saliency.maps import SaliencyMaps, shares


def maps_of(values):
    return shares(torch.as_tensor(np.asarray(values, float)))


def rectangle(t=3, size=16, side=4):
    mask = np.zeros((t, size, size), bool)
    mask[:, :side, :side] = True
    return mask


@given(st.integers(1, 16), st.integers(1, 5))
def test_a_uniform_map_is_at_chance_whatever_the_mask(side, t):
    found = focus(maps_of(np.ones((t, 16, 16))), rectangle(t, side=side))
    assert found.ratio == pytest.approx(1.0)
    assert found.share == pytest.approx(found.area) == pytest.approx(side**2 / 256)


def test_a_map_on_the_mask_alone_has_the_largest_ratio():
    mask = rectangle()
    on, off = focus(maps_of(mask), mask), focus(maps_of(~mask), mask)
    assert (on.share, on.ratio) == (pytest.approx(1.0), pytest.approx(16.0))
    assert (off.share, off.ratio) == (0.0, 0.0)


def test_frames_without_a_map_count_neither_as_share_nor_as_area():
    mask = rectangle()
    mask[1] = True
    values = mask.astype(float)
    values[1] = 0  # blind
    found = focus(maps_of(values), mask)
    assert (found.frames, found.blind) == (2, 1)
    assert found.ratio == pytest.approx(16.0)
    none = focus(maps_of(np.zeros((2, 16, 16))), rectangle(2))
    assert np.isnan([none.share, none.area, none.ratio]).all()
    assert none.blind == 2


def test_nothing_in_the_picture_has_no_ratio():
    assert np.isnan(focus(maps_of(np.ones((2, 4, 4))), np.zeros((2, 4, 4), bool)).ratio)
    with pytest.raises(ValueError, match="masks of"):
        focus(maps_of(np.ones((2, 4, 4))), np.zeros((2, 5, 4), bool))


def test_pooling_is_measuring_everything_at_once():
    rng = np.random.default_rng(0)
    values, mask = rng.random((7, 8, 8)), rng.random((7, 8, 8)) > 0.6
    values[2] = 0
    maps = maps_of(values)
    parts = [focus(maps.take(slice(*ends)), mask[slice(*ends)]) for ends in ((0, 3), (3, 7))]
    whole = focus(maps, mask)
    for name in ("share", "area", "frames", "blind"):
        assert getattr(pooled(parts), name) == pytest.approx(getattr(whole, name))
    assert np.isnan(pooled([]).ratio)


def test_groups_of_labels():
    labels = np.zeros((1, 4, 4), np.uint8)
    labels[0, 0], labels[0, 1] = 2, 3
    found = focus_on(maps_of(np.ones((1, 4, 4))), labels, {"both": (2, 3), "one": (3,)})
    assert (found["both"].area, found["one"].area) == (0.5, 0.25)


def test_edges_lie_on_outlines():
    frames = np.zeros((1, 16, 16, 3), np.uint8)
    frames[0, 4:12, 4:12] = 200
    found = edges(frames)
    outline = np.zeros((1, 16, 16), bool)
    outline[0, 3:13, 3:13] = True
    outline[0, 6:10, 6:10] = False
    assert focus(found, outline).share == pytest.approx(1.0)
    assert not edges(np.full((1, 8, 8, 3), 7, np.uint8)).ok.any()


def test_an_overlay_is_bright_where_the_map_is_and_crossed_out_without_one():
    frame, values = np.full((32, 32, 3), 120, np.uint8), np.zeros((32, 32))
    values[8:16, 8:16] = 1 / 64
    lit = overlay(frame, values).astype(int).sum(-1)
    assert lit[8:16, 8:16].min() > lit[20:].max() + 200
    none = overlay(frame, np.full((32, 32), np.nan))
    assert none.astype(int).mean() < 60
    assert len(np.unique(none.reshape(-1, 3), axis=0)) == 2


def test_overlays_fit_frames_of_any_size_and_paint_regions(tmp_path):
    frames = np.full((2, 40, 60, 3), 90, np.uint8)
    frames[:, 10:20, 30:40] = (250, 0, 0)
    values = np.random.default_rng(0).random((2, 20, 30))
    values[1] = np.nan
    maps = SaliencyMaps(values / values.sum((1, 2), keepdims=True), np.array([True, False]))
    drawn = overlays(frames, maps, regions=12)
    assert drawn.shape == frames.shape
    square = drawn[0, 10:20, 30:40].reshape(-1, 3)
    assert len(np.unique(square, axis=0)) <= 4
    path = write_strip(tmp_path / "strip.png", {"front": frames}, {"front": drawn})
    assert path.stat().st_size > 500
    assert [f.name for f in tmp_path.iterdir()] == ["strip.png"]
