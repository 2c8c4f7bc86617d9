"""Colours: hues, palettes, and how geoms are tinted."""

import colorsys
from typing import Any

import numpy as np

from embodied_reward.types import Bool, Float64

from .changes import Change
from .draws import Draw

_UNSET = np.array([0.5, 0.5, 0.5, 1.0], np.float32)  # a geom of this colour shows its material's
_LUMA = np.array([0.299, 0.587, 0.114])


def rgb(hue: float, saturation: float, value: float) -> Float64:
    """Return Float64[3] in [0, 1] of a hue in turns."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def palette(draw: Draw, count: int) -> Float64:
    """Return `count` muted colours around the draw's leading hue, Float64["count 3"].

    Muted and never very bright or dark, so that objects and goals stand out against them.
    """
    rng = draw.rng
    hues = draw.leading + np.concatenate([[0.0], rng.choice([-0.12, 0.12, 0.5], count - 1)])
    values = rng.permutation(np.linspace(0.3, 0.8, count))
    return np.array([rgb(h, rng.uniform(0.3, 0.65), v) for h, v in zip(hues, values, strict=True)])


def shown_colours(model: Any) -> Float64:
    """Return every geom's colour, its material's where it has no own, Float64["geoms 4"]."""
    colours = model.geom_rgba.astype(np.float64)
    by_material = (model.geom_matid >= 0) & np.all(model.geom_rgba == _UNSET, axis=1)
    if by_material.any():
        colours[by_material] = model.mat_rgba[model.geom_matid[by_material]]
    return colours


def tint(model: Any, geoms: Bool, level: float, draw: Draw) -> list[Change]:
    """Return the change that gives each kinematic tree among `geoms` a hue of its own.

    The first tree has the leading hue. Lighter parts stay lighter than darker ones, and level is
    the weight of the new colour.
    """
    new = model.geom_rgba.astype(np.float64)
    roots = model.body_rootid[model.geom_bodyid]
    now = shown_colours(model)
    chosen = [int(root) for root in np.unique(roots[geoms])]
    saturation = 0.725 + 0.175 * draw.numbers[0]
    for i, root in enumerate(chosen):
        mine = geoms & (roots == root)
        light = 0.45 + 0.5 * (now[mine, :3] @ _LUMA)
        hue = rgb(draw.leading + i * 0.382, saturation, 1.0)
        new[mine, :3] = (1.0 - level) * now[mine, :3] + level * light[:, None] * hue
        new[mine, 3] = now[mine, 3]
    return [(model.geom_rgba, new)]
