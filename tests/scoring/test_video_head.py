import dataclasses

import numpy as np
import pytest
import torch

from embodied_reward.errors import ConfigError, RequestError
from embodied_reward.math.video_weights import attenuation_weights
from embodied_reward.scoring import FeatureCache, Scorer, ScorerCard, ScoreRequest, ScoringCore
from embodied_reward.scoring.heads.video import VideoHead
from embodied_reward.scoring.scorer import Head, Output, Trunk
from embodied_reward.scoring.selection import sample_segments, select_keyframes
from embodied_reward.scoring.status import Role, Status


class Brightness(Trunk):
    digest, preprocess_id = "brightness", "unit"

    def preprocess(self, frames):
        return frames.float() / 255

    def forward(self, inputs):
        return inputs.mean((1, 2, 3))[:, None]


class Image(Head):
    """Brightness, less that of a GOAL picture; NaN for a white frame; noise if passes are asked."""

    dim_names = ("bright", "dark")

    def forward(self, items):
        current = items.mean_features(items.role == Role.CURRENT)[:, 0]
        goal = items.mean_features(items.role == Role.GOAL)[:, 0].nan_to_num(0)
        score = torch.where(current == 1, torch.nan, current - goal)
        if items.passes:
            noise = [items.generator(i).normal() for i in range(len(items))]
            score = score + torch.tensor(noise)
        return Output(score=score.float(), dims=torch.stack([score, 1 - score], 1).float())


def grey(levels):
    return np.stack([np.full((4, 4, 3), v, np.uint8) for v in levels])


def score(head, request, cache=None):
    with ScoringCore(cache=cache) as core:
        core.register(Scorer(ScorerCard("v", "video"), Brightness(), head))
        return core.score(request)["v"]


def clips(frames, offsets, **columns):
    return ScoreRequest(scorers=("v",), frames=frames, offsets=offsets, **columns)


def test_a_clip_scores_the_weighted_mean_of_its_frames():
    levels = np.array([0, 51, 102, 153, 51, 204])
    request = clips(grey(levels), [0, 4, 6])
    batch = score(VideoHead(Image()), request)
    assert batch.score == pytest.approx([0.3, 0.5])
    assert batch.per_frame == pytest.approx(levels / 255)
    assert batch.dims == pytest.approx(np.array([[0.3, 0.7], [0.5, 0.5]]))
    late = score(VideoHead(Image(), rate=2.0, anchor="end"), request)
    weights = attenuation_weights(np.linspace(0, 1, 4), rate=2.0, anchor=1.0)
    assert late.score[0] == pytest.approx(weights @ levels[:4] / 255)
    assert late.score[0] > batch.score[0]


def test_uneven_times_decide_the_weights():
    request = clips(grey([0, 51, 255 - 51]), [0, 3], time=[0.0, 9.0, 10.0])
    batch = score(VideoHead(Image(), rate=3.0, anchor="end"), request)
    weights = np.exp(-3 * np.array([1.0, 0.1, 0.0]))
    assert batch.score[0] == pytest.approx(weights @ [0, 0.2, 0.8] / weights.sum())


def test_every_frame_sees_the_references_of_its_clip():
    role = [Role.GOAL, Role.CURRENT, Role.CURRENT, Role.CURRENT]
    batch = score(VideoHead(Image()), clips(grey([51, 102, 153, 51]), [0, 3, 4], role=role))
    assert batch.score == pytest.approx([0.3, 0.2])
    assert np.isnan(batch.per_frame[0])


def test_one_failed_frame_fails_its_clip_only():
    batch = score(VideoHead(Image()), clips(grey([51, 255, 102, 102]), [0, 2, 4]))
    assert batch.status.tolist() == [Status.SCORER_ERROR, Status.OK]
    assert np.isnan(batch.score[0])
    assert "frame 1" in batch.detail[0]
    assert batch.score[1] == pytest.approx(0.4)


def test_a_clip_without_frames_to_score_is_bad_input():
    request = clips(grey([51, 102]), [0, 1, 2], role=[Role.GOAL, Role.CURRENT])
    assert score(VideoHead(Image()), request).status.tolist() == [Status.BAD_INPUT, Status.OK]
    alone = clips(grey([51]), [0, 1], role=[Role.GOAL])
    assert score(VideoHead(Image()), alone).status.tolist() == [Status.BAD_INPUT]


