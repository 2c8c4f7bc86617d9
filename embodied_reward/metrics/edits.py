"""Edited copies of an episode, and small changes to pictures; nothing is changed in place.

Edits that move frames in time move the truth with them, so that a predictor that is right about
every frame stays right. Edits that alter pictures leave the truth alone: the scene is the same.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from embodied_reward.types import Episode, Int64, UInt8

Picture = Mapping[str, UInt8]
"""One moment: view -> UInt8["h w 3"]."""


def reordered(episode: Episode, order: Sequence[int] | Int64) -> Episode:
    """Return the episode that shows frames `order`, Int64["n"]; frames may repeat.

    Annotated keyframes are dropped: they describe the original order.
    """
    rows = np.asarray(order, np.int64)
    optional = ("state", "environment_state", "success_frames", "progress")
    moved = {k: None if (a := getattr(episode, k)) is None else a[rows] for k in optional}
    views = {view: frames[rows] for view, frames in episode.views.items()}
    return dataclasses.replace(
        episode,
        views=views,
        action=episode.action[rows],
        length=len(rows),
        keyframes=None,
        **moved,
    )


def with_views(episode: Episode, views: Mapping[str, UInt8]) -> Episode:
    """Return the episode with some views UInt8["t h w 3"] replaced."""
    return dataclasses.replace(episode, views={**episode.views, **views})


def without_view(episode: Episode, view: str) -> Episode:
    """Return the episode as if this camera had never been there."""
    return dataclasses.replace(
        episode, views={v: frames for v, frames in episode.views.items() if v != view}
    )


def replaced_from(episode: Episode, view: str, frames: UInt8, start: int) -> Episode:
    """Return the episode whose `view` shows `frames`, UInt8["t h w 3"], from frame `start` on."""
    changed = episode.views[view].copy()
    changed[start:] = frames[start:]
    return with_views(episode, {view: changed})


def moment(episode: Episode, t: int) -> dict[str, UInt8]:
    """Return what every camera saw at frame t."""
    return {view: frames[t] for view, frames in episode.views.items()}


def stills(episode: Episode, pictures: Sequence[Picture]) -> Episode:
    """Return an episode that shows `pictures` one after the other; it knows no truth."""
    count = len(pictures)
    return dataclasses.replace(
        episode,
        views={v: np.stack([p[v] for p in pictures]) for v in pictures[0]},
        action=np.repeat(episode.action[:1], count, axis=0),
        state=None,
        environment_state=None,
        success_frames=None,
        progress=None,
        keyframes=None,
        length=count,
    )


def resized(picture: UInt8, height: int, width: int) -> UInt8:
    """Return a picture UInt8["height width 3"], area-averaged where it shrinks."""
    if picture.shape[:2] == (height, width):
        return picture
    shrink = height * width < picture.shape[0] * picture.shape[1]
    method = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), np.uint8)


def pasted(picture: UInt8, patch: UInt8, top: int, left: int) -> UInt8:
    """Return `picture` UInt8["h w 3"] with `patch` over it; what reaches outside is cut off."""
    out = picture.copy()
    h, w = out.shape[:2]
    top, left = max(top, 0), max(left, 0)
    seen = patch[: max(h - top, 0), : max(w - left, 0)]
    out[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
    return out


def clutter(
    picture_shape: tuple[int, ...], rng: np.random.Generator, *, shapes: int = 5, size: float = 0.2
) -> tuple[UInt8, UInt8]:
    """Draw random discs, boxes and triangles.

    Args:
        picture_shape: (h, w, 3).
        rng: source of places and colours.
        shapes: how many.
        size: diameter as a share of the shorter side.

    Returns:
        The drawing UInt8["h w 3"] and its mask UInt8["h w 1"] of zeros and ones.
    """
    h, w = picture_shape[:2]
    paint, mask = np.zeros((h, w, 3), np.uint8), np.zeros((h, w), np.uint8)
    radius = max(round(min(h, w) * size / 2), 1)
    for k in range(shapes):
        centre = np.array([rng.integers(0, w), rng.integers(0, h)])
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        outline = _outline(k % 3, centre, radius, rng.uniform(0, np.pi))
        cv2.fillPoly(paint, [outline], colour)
        cv2.fillPoly(mask, [outline], 1)
    return paint, mask[..., None]


def _outline(kind: int, centre: Int64, radius: int, turn: float) -> np.ndarray:
    corners = (3, 4, 24)[kind]  # 24 corners look round
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    ring = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.round(ring).astype(np.int32)
