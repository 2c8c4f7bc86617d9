"""Find out how a dataset's pictures lie by comparing them with one that is known to be upright."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from embodied_reward.data.dataset import EpisodeSequence
from embodied_reward.data.formats.picture import reorient
from embodied_reward.data.inspect import spread
from embodied_reward.errors import DatasetError
from embodied_reward.types import Float64, UInt8

_SIDE = 32  # pixels a side at which pictures are compared; objects may stand elsewhere
_CLEAR = 0.05  # by how much the best reading's correlation must lead

_ORIENTATIONS = ("upright", "flipped", "rotated", "mirrored")


@dataclass(frozen=True)
class Match:
    """How well pictures agree with the reference in each reading.

    Attributes:
        correlation: (orientation, colour) -> Pearson correlation of the pixels, in [-1, 1]; NaN
            where a picture has one colour.
    """

    correlation: dict[tuple[str, str], float]

    @property
    def best(self) -> tuple[str, str]:
        """The (orientation, colour) that agrees best."""
        return max(self.correlation, key=lambda k: np.nan_to_num(self.correlation[k], nan=-2.0))

    @property
    def clear(self) -> bool:
        """Whether the best reading leads enough to be believed."""
        ranked = sorted(self.correlation.values(), reverse=True)
        return bool(ranked[0] - ranked[1] > _CLEAR)

    @property
    def verdict(self) -> str:
        """What to do, in words."""
        (orientation, colour), value = self.best, self.correlation[self.best]
        if not self.clear:
            return (
                f"the reference does not tell the readings apart (best {value:.2f}); "
                "use a picture of the same camera and scene"
            )
        if self.best == ("upright", "rgb"):
            return f"pictures lie as in the reference (correlation {value:.2f})"
        now = self.correlation["upright", "rgb"]
        return (
            f"pictures are {orientation} {colour.upper()} relative to the reference (correlation "
            f"{value:.2f}, as they are read now {now:.2f})"
        )


def match_reference(frames: Sequence[UInt8], reference: UInt8) -> Match:
    """Compare frames UInt8["h w 3"], as they are read, with an upright RGB picture.

    A reading (orientation, colour) is what would have to be undone to make them agree.
    """
    target = _small(reference)
    mean = np.mean([_small(frame) for frame in frames], axis=0)
    readings = itertools.product(_ORIENTATIONS, ("rgb", "bgr"))
    return Match({(o, c): _agree(mean, target, o, c) for o, c in readings})


def match_dataset(episodes: EpisodeSequence, path: Path | str, view: str | None) -> Match:
    """Compare the first frames of a view with the picture at `path`.

    Raises:
        DatasetError: no such view, or a picture that cannot be read.
    """
    if not episodes.views:
        raise DatasetError(f"'{episodes.root}' has no views to compare with '{path}'")
    view = view or episodes.views[0]
    if view not in episodes.views:
        raise DatasetError(
            f"'{episodes.root}' has no view '{view}'; its views: {', '.join(episodes.views)}"
        )
    chosen = [episodes[i] for i in spread(8, len(episodes))]
    return match_reference([e.views[view][0] for e in chosen], read_picture(path))


def read_picture(path: Path | str) -> UInt8:
    """Return a picture file as UInt8["h w 3"]. Raises DatasetError."""
    try:
        with PIL.Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise DatasetError(f"cannot read the reference picture '{path}': {error}") from error


def _small(frame: UInt8) -> Float64:
    image = PIL.Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize((_SIDE, _SIDE), PIL.Image.Resampling.BOX), np.float64)


def _agree(mean: Float64, target: Float64, orientation: str, colour: str) -> float:
    turned = reorient(mean, orientation)  # pyright: ignore[reportArgumentType]
    turned = turned[..., ::-1] if colour == "bgr" else turned
    a, b = (x.ravel() - x.mean() for x in (turned, target))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else float("nan")
