"""Random numbers of one variant, and how train and test are kept apart.

Every factor of every variant has a generator of its own, seeded by (seed, split, factor,
variant): switching one factor on changes no other factor's draws.

One more number, the leading one, decides the factor's leading parameter: the hue of colours, the
azimuth of light and camera, the logarithm of a mass. [0, 1) is divided into `2 * CELLS` cells, of
which train takes the even and test the odd ones. So the two halves share no value of that
parameter, and hence no variant, whatever the seeds; between two test values lie train values, so
test asks for interpolation. That is what "held out" means here.
"""

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embodied_reward.types import Float64

from .settings import SPLITS

CELLS = 6  # of each half
_MARGIN = 0.1  # of a cell's width, left empty at both of its ends


@dataclass(frozen=True)
class Draw:
    """The random numbers of one factor in one variant.

    Attributes:
        factor: its name.
        variant: the variant's number, at least 0.
        seed, split: of the `Variation`.
    """

    factor: str
    variant: int
    seed: int
    split: str

    @cached_property
    def rng(self) -> np.random.Generator:
        """The factor's own generator; the leading number does not come from it."""
        return np.random.default_rng([1, *self._key])

    @cached_property
    def numbers(self) -> Float64:
        """Uniform numbers in [-1, 1), Float64[256], for what is computed anew at every picture."""
        return np.random.default_rng([2, *self._key]).uniform(-1.0, 1.0, 256)

    @cached_property
    def leading(self) -> float:
        """A number in [0, 1) from a cell of the split."""
        rng = np.random.default_rng([0, *self._key])
        cell = 2 * int(rng.integers(CELLS)) + SPLITS.index(self.split)
        return (cell + rng.uniform(_MARGIN, 1.0 - _MARGIN)) / (2 * CELLS)

    @property
    def signed(self) -> float:
        """The leading number as a strength in [-1, -0.5] or [0.5, 1]: never about 0."""
        return self.leading - 1.0 if self.leading < 0.5 else self.leading

    @property
    def _key(self) -> list[int]:
        return [
            self.seed,
            SPLITS.index(self.split),
            zlib.crc32(self.factor.encode()),
            self.variant,
        ]
