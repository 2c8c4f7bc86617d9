"""Maps by regions: how much of a picture's saliency or relevance lies on each of its parts."""

import numpy as np
from scipy.cluster.vq import vq

from embodied_reward.errors import ConfigError
from embodied_reward.types import Float64, Int64, UInt8


def region_sums(values: Float64, labels: Int64) -> Float64:
    """Return the sum of a map in every region; together they are the map's sum.

    Args:
        values: Float64["h w"], signed or not.
        labels: Int64["h w"], 0..k-1.

    Returns:
        Float64["k"]; 0 where no pixel has that label.
    """
    _check(values, labels)
    return np.bincount(labels.ravel(), values.ravel()).astype(np.float64)


def region_map(values: Float64, labels: Int64) -> Float64:
    """Return a map in which every pixel has its region's mean, Float64["h w"]; the sum stays."""
    _check(values, labels)
    count = np.bincount(labels.ravel())
    return (region_sums(values, labels) / np.maximum(count, 1))[labels]


def superpixels(image: UInt8, count: int, *, compactness: float = 20.0, rounds: int = 10) -> Int64:
    """Cut a picture into about `count` regions of one colour.

    k-means on colour and place from a regular grid of seeds: SLIC (Achanta et al., TPAMI 2012)
    without its search window, which these small pictures do not need, in RGB in place of CIELAB,
    and without its clean-up: a region may have islands.

    Args:
        image: UInt8["h w 3"].
        count: regions wanted, at most one a pixel.
        compactness: levels of colour that weigh as much as one seed's distance.
        rounds: of k-means.

    Returns:
        Int64["h w"], labels 0..k-1 without gaps.
    """
    h, w = image.shape[:2]
    if not 1 <= count <= h * w:
        raise ConfigError(f"{count} regions of a picture of {h} x {w} pixels: need 1 to {h * w}")
    pitch = np.sqrt(h * w / count)
    rows, columns = np.mgrid[:h, :w]
    place = np.stack([rows, columns], -1) * (compactness / pitch)
    points = np.concatenate([place, image.astype(float)], -1)
    seeds = [np.arange(pitch / 2, side, pitch).astype(int) for side in (h, w)]
    centres = points[np.ix_(*[s if len(s) else np.array([0]) for s in seeds])].reshape(-1, 5)
    flat = points.reshape(-1, 5)
    for _ in range(rounds):
        labels, _ = vq(flat, centres)
        used, labels = np.unique(labels, return_inverse=True)
        size = np.bincount(labels)
        centres = np.stack([np.bincount(labels, column) / size for column in flat.T], 1)
    return labels.reshape(h, w).astype(np.int64)


def _check(values: Float64, labels: Int64) -> None:
    if values.shape != labels.shape:
        raise ValueError(f"a map of {values.shape} and labels of {labels.shape}")
