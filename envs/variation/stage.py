"""Paint patterns onto the background that a picture shows, true to perspective.

Background geoms are planes and boxes, so where a pixel's ray meets one is known in closed form.
Where that distance is the one in the depth buffer, the pixel shows the background and nothing in
front of it, and the point's own coordinates say what the pattern is there: it lies on the table
and the floor, whatever the camera does, and all cameras agree. It needs no second rendering, no
texture in the model and no recompilation, so it works on models of other people.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.types import Bool, Float64, Int64, UInt8

from ..dress import Shot
from ..rendering import load_mujoco
from .patterns import Pattern

_NEAR = 3e-4  # share of the distance within which two depths are the same surface
_TILES = 2.2  # tiles across the widest background box
_SHARP = 0.06  # width of a pixel [tiles] from which a pattern fades
_SKY = 1.2  # tiles per radian


@dataclass(frozen=True)
class Seen:
    """The background pixels of one picture.

    Attributes:
        mask: Bool["h w"].
        surface: Int64["n"], which background geom each of them shows; -1 is the sky.
        place: Float64["n 2"], where on it, in tiles.
        blur: Float64["n"], width of a pixel there, in tiles.
    """

    mask: Bool
    surface: Int64
    place: Float64
    blur: Float64


def seen(shot: Shot, model: Any, data: Any, geoms: Int64) -> Seen:
    """Return what the picture shows of background `geoms`, Int64["geoms"], and of the sky."""
    rays = shot.rays().reshape(-1, 3)
    depth, best = shot.depth.ravel(), np.full(len(rays), np.inf)
    surface, place, blur = np.full(len(rays), -1), _sky(rays), np.zeros(len(rays))
    width = _tile_width(model, geoms)
    for index, geom in enumerate(geoms):
        met = _meet(shot.place, rays, model, data, int(geom))
        nearer = met.depth < best
        best[nearer], surface[nearer] = met.depth[nearer], index
        place[nearer] = met.place[nearer] / width
        blur[nearer] = met.spread[nearer] / shot.focal / width
    with np.errstate(invalid="ignore"):
        same = np.abs(best - depth) < _NEAR * best
    sky = ~same & (depth > shot.sky)
    mask, surface[sky], place[sky], blur[sky] = same | sky, -1, _sky(rays[sky]), 0.0
    return Seen(mask.reshape(shot.depth.shape), surface[mask], place[mask], blur[mask])


def painted(
    frame: UInt8, what: Seen, patterns: Sequence[Pattern], time: float, level: float
) -> UInt8:
    """Return the picture with `level` of its background replaced, UInt8["h w 3"].

    Surface i shows pattern i, counted round; light and shadow of the original stay. Far away,
    where a pixel is wide, a pattern fades into its mean instead of flickering.
    """
    old = frame[what.mask].astype(np.float64) / 255.0
    new = np.empty_like(old)
    for index in np.unique(what.surface):
        mine = what.surface == index
        tile = patterns[int(index) % len(patterns)].at(time)
        cell = np.floor((what.place[mine] % 1.0) * len(tile)).astype(int) % len(tile)
        far = np.clip((what.blur[mine, None] - _SHARP) / _SHARP, 0.0, 1.0)
        colour = (1.0 - far) * tile[cell[:, 1], cell[:, 0]] + far * tile.mean(axis=(0, 1))
        shade = 0.45 + 0.75 * old[mine].mean(axis=1, keepdims=True)
        new[mine] = colour * (shade if index >= 0 else 1.0)
    out = frame.copy()
    mixed = (1.0 - level) * old + level * np.clip(new, 0.0, 1.0)
    out[what.mask] = np.rint(255.0 * mixed).astype(np.uint8)
    return out


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


def _tile_width(model: Any, geoms: Int64) -> float:
    """Return the width of a tile on a box [m]."""
    boxes = geoms[model.geom_type[geoms] == load_mujoco().mjtGeom.mjGEOM_BOX]
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
