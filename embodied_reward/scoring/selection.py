"""Ask for fewer frames: a smaller request, made before any frame is encoded.

Both selections keep frames of another role than `CURRENT`, the times, views, texts and users; a
clip that is short enough stays as it is. Views of one moment (frames with the same time, if the
request names views) stay together.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from embodied_reward.errors import RequestError
from embodied_reward.math.keyframes import change_points, online_change_points, representatives
from embodied_reward.math.video_weights import segment_sample
from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.status import Role
from embodied_reward.types import Float64, Int64, UInt8

type Describe = Callable[[list[UInt8]], Float64]
"""Frames UInt8["h w 3"] of one clip -> features Float64["t d"] to find changes in."""

THUMBNAIL = 8
"""Side of the picture that `thumbnails` compares [px]."""


def sample_segments(request: ScoreRequest, segments: int) -> ScoreRequest:
    """Draw one moment of each of `segments` equal parts of every clip (SegVR).

    The draw is fixed by the clip's pixels and `request.seed`, not by its place in the request, so
    the same clip keeps its frames, and its cached features, whatever it is scored with.
    """
    if segments < 1:
        raise RequestError(f"segments={segments}: give at least 1")

    def choose(frames: list[UInt8]) -> Int64:
        return segment_sample(len(frames), segments, _generator(frames, request.seed))

    return _select(request, choose)


def select_keyframes(
    request: ScoreRequest,
    *,
    count: int | None = None,
    online: bool = False,
    describe: Describe | None = None,
) -> ScoreRequest:
    """Keep one moment per step of every clip, the one most like the rest of its step.

    Args:
        request: clips; of several views the first in the request decides.
        count: moments kept per clip; None lets the clip decide. Offline only.
        online: find the steps as a stream would, see `OnlineChanges`.
        describe: features to find changes in; default `thumbnails`.

    Raises:
        RequestError: `count` was given with `online`, or is below 1.
    """
    if count is not None and (online or count < 1):
        raise RequestError(f"count={count}: give at least 1, and only without online=True")
    describe = describe or thumbnails

    def choose(frames: list[UInt8]) -> Int64:
        if len(frames) <= (count or 1):
            return np.arange(len(frames))
        features = describe(frames)
        if online:
            return representatives(features, online_change_points(features))
        most = len(frames) // 2  # a step has at least two frames
        changes = change_points(features, None if count is None else min(count, most) - 1)
        return representatives(features, changes)

    return _select(request, choose)


def thumbnails(frames: list[UInt8]) -> Float64:
    """Return the mean colours of an 8 x 8 grid over each frame, Float64["t 192"] in [0, 1]."""
    return np.stack([_grid(frame) for frame in frames])


def _grid(frame: UInt8) -> Float64:
    rows = np.array_split(frame.astype(np.float64), min(THUMBNAIL, frame.shape[0]), axis=0)
    cells = [np.array_split(row, min(THUMBNAIL, frame.shape[1]), axis=1) for row in rows]
    return np.array([cell.mean((0, 1)) for row in cells for cell in row]).ravel() / 255


def _select(request: ScoreRequest, choose: Callable[[list[UInt8]], Int64]) -> ScoreRequest:
    kept = [_kept_rows(request, item, choose) for item in range(len(request))]
    rows = np.concatenate(kept).astype(np.int64)
    return replace(
        request,
        index=request.index[rows],
        offsets=np.concatenate([[0], np.cumsum([len(k) for k in kept])]).astype(np.int64),
        time=request.time[rows],
        view=request.view[rows],
        role=request.role[rows],
    )


def _kept_rows(request: ScoreRequest, item: int, choose: Callable[[list[UInt8]], Int64]) -> Int64:
    span = np.arange(*request.offsets[item : item + 2])
    current = span[request.role[span] == Role.CURRENT]
    if not len(current):
        return span
    moment = _moments(request, current)
    first = current[np.unique(moment, return_index=True)[1]]
    chosen = choose([request.frame(int(request.index[row])) for row in first])
    dropped = current[~np.isin(moment, chosen)]
    return np.setdiff1d(span, dropped)


def _moments(request: ScoreRequest, rows: Int64) -> Int64:
    """Return the number of the moment that each row belongs to, in order of appearance."""
    if not request.views:
        return np.arange(len(rows))
    time = request.time[rows]
    _, first, inverse = np.unique(time, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _generator(frames: list[UInt8], seed: int) -> np.random.Generator:
    state = hashlib.blake2b(int(seed).to_bytes(8, "little"), digest_size=16)
    for frame in frames:
        state.update(np.ascontiguousarray(frame))
    return np.random.Generator(np.random.Philox(key=int.from_bytes(state.digest(), "little")))
