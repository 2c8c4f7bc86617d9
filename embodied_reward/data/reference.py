"""Find out how a dataset's pictures lie by comparing them with one that is known to be upright."""

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
    """How well pictures, as they are read, agree with an upright RGB one.

    Attributes:
        orientation: what the pictures would be -> Pearson correlation of brightness and colour
            once that is undone, in [-1, 1]; NaN where a picture is even.
        colour: `rgb`, `bgr` -> correlation of colour (brightness taken out) in the best
            orientation; NaN where a picture is grey.
    """

    orientation: dict[str, float]
    colour: dict[str, float]

    @property
    def best(self) -> tuple[str, str]:
        """The orientation and the colour order that agree best."""
        return _best(self.orientation), _best(self.colour)

    @property
    def clear(self) -> tuple[bool, bool]:
        """Whether orientation and colour order lead enough to be believed."""
        return _leads(self.orientation), _leads(self.colour)

    @property
    def verdict(self) -> str:
        """What the comparison says, in words."""
        (orientation, colour), (sure, colours) = self.best, self.clear
        if not sure:
            return (
                "the reference does not tell the orientations apart; use a picture of the same "
                "camera and scene"
            )
        value = f"correlation {self.orientation[orientation]:.2f}"
        order = colour.upper() if colours else "of unknown colour order"
        if orientation == "upright" and (colour == "rgb" or not colours):
            return f"pictures lie as in the reference ({value}), {order}"
        return (
            f"pictures are {orientation} {order} relative to the reference ({value}, as they are "
            f"read now {self.orientation['upright']:.2f}); change --layout until they agree"
        )


def match_reference(frames: Sequence[UInt8], reference: UInt8) -> Match:
    """Compare frames UInt8["h w 3"] with an upright RGB picture of the same camera and scene."""
    target = _small(reference)
    mean = np.mean([_small(frame) for frame in frames], axis=0)
    turned = {o: reorient(mean, o) for o in _ORIENTATIONS}
    colours = {o: _colours(x, target) for o, x in turned.items()}
    orientation = {
        o: float(np.mean([_agree(x.mean(-1), target.mean(-1)), *_known(colours[o])]))
        for o, x in turned.items()
    }
    return Match(orientation, colours[_best(orientation)])


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


def _colours(picture: Float64, target: Float64) -> dict[str, float]:
    a, b = _chroma(picture), _chroma(target)
    return {"rgb": _agree(a, b), "bgr": _agree(a[..., ::-1], b)}


def _known(colours: dict[str, float]) -> list[float]:
    """The better colour order speaks for an orientation; grey pictures say nothing."""
    return [max(colours.values())] if all(np.isfinite(v) for v in colours.values()) else []


def _chroma(picture: Float64) -> Float64:
    return picture - picture.mean(-1, keepdims=True)


def _agree(a: Float64, b: Float64) -> float:
    a, b = (x.ravel() - x.mean() for x in (a, b))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 1e-9 else float("nan")


def _best(values: dict[str, float]) -> str:
    return max(values, key=lambda name: np.nan_to_num(values[name], nan=-2.0))


def _leads(values: dict[str, float]) -> bool:
    ranked = sorted(values.values(), reverse=True)
    return bool(ranked[0] - ranked[1] > _CLEAR)
