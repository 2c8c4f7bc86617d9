"""Broken pictures, to teach an artefact classifier what a reward must not be paid for.

They mimic what simulators, cameras and generators get wrong: lost focus, a frame made of two
moments, bodies inside each other, missing parts. Each takes UInt8["n h w 3"] and returns fresh
pictures of the same shape.
"""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from embodied_reward.types import UInt8

type Corruption = Callable[[UInt8, np.random.Generator], UInt8]


def blur(frames: UInt8, rng: np.random.Generator) -> UInt8:
    """Blur by a Gaussian of 1.5 to 3 % of the width (1 to 2 px of 64)."""
    sigma = rng.uniform(0.015, 0.03, len(frames)) * frames.shape[2]
    blurred = [
        gaussian_filter(frame.astype(np.float32), (s, s, 0))
        for frame, s in zip(frames, sigma, strict=True)
    ]
    return np.stack(blurred).round().astype(np.uint8)


def tear(frames: UInt8, rng: np.random.Generator) -> UInt8:
    """Shift all rows below a random one sideways by 8 to 25 % of the width, as two half frames."""
    h, w = frames.shape[1:3]
    torn = frames.copy()
    for frame in torn:
        row = int(rng.integers(h // 4, 3 * h // 4))
        shift = int(rng.uniform(0.08, 0.25) * w) or 1
        frame[row:] = np.roll(frame[row:], shift * rng.choice([-1, 1]), axis=1)
    return torn


def overlap(frames: UInt8, rng: np.random.Generator) -> UInt8:
    """Draw a part of the picture again, half transparent, elsewhere: bodies in each other."""
    mixed = frames.copy()
    for frame in mixed:
        (top, left), (height, width) = _box(frame, rng)
        y = int(rng.integers(0, frame.shape[0] - height + 1))
        x = int(rng.integers(0, frame.shape[1] - width + 1))
        part = frame[top : top + height, left : left + width].astype(np.uint16)
        place = frame[y : y + height, x : x + width]
        place[:] = (part + place) // 2
    return mixed


def cutout(frames: UInt8, rng: np.random.Generator) -> UInt8:
    """Replace a part by one colour of the picture, as a missing texture or body."""
    holed = frames.copy()
    for frame in holed:
        (top, left), (height, width) = _box(frame, rng)
        colour = frame[rng.integers(frame.shape[0]), rng.integers(frame.shape[1])].copy()
        frame[top : top + height, left : left + width] = colour
    return holed


CORRUPTIONS: dict[str, Corruption] = {
    "blur": blur,
    "tear": tear,
    "overlap": overlap,
    "cutout": cutout,
}


def corrupt(frames: UInt8, rng: np.random.Generator, kinds: tuple[str, ...] = ()) -> UInt8:
    """Give every picture one corruption, drawn from `kinds` (default all of `CORRUPTIONS`)."""
    kinds = kinds or tuple(CORRUPTIONS)
    drawn = rng.integers(0, len(kinds), len(frames))
    broken = np.empty_like(frames)
    for k, kind in enumerate(kinds):
        if (drawn == k).any():
            broken[drawn == k] = CORRUPTIONS[kind](frames[drawn == k], rng)
    return broken


def _box(frame: UInt8, rng: np.random.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return a rectangle of 20 to 45 % of each side: top left corner and size [px]."""
    sides = np.array(frame.shape[:2])
    size = np.maximum(1, (rng.uniform(0.2, 0.45, 2) * sides).astype(int))
    corner = rng.integers(0, sides - size + 1)
    return (int(corner[0]), int(corner[1])), (int(size[0]), int(size[1]))
