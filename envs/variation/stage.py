"""Paint patterns onto the background that a picture shows, true to perspective.

Background geoms are planes and boxes, so where a pixel's ray meets one is known in closed form.
Where that distance is the one in the depth buffer, the pixel shows the background and nothing in
front of it, and the point's own coordinates say what the pattern is there: it lies on the table
and the floor, whatever the camera does, and all cameras agree. It needs no second rendering, no
texture in the model and no recompilation, so it works on models of other people.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied_reward.types import Bool, Float64, Int64, UInt8

from ..dress import Shot
from ..rendering import load_mujoco
from .patterns import Pattern
from .roles import level_boxes

_NEAR = 3e-4  # share of the distance within which two depths are the same surface
_TILES = 2.2  # tiles across the widest background box
_SHARP = 0.06  # width of a pixel [tiles] from which a pattern fades
_SKY = 1.2  # tiles per radian


@dataclass(frozen=True)
class Layer:
    """Patterns over the background; surface i shows pattern i, counted round.

    Attributes:
        level: weight in [0, 1] over what was there.
        patterns: at least one; the last is the sky's.
    """

    level: float
    patterns: Sequence[Pattern]


@dataclass(frozen=True)
class Backdrop:
    """What every pixel n = h * w of a view would show if there were only background.

    Attributes:
        depth: Float64["n"], along the optical axis [m]; inf where there is none.
        surface: Int64["n"], which background geom; -1 where there is none.
        place: Float64["n 2"], where on it, in tiles.
        blur: Float64["n"], width of a pixel there, in tiles.
        sky: Float64["n 2"], where in the sky the pixel looks, in tiles.
        still: layer -> colours, of layers that do not move.
    """

    depth: Float64
    surface: Int64
    place: Float64
    blur: Float64
    sky: Float64
    still: dict[int, tuple[Float64, Float64]] = field(default_factory=dict)


class Stage:
    """Paints layers of patterns over the background of pictures.

    Remembers per view what the background is, for as long as camera and background stand still.

    Args:
        geoms: the background, Int64["geoms"].
        layers: painted one over the other.
    """

    def __init__(self, geoms: Int64, layers: Sequence[Layer]) -> None:
        self._geoms, self._layers = geoms, layers
        self._known: dict[str, tuple[Hashable, Backdrop]] = {}

    def paint(self, shot: Shot, model: Any, data: Any, time: float) -> UInt8:
        """Return the picture with its background painted over, UInt8["h w 3"]."""
        behind = self._backdrop(shot, model, data)
        same, sky = _shown(behind, shot)
        old = shot.frame.reshape(-1, 3) / 255.0
        shade = (0.45 + 0.75 * old.mean(axis=1, keepdims=True))[same]
        new = old.copy()
        for index, layer in enumerate(self._layers):
            surfaces, heaven = _colours(behind, index, layer, time)
            new[same] += layer.level * (np.minimum(surfaces[same] * shade, 1.0) - new[same])
            new[sky] += layer.level * (heaven[sky] - new[sky])
        return np.rint(255.0 * new).astype(np.uint8).reshape(shot.frame.shape)

    def _backdrop(self, shot: Shot, model: Any, data: Any) -> Backdrop:
        poses = (shot.place, shot.axes, data.geom_xpos[self._geoms], data.geom_xmat[self._geoms])
        key = (shot.focal, *(pose.tobytes() for pose in poses))
        if shot.view not in self._known or self._known[shot.view][0] != key:
            self._known[shot.view] = key, backdrop(shot, model, data, self._geoms)
        return self._known[shot.view][1]


def backdrop(shot: Shot, model: Any, data: Any, geoms: Int64) -> Backdrop:
    """Return the background of a view; meets every ray with every geom, so worth remembering."""
    rays = shot.rays().reshape(-1, 3)
    count, width = len(rays), _tile_width(model, data, geoms)
    best, surface = np.full(count, np.inf), np.full(count, -1)
    place, blur = np.zeros((count, 2)), np.zeros(count)
    for index, geom in enumerate(geoms):
        met = _meet(shot.place, rays, model, data, int(geom))
        nearer = met.depth < best
        best[nearer], surface[nearer] = met.depth[nearer], index
        place[nearer] = met.place[nearer] / width
        blur[nearer] = met.spread[nearer] / shot.focal / width
    return Backdrop(best, surface, place, blur, _sky(rays))


def _shown(behind: Backdrop, shot: Shot) -> tuple[Bool, Bool]:
    """Return Bool["n"] twice: the pixel shows the background, the pixel shows the sky."""
    depth = shot.depth.ravel()
    with np.errstate(invalid="ignore"):
        same = np.abs(behind.depth - depth) < _NEAR * behind.depth
    same &= np.isfinite(behind.depth)
    return same, ~same & (depth > shot.sky)


def _colours(behind: Backdrop, index: int, layer: Layer, time: float) -> tuple[Float64, Float64]:
    """Return what background and sky look like at each pixel, Float64["n 3"] each.

    Far away, where a pixel is wide, a pattern fades into its mean instead of flickering.
    """
    if index in behind.still:
        return behind.still[index]
    tiles = np.stack([pattern.at(time) for pattern in layer.patterns])
    which = behind.surface % len(tiles)
    far = np.clip((behind.blur[:, None] - _SHARP) / _SHARP, 0.0, 1.0)
    surfaces = tiles[(which, *_cells(behind.place, tiles.shape[1]))]
    surfaces += far * (tiles.mean(axis=(1, 2))[which] - surfaces)
    found = surfaces, tiles[(-1, *_cells(behind.sky, tiles.shape[1]))]
    if not any(pattern.moves for pattern in layer.patterns):
        behind.still[index] = found
    return found


def _cells(place: Float64, size: int) -> tuple[Int64, Int64]:
    """Return row and column in a tile that repeats, of places Float64["n 2"] in tiles."""
    cell = np.floor(place * size).astype(np.int64) % size
    return cell[:, 1], cell[:, 0]


def _sky(rays: Float64) -> Float64:
    """Return the azimuth and elevation of directions Float64["n 3"], in tiles."""
    azimuth = np.arctan2(rays[:, 1], rays[:, 0])
    elevation = np.arctan2(rays[:, 2], np.hypot(rays[:, 0], rays[:, 1]))
    return _SKY * np.stack([azimuth, elevation], axis=1)


@dataclass(frozen=True)
class _Met:
    """Where rays meet a geom first.

    Attributes:
        depth: Float64["n"] [m], inf where they do not.
        place: Float64["n 2"], coordinates on the surface [m].
        spread: Float64["n"], width of a pixel there at a focal length of one pixel [m].
    """

    depth: Float64
    place: Float64
    spread: Float64


def _meet(origin: Float64, rays: Float64, model: Any, data: Any, geom: int) -> _Met:
    """Return where rays Float64["n 3"] meet a plane or a box."""
    turn = data.geom_xmat[geom].reshape(3, 3)
    start, ways = (origin - data.geom_xpos[geom]) @ turn, rays @ turn
    half = model.geom_size[geom].astype(np.float64)
    plane = model.geom_type[geom] == load_mujoco().mjtGeom.mjGEOM_PLANE
    depth, axis = _meet_plane(start, ways, half) if plane else _meet_box(start, ways, half)
    reach = np.where(np.isfinite(depth), depth, 0.0)
    points, rows = start + reach[:, None] * ways, np.arange(len(rays))
    place = np.stack([points[rows, (axis + k) % 3] for k in (1, 2)], axis=1)
    slant = np.abs(ways[rows, axis]) / np.linalg.norm(ways, axis=1)
    # Planes reach far: their pattern is twice as wide.
    scale = 0.5 if plane else 1.0
    return _Met(depth, scale * place, scale * reach / np.maximum(slant, 1e-6))


def _tile_width(model: Any, data: Any, geoms: Int64) -> float:
    """Return the width of a tile on a box [m]; that on which the task happens decides."""
    background = np.zeros(model.ngeom, bool)
    background[geoms] = True
    boxes = level_boxes(model, data, background)
    return 2.0 * float(model.geom_size[boxes].max(initial=0.5)) / _TILES


def _meet_plane(start: Float64, ways: Float64, half: Float64) -> tuple[Float64, Int64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = -start[2] / ways[:, 2]
        spot = start[:2] + depth[:, None] * ways[:, :2]
        inside = np.all((half[:2] == 0.0) | (np.abs(spot) <= half[:2]), axis=1)
    return np.where(inside & (depth > 0.0), depth, np.inf), np.full(len(ways), 2)


def _meet_box(start: Float64, ways: Float64, half: Float64) -> tuple[Float64, Int64]:
    """Slab method; from inside a box it meets nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (-half - start) / ways, (half - start) / ways
    enter, leave = np.fmin(one, other), np.fmax(one, other)
    depth, axis = enter.max(axis=1), enter.argmax(axis=1)
    met = (depth < leave.min(axis=1)) & (depth > 0.0)
    return np.where(met, depth, np.inf), axis
