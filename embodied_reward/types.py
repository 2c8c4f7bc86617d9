"""The data that flows between packages.

Axis legend, used in every docstring:

    b batch    t time      v view       p pair
    h w pixels c channels  d embedding  s state  e environment state  a action

Images are upright RGB uint8 [0, 255], channels last. Times are seconds [s], lengths metres
[m], angles radians [rad]. Progress, potential and success are in [0, 1].
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class StreamedViews(Mapping[str, UInt8]):
    """View name -> UInt8["t h w 3"], of which a long view can be read without holding all of it."""

    @abstractmethod
    def blocks(self, name: str) -> Iterator[UInt8]:
        """Yield the frames of a view in order, a bounded number at a time."""


def blocks_of(views: Mapping[str, UInt8], name: str) -> Iterator[UInt8]:
    """Yield the frames of a view in order; a bounded number at a time if they are streamed."""
    return views.blocks(name) if isinstance(views, StreamedViews) else iter([views[name]])


@dataclass(frozen=True)
class Episode:
    """One demonstration or rollout. Row t holds the observation *before* action t.

    Attributes:
        views: camera name -> UInt8["t h w 3"]; decoded on first access. Where they lie on a disk
            this is `StreamedViews`.
        action: Float32["t a"].
        state: `observation.state` (`agent_pos`), Float32["t s"], or None.
        environment_state: `observation.environment_state`, Float32["t e"], or None.
        success: whether the episode ever succeeded; None where the dataset does not say.
        success_frames: Bool["t"], the observation at t satisfies the task; None if unknown.
        progress: the simulator's own progress at t, Float32["t"] in [0, 1]; None if unknown.
        fps: frames per second [Hz] of the rows.
        task: the task in words.
        index: episode index inside its dataset.
        source: where it came from, for messages ("path#episode").
        length: number of rows t.
        keyframes: annotated sub-task boundaries K_0..K_N, increasing rows; None if unannotated.
        variant: which of several opened datasets it comes from, from 0; one dataset is recorded
            in one variant of the world.
    """

    views: Mapping[str, UInt8]
    action: Float32
    fps: float
    task: str
    index: int
    source: str
    length: int
    state: Float32 | None = None
    environment_state: Float32 | None = None
    success: bool | None = None
    success_frames: Bool | None = None
    progress: Float32 | None = None
    keyframes: Int64 | None = None
    variant: int = 0

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True)
class EpisodeScores:
    """What a reward model says of one episode; every array has one entry per frame.

    Attributes:
        potential: Float64["t"] in [0, 1], the fused progress estimate.
        success: Float64["t"] in [0, 1], probability that the frame satisfies the task.
        uncertainty: Float64["t"] >= 0, standard deviation of the progress estimate.
        modes: inference mode -> Float64["t"] (`incremental`, `forward`, `backward`).
        per_view: view -> Float64["t"], the potential from that view alone.
    """

    potential: Float64
    success: Float64
    uncertainty: Float64
    modes: Mapping[str, Float64] = field(default_factory=dict)
    per_view: Mapping[str, Float64] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """Scores of one frame of each of b environments.

    A row whose `ok` is False holds NaN everywhere: a failed item never looks like a number.

    Attributes:
        potential: Float64["b"] in [0, 1].
        success: Float64["b"] in [0, 1].
        uncertainty: Float64["b"] >= 0.
        ok: Bool["b"].
    """

    potential: Float64
    success: Float64
    uncertainty: Float64
    ok: Bool
