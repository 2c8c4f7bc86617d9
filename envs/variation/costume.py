"""The looks of one variant: what a scene wears while its pictures are taken."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied_reward.types import UInt8

from ..dress import Shot
from .changes import Change, changed
from .colour import tint
from .distractors import Distractors
from .draws import Draw
from .looks import lit, moved_cameras
from .patterns import moving_pattern, still_patterns
from .roles import Roles
from .stage import Layer, Stage

_TEXTURES = 5  # different patterns in one scene; the last is the sky's


@dataclass(frozen=True)
class Material:
    """Other people's pictures for backgrounds.

    Attributes:
        pictures: UInt8["h w 3"] each.
        videos: UInt8["t h w 3"] each.
    """

    pictures: Sequence[UInt8] = ()
    videos: Sequence[UInt8] = ()


@dataclass
class Costume:
    """A `Dress` of the looks that one variant has.

    Attributes:
        roles: who is who in the scene.
        levels: factor -> level, above 0.
        draws: factor -> its random numbers.
        material: pictures and videos to take instead of drawn patterns.
        time: the present decision; moving patterns follow it.
    """

    roles: Roles
    levels: Mapping[str, float]
    draws: Callable[[str], Draw]
    material: Material = Material()
    time: float = 0.0
    distractors: Distractors | None = None
    _stage: Stage | None = field(init=False)

    def __post_init__(self) -> None:
        # One `Draw` per factor for all pictures: seeding a generator costs as much as a light.
        self.draws = functools.cache(self.draws)
        layers = list(self._layers())
        background = np.flatnonzero(self.roles.background_geoms)
        self._stage = Stage(background, layers) if layers else None

    @property
    def paints(self) -> bool:
        """Whether there is a background to paint."""
        return self._stage is not None

    @contextlib.contextmanager
    def worn(self, model: Any, data: Any) -> Iterator[None]:
        """Change light, colours and cameras until the context ends."""
        with changed(self._changes(model, data)):
            yield

    def add(self, scene: Any) -> None:
        """Add the distractors."""
        if self.distractors is not None:
            self.distractors.add(scene)

    def paint(self, shot: Shot, model: Any, data: Any) -> UInt8:
        """Paint the patterns onto the background."""
        assert self._stage is not None
        return self._stage.paint(shot, model, data, self.time)

    def _layers(self) -> Iterator[Layer]:
        if level := self.levels.get("texture", 0.0):
            draw = self.draws("texture")
            yield Layer(level, still_patterns(draw, _TEXTURES, self.material.pictures))
        if level := self.levels.get("video", 0.0):
            yield Layer(level, [moving_pattern(self.draws("video"), self.material.videos)])

    def _changes(self, model: Any, data: Any) -> Iterator[Change]:
        geoms = {
            "robot_colour": self.roles.robot_geoms,
            "object_colour": self.roles.object_geoms,
            "fixture_colour": self.roles.fixture_geoms,
        }
        for factor, mask in geoms.items():
            if level := self.levels.get(factor, 0.0):
                yield from tint(model, mask, level, self.draws(factor))
        if level := self.levels.get("light", 0.0):
            yield from lit(model, data, level, self.draws("light"))
        if level := self.levels.get("camera", 0.0):
            yield from moved_cameras(model, data, level, self.draws("camera"))
