import dataclasses
import itertools

import av
import cv2
import numpy as np
import pytest

from embodied_reward.metrics.baselines import Constant, trivial
from embodied_reward.metrics.curves import headline_curves
from embodied_reward.metrics.evaluate import evaluate
from embodied_reward.metrics.judge import judge
from embodied_reward.metrics.overlay import overlay_frames, write_overlay
from embodied_reward.metrics.plots import plot_episode, plot_summary
from embodied_reward.types import EpisodeScores

GREEN = np.array([0, 158, 115])


@pytest.fixture
def episode(toy):
    return toy(np.r_[np.linspace(0, 1, 15), np.ones(5)], size=32)


@pytest.fixture
def scores(episode):
    y = np.asarray(episode.progress, float)
    modes = {"incremental": y * 0.9, "forward": y, "backward": y**2}
    return EpisodeScores(y, y**4, 0.1 * np.ones(len(y)), modes, dict.fromkeys(episode.views, y))


def picture_of(path):
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return picture


def frames_of(episode, scores):
    return list(
        overlay_frames(
            episode.views,
            headline_curves(episode, scores),
            fps=episode.fps,
            title="toy",
            success_frames=episode.success_frames,
        )
    )


def test_episode_figure_is_a_picture_and_depends_on_the_scores(tmp_path, episode, scores):
    plot_episode(tmp_path / "a.png", episode, scores)
    plot_episode(tmp_path / "b.png", episode, Constant(0.2).score_episode(episode))
    a, b = picture_of(tmp_path / "a.png"), picture_of(tmp_path / "b.png")
    assert a.shape == b.shape == (624, 960, 3)
    assert (a != b).any()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_episode_figure_needs_no_truth(tmp_path, toy):
    episode = dataclasses.replace(toy([0.0, 1.0]), progress=None, success=None, success_frames=None)
    path = plot_episode(tmp_path / "x" / "a.png", episode, Constant().score_episode(episode))
    assert picture_of(path).shape == (624, 960, 3)


def test_summary_figure_draws_undefined_metrics_too(tmp_path, mixed, oracle):
    goods = mixed[:4]
    predictors = {"model": oracle, **trivial(goods, goods, views=["front"], seed=0)}
    table = {n: evaluate(p, goods, resamples=20)["metrics"] for n, p in predictors.items()}
    path = plot_summary(tmp_path / "s.png", table, [judge(oracle, e) for e in goods])
    assert picture_of(path).shape == (768, 1800, 3)


def test_overlay_has_one_picture_per_frame_and_one_size(episode, scores):
    frames = frames_of(episode, scores)
    assert len(frames) == len(episode)
    assert {f.shape for f in frames} == {(464, 512, 3)}
    assert {f.dtype for f in frames} == {np.dtype(np.uint8)}


def test_overlay_views_lie_side_by_side_upright(episode, scores):
    picture = frames_of(episode, scores)[4]
    for i, view in enumerate(episode.views):
        shown = picture[20:256, 256 * i : 256 * (i + 1)]
        original = cv2.resize(episode.views[view][4], (256, 256), interpolation=cv2.INTER_NEAREST)
        assert np.array_equal(shown, original[20:])


def test_overlay_cursor_moves_right(episode, scores):
    def cursor(picture):
        # The cursor is the one dark column that spans the whole plot box.
        box = picture[310:425, 46:500].astype(int)
        return int(np.argmin(box.sum(axis=(0, 2))))

    columns = [cursor(f) for f in frames_of(episode, scores)[2:-2]]
    steps = np.diff(columns)
    assert (steps > 0).all()
    assert np.ptp(steps) <= 1


def test_overlay_marks_exactly_the_frames_where_the_task_is_done(episode, scores):
    marked = [np.array_equal(f[128, 1], GREEN) for f in frames_of(episode, scores)]
    assert marked == list(episode.success_frames)


def test_overlay_of_one_narrow_view_is_padded(toy):
    episode = toy([0.0, 0.5, 1.0], views=("only",))
    picture = next(iter(frames_of(episode, Constant().score_episode(episode))))
    assert picture.shape == (464, 512, 3)
    assert (picture[:256, :120] == 255).all()


def test_overlay_video_plays_at_the_episode_rate(tmp_path, episode, scores):
    path = write_overlay(tmp_path / "o.mp4", episode, scores)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 20
        decoded = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(decoded) == len(episode)
    pairs = itertools.islice(zip(decoded, frames_of(episode, scores), strict=True), 0, None, 6)
    for got, drawn in pairs:
        assert np.abs(got.astype(int) - drawn.astype(int)).mean() < 3.0
