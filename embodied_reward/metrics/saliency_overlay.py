"""Saliency maps laid over the pictures that they explain."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
from matplotlib import colormaps

from embodied_reward.data.video import write_video
from embodied_reward.errors import DatasetError
from embodied_reward.files import replacing
from embodied_reward.metrics.curves import headline_curves
from embodied_reward.metrics.overlay import overlay_frames
from embodied_reward.types import Episode, EpisodeScores, Float64, UInt8
from embodied_reward.vision.saliency import SaliencyMaps
from embodied_reward.vision.saliency.regions import region_map, superpixels

COLOURS = colormaps["inferno"]
HIGHEST = 99.5
"""Percentile of a map that is drawn in the last colour; single pixels may be far above it."""
PICTURE_SIDE, STRIP = 160, 8


def overlay(frame: UInt8, values: Float64) -> UInt8:
    """Lay a map over a frame.

    Args:
        frame: UInt8["h w 3"].
        values: Float64["h w"] >= 0, or NaN where there is no map.

    Returns:
        UInt8["h w 3"]: the frame in grey, lit where the map is; dark and crossed out without map.
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, -1).astype(np.float64)
    if not np.isfinite(values).all():
        return _crossed((0.35 * grey).astype(np.uint8))
    top = np.percentile(values, HIGHEST)
    heat = np.clip(values / (top if top > 0 else max(values.max(), 1e-30)), 0, 1)
    colour = 255 * np.asarray(COLOURS(heat))[..., :3]
    weight = (0.25 + 0.6 * heat)[..., None]
    return ((1 - weight) * 0.8 * grey + weight * colour).round().astype(np.uint8)


def overlays(frames: UInt8, maps: SaliencyMaps, regions: int = 0) -> UInt8:
    """Lay maps over frames UInt8["t h w 3"] of any size; `regions` > 0 paints superpixels."""
    sized = maps.resized(*frames.shape[1:3])
    pairs = zip(frames, sized.values, strict=True)
    return np.stack([overlay(f, _by_regions(f, values, regions)) for f, values in pairs])


def write_saliency_video(
    path: Path,
    episode: Episode,
    scores: EpisodeScores,
    overlaid: Mapping[str, UInt8],
    *,
    label: str,
) -> Path:
    """Write an mp4: every view, its overlay beside it, the scores' curves beneath.

    Args:
        path: file to write.
        episode: whose views are shown.
        scores: of the model.
        overlaid: view -> UInt8["t h w 3"].
        label: name of the method, written over the overlays.
    """
    views: dict[str, UInt8] = {}
    for view, pictures in overlaid.items():
        views[view], views[f"{view} {label}"] = episode.views[view], pictures
    frames = overlay_frames(
        views,
        headline_curves(episode, scores),
        fps=episode.fps,
        title=f"{episode.task} - {label}" if episode.task else label,
        success_frames=episode.success_frames,
    )
    return write_video(path, frames, episode.fps)


def write_pair_video(path: Path, frames: UInt8, overlaid: UInt8, fps: float) -> Path:
    """Write an mp4 of frames UInt8["t h w 3"] with their overlays beside them."""
    return write_video(path, _pairs(frames, overlaid), fps)


def write_strip(path: Path, frames: Mapping[str, UInt8], overlaid: Mapping[str, UInt8]) -> Path:
    """Write a PNG: per view a row of up to `STRIP` frames, evenly spread, and their overlays."""
    rows: list[UInt8] = []
    for view, pictures in overlaid.items():
        places = np.linspace(0, len(pictures) - 1, min(STRIP, len(pictures))).round().astype(int)
        sources = (frames[view], pictures)
        rows += [np.hstack([_sized(source[p]) for p in places]) for source in sources]
    width = max(row.shape[1] for row in rows)
    image = np.vstack([_padded(row, width) for row in rows])
    return write_picture(path, image)


def write_picture(path: Path, image: UInt8) -> Path:
    """Write UInt8["h w 3"] as PNG. Raises DatasetError: the disk refused."""
    with replacing(path) as temporary:
        if not cv2.imwrite(str(temporary), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
            raise DatasetError(f"'{path}' could not be written")
    return path


def _by_regions(frame: UInt8, values: Float64, regions: int) -> Float64:
    if not regions or not np.isfinite(values).all():
        return values
    return region_map(values, superpixels(frame, regions))


def _pairs(frames: UInt8, overlaid: UInt8) -> Iterator[UInt8]:
    for frame, picture in zip(frames, overlaid, strict=True):
        yield np.hstack([_sized(frame), _sized(picture)])


def _sized(image: UInt8) -> UInt8:
    h, w = image.shape[:2]
    method = cv2.INTER_NEAREST if h < PICTURE_SIDE else cv2.INTER_AREA
    size = (max(round(w * PICTURE_SIDE / h), 1), PICTURE_SIDE)
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def _padded(row: UInt8, width: int) -> UInt8:
    return np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0)), constant_values=255)


def _crossed(image: UInt8) -> UInt8:
    h, w = image.shape[:2]
    for a, b in (((0, 0), (w - 1, h - 1)), ((w - 1, 0), (0, h - 1))):
        cv2.line(image, a, b, (150, 60, 60), 1)
    return image