def test_noise_of_a_frame_does_not_depend_on_the_batch():
    frames = grey([51, 102, 153, 10])
    both = score(VideoHead(Image()), clips(frames, [0, 2, 4], passes=1, seed=3))
    alone = score(VideoHead(Image()), clips(frames[2:], [0, 2], passes=1, seed=3))
    other = score(VideoHead(Image()), clips(frames[2:], [0, 2], passes=1, seed=4))
    cached = score(VideoHead(Image()), clips(frames, [0, 2, 4], passes=1, seed=3), FeatureCache())
    assert cached == both
    assert both.score[1] == alone.score[0] != other.score[0]
    assert len(set(np.round(both.per_frame - frames[:, 0, 0, 0] / 255, 4))) == 4


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="did you mean 'centre'"):
        VideoHead(Image(), anchor="center")
    with pytest.raises(ConfigError, match="rate"):
        VideoHead(Image(), rate=-1)


# --- selection of frames ---


def smooth(length=64):
    t = np.linspace(0, 1, length)
    return grey(np.round(255 * (0.4 + 0.3 * t + 0.2 * np.sin(6 * t))))


def test_segments_are_unbiased_over_seeds_with_less_variance_than_random_frames():
    frames = smooth()
    full = score(VideoHead(Image()), clips(frames, [0, 64])).score[0]
    with ScoringCore() as core:
        core.register(Scorer(ScorerCard("v", "video"), Brightness(), VideoHead(Image())))
        drawn = [
            core.score(sample_segments(clips(frames, [0, 64], seed=s), 8))["v"].score[0]
            for s in range(300)
        ]
    rng = np.random.default_rng(0)
    uniform = [frames[rng.integers(0, 64, 8), 0, 0, 0].mean() / 255 for _ in range(300)]
    assert abs(np.mean(drawn) - full) <= 2 * np.std(drawn) / np.sqrt(300)
    assert np.var(drawn) < 0.3 * np.var(uniform)


def test_the_draw_follows_the_clip_not_its_place():
    a, b = smooth()[:20], smooth()[30:60]
    both = sample_segments(clips((a, b), [0, 20, 50]), 4)
    alone = sample_segments(clips(b, [0, 30]), 4)
    assert both.offsets.tolist() == [0, 4, 8]
    assert (both.index[4:] - 20).tolist() == alone.index.tolist()
    other = sample_segments(dataclasses.replace(clips(b, [0, 30]), seed=9), 4)
    assert other.index.tolist() != alone.index.tolist()
    assert sample_segments(clips(a, [0, 20]), 50) == clips(a, [0, 20])


def test_references_and_the_views_of_a_moment_stay():
    frames = np.concatenate([smooth(20), smooth(20)[::-1], grey([7])])
    request = clips(
        frames,
        [0, 41],
        time=[*np.arange(20), *np.arange(20), 0],
        view=[0] * 20 + [1] * 20 + [0],
        role=[Role.CURRENT] * 40 + [Role.GOAL],
        views=("front", "wrist"),
    )
    small = sample_segments(request, 5)
    assert small.references == 11
    assert small.role.tolist() == [Role.CURRENT] * 10 + [Role.GOAL]
    assert small.time[:5].tolist() == small.time[5:10].tolist()
    assert small.view.tolist() == [0] * 5 + [1] * 5 + [0]


@pytest.mark.parametrize("online", [False, True])
def test_keyframes_are_one_per_step_and_keep_the_score(online):
    rng = np.random.default_rng(0)
    steps = [rng.integers(0, 256, (16, 16, 3)) for _ in range(4)]
    frames = np.stack([steps[t // 15] for t in range(60)])
    frames = np.clip(frames + rng.integers(-8, 9, frames.shape), 0, 255).astype(np.uint8)
    request = clips(frames, [0, 60])
    small = select_keyframes(request, online=online, count=None if online else 4)
    assert (small.index // 15).tolist() == [0, 1, 2, 3]
    full = score(VideoHead(Image()), request).score[0]
    assert score(VideoHead(Image()), small).score[0] == pytest.approx(full, abs=2e-3)


def test_keyframes_of_short_clips_and_wrong_settings():
    request = clips(grey([1, 2, 3]), [0, 1, 3])
    assert select_keyframes(request, count=5) == request
    assert len(select_keyframes(request)) == 2
    for wrong in ({"count": 0}, {"count": 2, "online": True}):
        with pytest.raises(RequestError, match="count"):
            select_keyframes(request, **wrong)
    with pytest.raises(RequestError, match="segments"):
        sample_segments(request, 0)
