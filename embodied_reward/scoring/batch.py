"""What a caller gets: scores in columns, with the outcome of every item."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np

from embodied_reward.errors import ScoringError
from embodied_reward.scoring.status import Status
from embodied_reward.types import Bool, Float32, Int64, UInt8

FLOATS = ("score", "dims", "aleatoric", "epistemic", "per_view")


@dataclass(frozen=True, kw_only=True)
class ScoreBatch:
    """Scores of n items by one scorer in one version. There is no fill value on purpose.

    An item whose status is not `OK` is NaN in every column. A column that the scorer does not
    give is NaN as well (`dims` and `per_view` then have no columns).

    Attributes:
        score: Float32["n"].
        status: UInt8["n"], a `Status`.
        scorer: name of the scorer.
        weights_sha256: digest of trunk and head.
        head_version: counts the exchanges of the head; one reply never mixes versions.
        preprocess: name of the preprocessing.
        dims: Float32["n k"], named by `dim_names`.
        dim_names: k names.
        aleatoric: Float32["n"], standard deviation that the model predicts of itself.
        epistemic: Float32["n"], standard deviation over heads or passes.
        per_frame: Float32["f"], aligned with the request's frame references, or empty.
        per_view: Float32["n v"], aligned with the request's `views`.
        detail: item -> what went wrong, for messages.
        cached: UInt8["n"], 1 where no trunk work was needed.
        seconds: stage -> time [s]: `queue` before the engine looked at it, `head`.
    """

    score: Float32
    status: UInt8
    scorer: str
    weights_sha256: str = ""
    head_version: int = 0
    preprocess: str = ""
    dims: Float32 = field(default=None)  # type: ignore[assignment]
    dim_names: tuple[str, ...] = ()
    aleatoric: Float32 = field(default=None)  # type: ignore[assignment]
    epistemic: Float32 = field(default=None)  # type: ignore[assignment]
    per_frame: Float32 = field(default=None)  # type: ignore[assignment]
    per_view: Float32 = field(default=None)  # type: ignore[assignment]
    detail: Mapping[int, str] = field(default_factory=dict)
    cached: UInt8 = field(default=None)  # type: ignore[assignment]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill absent columns with NaN, and NaN into every item that failed."""
        n = len(self.score)
        status = np.array(self.status, np.uint8)
        score = np.array(self.score, np.float32)
        status[(status == Status.OK) & ~np.isfinite(score)] = Status.SCORER_ERROR
        failed = status != Status.OK
        shapes = {"dims": (n, 0), "per_view": (n, 0)}
        object.__setattr__(self, "status", status)
        for name in FLOATS:
            given = getattr(self, name)
            fresh = np.full(shapes.get(name, (n,)), np.nan, np.float32)
            column = fresh if given is None else np.array(given, np.float32)
            column[failed] = np.nan
            object.__setattr__(self, name, column)
        per_frame = np.zeros(0) if self.per_frame is None else self.per_frame
        object.__setattr__(self, "per_frame", np.array(per_frame, np.float32))
        cached = np.zeros(n) if self.cached is None else self.cached
        object.__setattr__(self, "cached", np.array(cached, np.uint8))

    @classmethod
    def failed(cls, n: int, status: Status, *, scorer: str, why: str = "") -> "ScoreBatch":
        """Return n items that all failed in the same way."""
        return cls(
            score=np.full(n, np.nan, np.float32),
            status=np.full(n, status, np.uint8),
            scorer=scorer,
            detail=dict.fromkeys(range(n), why) if why else {},
        )

    def __len__(self) -> int:
        return len(self.score)

    def __eq__(self, other: object) -> bool:
        """Compare by value, bit by bit, leaving times and cache hits out."""
        if not isinstance(other, ScoreBatch):
            return NotImplemented
        names = [f.name for f in fields(self) if f.name not in ("seconds", "cached")]
        return all(_same(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # type: ignore[assignment]

    @property
    def ok(self) -> Bool:
        """Bool["n"], which items have a score."""
        return self.status == Status.OK

    def require_ok(self) -> Float32:
        """Return the scores Float32["n"]. Raises ScoringError if any item failed."""
        if not self.ok.all():
            item = int(np.argmin(self.ok))
            count, name = int((~self.ok).sum()), Status(self.status[item]).name
            raise ScoringError(
                f"'{self.scorer}' gave no score for {count} of {len(self)} items; the first is "
                f"item {item}: {name} {self.detail.get(item, '')}".rstrip()
                + ". Use masked() to go on with the others"
            )
        return self.score

    def masked(self) -> tuple[Float32, Bool]:
        """Return the scores Float32["n"], NaN where they failed, and the mask Bool["n"]."""
        return self.score, self.ok

    def take(self, items: Int64) -> "ScoreBatch":
        """Return the chosen items, in that order; `per_frame` is dropped."""
        columns = {name: getattr(self, name)[items] for name in (*FLOATS, "status", "cached")}
        detail = {k: self.detail[i] for k, i in enumerate(items) if i in self.detail}
        return replace(self, **columns, detail=detail, per_frame=None)  # type: ignore[arg-type]


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(a == b)
