"""What a caller asks for, column by column."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from embodied_reward.errors import RequestError
from embodied_reward.scoring.status import Priority
from embodied_reward.types import Float32, Int64, UInt8

NONE = -1
"""Index of "no text" and "no user"."""


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """n items to score; every item is a run of the f frame references, and may have a text.

    Frames lie in arenas and are referred to by number, so overlapping windows copy nothing: the
    windows (0 1 2), (1 2 3) of four frames are `index=[0,1,2,1,2,3]`, `offsets=[0,3,6]`.

    Attributes:
        scorers: names of the scorers to ask; each gives one `ScoreBatch`.
        frames: arenas UInt8["k h w 3"], upright RGB, possibly of different sizes; one array is one
            arena. Frames are numbered through all arenas in order.
        index: Int64["f"], the frame that each reference means; default 0..f-1.
        offsets: Int64["n+1"], item i has the references offsets[i]..offsets[i+1]-1; default one
            frame per item.
        time: Float32["f"] [s] within the item's clip; default 0.
        view: UInt8["f"], number of the camera in `views`; default 0.
        role: UInt8["f"], a `Role`; default CURRENT.
        views: camera names; empty where they do not matter.
        texts: texts without duplicates.
        text: Int64["n"], index into `texts` or -1; default: 0 with one text, i with n texts,
            none without.
        group: Int64["n"], items of one group are candidates for one context; default each alone.
        user: Int64["n"], key of a user-conditioned scorer or -1.
        passes: stochastic passes to estimate the uncertainty with; 0 is deterministic.
        seed: seed of those passes; the content of an item and this seed fix its random numbers.
        timeout: seconds until unfinished items become `TIMEOUT`; None waits as long as the core's
            own limit [s].
        priority: a `Priority`.

    Raises:
        RequestError: a column of the wrong type, shape or range, no item, or no scorer.
    """

    scorers: tuple[str, ...]
    frames: tuple[UInt8, ...] = ()
    index: Int64 = field(default=None)  # type: ignore[assignment]
    offsets: Int64 = field(default=None)  # type: ignore[assignment]
    time: Float32 = field(default=None)  # type: ignore[assignment]
    view: UInt8 = field(default=None)  # type: ignore[assignment]
    role: UInt8 = field(default=None)  # type: ignore[assignment]
    views: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    text: Int64 = field(default=None)  # type: ignore[assignment]
    group: Int64 = field(default=None)  # type: ignore[assignment]
    user: Int64 = field(default=None)  # type: ignore[assignment]
    passes: int = 0
    seed: int = 0
    timeout: float | None = None
    priority: Priority = Priority.TRAINER

    def __post_init__(self) -> None:
        """Fill defaults and check every column."""
        for name, tuple_of in (("scorers", str), ("views", str), ("texts", str)):
            self._set(name, _strings(name, getattr(self, name), tuple_of))
        self._set("frames", _arenas(self.frames))
        self._fill_frames()
        self._fill_items()
        self._check_scalars()

    def __len__(self) -> int:
        """Return the number of items n."""
        return len(self.offsets) - 1

    def __eq__(self, other: object) -> bool:
        """Compare every column by value."""
        if not isinstance(other, ScoreRequest):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    __hash__ = None  # type: ignore[assignment]

    @property
    def references(self) -> int:
        """Number of frame references f."""
        return len(self.index)

    @property
    def frame_count(self) -> int:
        """Number of frames in all arenas."""
        return sum(len(arena) for arena in self.frames)

    @property
    def nbytes(self) -> int:
        """Bytes of all frames."""
        return sum(arena.nbytes for arena in self.frames)

    def frame(self, number: int) -> UInt8:
        """Return frame UInt8["h w 3"] by its number, without a copy."""
        for arena in self.frames:
            if number < len(arena):
                return arena[number]
            number -= len(arena)
        raise IndexError(number)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _fill_frames(self) -> None:
        count = self.frame_count
        self._fill("index", np.arange(count), None, 0, count - 1)
        f = len(self.index)
        for name, high in (("view", 255), ("role", 5)):
            self._fill(name, np.zeros(f, np.uint8), f, 0, high)
        if self.views and f and self.view.max() >= len(self.views):
            raise RequestError(
                f"ScoreRequest.view names camera {self.view.max()}, but views has only "
                f"{len(self.views)}: {', '.join(self.views)}"
            )
        self._fill("time", np.zeros(f, np.float32), f, -np.inf, np.inf)

    def _fill(
        self, name: str, default: np.ndarray, length: int | None, low: float, high: float
    ) -> None:
        """Check a column that was given; a default of ours needs no check."""
        given = getattr(self, name)
        if given is not None:
            default = _column(name, given, default.dtype, length, low, high)
        self._set(name, default)

    def _fill_items(self) -> None:
        f = len(self.index)
        self._fill("offsets", np.arange(f + 1), None, 0, f)
        offsets = self.offsets
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != f or (np.diff(offsets) < 0).any():
            raise RequestError(
                f"ScoreRequest.offsets must rise from 0 to the number of frame references {f} and "
                f"hold at least one item; got {offsets[:8].tolist()}"
                + ("..." if len(offsets) > 8 else "")
            )
        n = len(self)
        if self.text is None and self.texts and len(self.texts) not in (1, n):
            raise RequestError(
                f"ScoreRequest has {len(self.texts)} texts for {n} items: give `text`, the index "
                "of each item's text (-1 for none)"
            )
        per_item = n > 1 and len(self.texts) == n
        text = np.arange(n) if per_item else np.full(n, 0 if self.texts else NONE)
        default = {"text": text, "group": np.arange(n), "user": np.full(n, NONE)}
        high = {"text": len(self.texts) - 1, "group": 2**31, "user": 2**62}
        for name, fallback in default.items():
            self._fill(name, fallback, n, 0 if name == "group" else NONE, high[name])

    def _check_scalars(self) -> None:
        if not self.scorers or len(set(self.scorers)) < len(self.scorers):
            raise RequestError(
                f"ScoreRequest.scorers={self.scorers}: name at least one scorer, each once"
            )
        if not 0 <= int(self.passes) <= 1024:
            raise RequestError(f"ScoreRequest.passes={self.passes}: give 0 to 1024")
        if not 0 <= int(self.seed) < 2**64:
            raise RequestError(f"ScoreRequest.seed={self.seed}: give 0 to 2**64 - 1")
        if self.timeout is not None and not 0 < float(self.timeout) < 1e9:
            raise RequestError(f"ScoreRequest.timeout={self.timeout}: give positive seconds")
        try:
            self._set("priority", Priority(self.priority))
        except ValueError:
            known = ", ".join(f"{p.value} {p.name}" for p in Priority)
            raise RequestError(
                f"ScoreRequest.priority={self.priority!r}; accepted: {known}"
            ) from None


def _strings(name: str, value: str | Sequence[str], kind: type) -> tuple[str, ...]:
    value = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(v, kind) for v in value):
        raise RequestError(f"ScoreRequest.{name} must hold strings, got {value!r:.80}")
    return value


def _arenas(frames: UInt8 | Sequence[UInt8]) -> tuple[UInt8, ...]:
    arenas = (frames,) if isinstance(frames, np.ndarray) else tuple(frames)
    for k, arena in enumerate(arenas):
        what = getattr(arena, "dtype", type(arena).__name__)
        shape = getattr(arena, "shape", None)
        if not (isinstance(arena, np.ndarray) and arena.dtype == np.uint8 and arena.ndim == 4):
            raise RequestError(
                f"ScoreRequest.frames[{k}] must be uint8 [k h w 3], got {what} {shape}; stack "
                "single frames, and scale floats in [0, 1] by 255"
            )
        if arena.shape[3] != 3 or min(arena.shape[1:3]) < 1:
            raise RequestError(
                f"ScoreRequest.frames[{k}] has shape {shape}: need [k h w 3], channels last, RGB"
            )
    return arenas


def _column(
    name: str, value: object, dtype: npt.DTypeLike, length: int | None, low: float, high: float
) -> np.ndarray:
    array = np.asarray(value)
    wrong = array.ndim != 1 or (length is not None and len(array) != length)
    kind = np.dtype(dtype).kind
    accepted = "iu" if kind in "iu" else "iuf"
    if wrong or (array.size and array.dtype.kind not in accepted):
        expected = f"[{length}]" if length is not None else "[n]"
        raise RequestError(
            f"ScoreRequest.{name} must be {np.dtype(dtype).name} {expected}, got "
            f"{array.dtype} {list(array.shape)}"
        )
    if array.size and not ((array >= low) & (array <= high)).all():
        bad = array[~((array >= low) & (array <= high))][0]
        raise RequestError(f"ScoreRequest.{name} holds {bad}; accepted: {low} to {high}")
    return np.ascontiguousarray(array, dtype)


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)
