"""The card of a scorer. It stands apart from the scorer because clients must not load torch."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ScorerCard:
    """What a scorer is, for logs, replies and checks.

    Attributes:
        name: by which requests ask for it.
        type: kind of head or item scorer (`bradley_terry`, `yes_token`, ...).
        weights_sha256: digest of trunk and head weights together.
        trunk_sha256: digest of the trunk's weights and architecture.
        head_sha256: digest of the head's weights.
        preprocess: name of the preprocessing, which fixes every pixel the trunk sees.
        dim_names: names of the columns of `dims`.
        score_range: closed range of `score`.
        dtype: dtype the trunk computes in.
        normalizer: (mean, std) per dimension that the head's outputs were divided by, or empty.
        licence: of the weights.
        source: paper or repository.
        extra: whatever else a user should know, JSON types.
    """

    name: str
    type: str
    weights_sha256: str = ""
    trunk_sha256: str = ""
    head_sha256: str = ""
    preprocess: str = ""
    dim_names: tuple[str, ...] = ()
    score_range: tuple[float, float] = (float("-inf"), float("inf"))
    dtype: str = "float32"
    normalizer: tuple[tuple[float, float], ...] = ()
    licence: str = ""
    source: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; an unbounded range becomes None."""
        tree = dataclasses.asdict(self)
        tree["score_range"] = [b if math.isfinite(b) else None for b in self.score_range]
        return tree

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "ScorerCard":
        """Read back what `to_dict` wrote. Raises KeyError, TypeError or ValueError otherwise."""
        low, high = tree["score_range"]
        return cls(
            **{
                **tree,
                "dim_names": tuple(tree["dim_names"]),
                "score_range": (
                    -math.inf if low is None else float(low),
                    math.inf if high is None else float(high),
                ),
                "normalizer": tuple((float(m), float(s)) for m, s in tree["normalizer"]),
            }
        )
