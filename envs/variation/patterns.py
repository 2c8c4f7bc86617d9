"""Pictures for surfaces: seeded procedural patterns, still or moving, and pictures of others.

A pattern is a square tile that repeats without a seam. Moving ones are functions of time, so a
frame depends on the decision it belongs to and not on how many were rendered before.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import numpy as np

from embodied_reward.types import Float64, UInt8

from .colour import palette
from .draws import Draw

TILE = 128  # width of a tile [px]
_COLOURS = 4
_VIDEO_TILE = 64
_WAVES = 5
Texture = Callable[[np.random.Generator], Float64]


class Pattern(Protocol):
    """What a surface shows.

    Attributes:
        moves: it looks different at different times.
    """

    moves: ClassVar[bool]

    def at(self, time: float) -> Float64:
        """Return a tile Float64["n n 3"] in [0, 1] at a time [decisions]."""
        ...


class Still:
    """The same tile at all times; `tile` is Float64["n n 3"] in [0, 1]."""

    moves: ClassVar[bool] = False

    def __init__(self, tile: Float64) -> None:
        self._tile = tile

    def at(self, time: float) -> Float64:
        """Return the tile."""
        return self._tile


class Clip:
    """Frames of a video, UInt8["t h w 3"], there and back again, so that it has no jump."""

    moves: ClassVar[bool] = True

    def __init__(self, frames: UInt8, start: int) -> None:
        self._frames, self._start = frames, start

    def at(self, time: float) -> Float64:
        """Return the frame of that decision as a tile."""
        count = len(self._frames)
        step = (self._start + int(time)) % max(2 * count - 2, 1)
        return as_tile(self._frames[step if step < count else 2 * count - 2 - step])


class Waves:
    """Plane waves that travel and interfere, in a palette: a procedural video."""

    moves: ClassVar[bool] = True

    def __init__(self, draw: Draw) -> None:
        rng = draw.rng
        self._colours = palette(draw, _COLOURS)
        number = rng.integers(-3, 4, (_WAVES, 2))
        number[np.all(number == 0, axis=1)] = 1, 2
        # Every wave travels about one colour band in 4 to 12 decisions.
        speed = rng.uniform(0.5, 1.5, _WAVES) * rng.choice([-1.0, 1.0], _WAVES)
        self._speed, self._phase = speed / 2.5, rng.uniform(0.0, 2 * np.pi, _WAVES)
        axis = 2 * np.pi * np.arange(_VIDEO_TILE) / _VIDEO_TILE
        y, x = np.meshgrid(axis, axis, indexing="ij")
        self._angle = number[:, :1, None] * x + number[:, 1:, None] * y

    def at(self, time: float) -> Float64:
        """Return the tile at that time."""
        shift = (self._phase + self._speed * time)[:, None, None]
        height = np.sin(self._angle + shift).sum(axis=0) / np.sqrt(2.0 * _WAVES)
        return _coloured(0.5 + 0.5 * np.clip(height, -1.0, 1.0), self._colours)


def still_patterns(draw: Draw, count: int, pictures: Sequence[UInt8] = ()) -> list[Pattern]:
    """Return `count` patterns: of `pictures` UInt8["h w 3"] where there are any, else drawn."""
    if pictures:
        chosen = draw.rng.choice(len(pictures), count, replace=len(pictures) < count)
        return [Still(as_tile(pictures[i])) for i in chosen]
    colours = palette(draw, _COLOURS)
    kinds = draw.rng.permutation(len(TEXTURES))
    return [
        Still(_coloured(TEXTURES[kinds[i % len(kinds)]](draw.rng), np.roll(colours, i, axis=0)))
        for i in range(count)
    ]


def moving_pattern(draw: Draw, videos: Sequence[UInt8] = ()) -> Pattern:
    """Return one of `videos`, UInt8["t h w 3"] each, or else travelling waves."""
    if not videos:
        return Waves(draw)
    frames = videos[int(draw.rng.integers(len(videos)))]
    return Clip(frames, int(draw.rng.integers(2 * len(frames))))


def as_tile(picture: UInt8) -> Float64:
    """Return a picture's middle square as a tile that mirrors itself, Float64["n n 3"]."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side]
    at = np.arange(TILE // 2) * side // (TILE // 2)
    small = square[np.ix_(at, at)].astype(np.float64) / 255.0
    half = np.concatenate([small, small[:, ::-1]], axis=1)
    return np.concatenate([half, half[::-1]])


def _coloured(height: Float64, colours: Float64) -> Float64:
    """Map Float64["n n"] in [0, 1] onto the colours, blending neighbours."""
    at = height * (len(colours) - 1)
    low = np.minimum(at.astype(int), len(colours) - 2)
    weight = (at - low)[..., None]
    return (1.0 - weight) * colours[low] + weight * colours[low + 1]


def _grid() -> tuple[Float64, Float64]:
    axis = (np.arange(TILE) + 0.5) / TILE
    x, y = np.meshgrid(axis, axis)
    return x, y


def _checks(rng: np.random.Generator) -> Float64:
    x, y = _grid()
    count = 2 * int(rng.integers(2, 5))
    cell = (x * count).astype(int), (y * count).astype(int)
    return rng.random((count, count))[cell]


def _stripes(rng: np.random.Generator) -> Float64:
    x, y = _grid()
    a, b = rng.permutation([int(rng.integers(3, 7)), int(rng.integers(-3, 4))])
    return 0.5 + 0.5 * np.clip(2.0 * np.sin(2 * np.pi * (a * x + b * y)), -1.0, 1.0)


def _dots(rng: np.random.Generator) -> Float64:
    x, y = _grid()
    height = np.full_like(x, rng.uniform(0.0, 0.2))
    for _ in range(int(rng.integers(14, 26))):
        centre, radius = rng.random(2), rng.uniform(0.05, 0.14)
        way = [np.abs((axis - c + 0.5) % 1.0 - 0.5) for axis, c in zip((x, y), centre, strict=True)]
        height[np.hypot(*way) < radius] = rng.random()
    return height


def _clouds(rng: np.random.Generator) -> Float64:
    """Return noise whose spectrum falls with frequency, stretched to [0, 1]."""
    frequency = np.fft.fftfreq(TILE, 1.0 / TILE)
    power = 1.0 / np.maximum(np.hypot(*np.meshgrid(frequency, frequency)), 1.0) ** 1.8
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TILE, TILE))) * power).real
    low, high = np.quantile(noise, [0.02, 0.98])
    return np.clip((noise - low) / (high - low), 0.0, 1.0)


TEXTURES: tuple[Texture, ...] = (_checks, _stripes, _dots, _clouds)
