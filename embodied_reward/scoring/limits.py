"""Bounds that are checked before any memory is allocated, and what waiting costs."""

from dataclasses import dataclass

from embodied_reward.errors import RequestError
from embodied_reward.scoring.request import ScoreRequest


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may ask for, and how much may wait.

    Attributes:
        max_items: items of one request.
        max_frames: frames, and frame references, of one request.
        max_bytes: bytes of pixels of one request.
        max_text: characters of one text.
        max_queued: frames and items of all unfinished requests together.
        max_wait: seconds until an unfinished request without a timeout becomes `TIMEOUT` [s].
        ageing: seconds of waiting that outweigh one step of priority [s].
    """

    max_items: int = 65_536
    max_frames: int = 65_536
    max_bytes: int = 4 << 30
    max_text: int = 32_768
    max_queued: int = 131_072
    max_wait: float = 600.0
    ageing: float = 5.0

    def check(self, request: ScoreRequest) -> None:
        """Raise RequestError if one request is over a limit; it would never be accepted."""
        sizes = {
            "max_items": len(request),
            "max_frames": max(request.frame_count, request.references),
            "max_bytes": request.nbytes,
            "max_text": max((len(text) for text in request.texts), default=0),
        }
        for name, size in sizes.items():
            if size > getattr(self, name):
                raise RequestError(
                    f"the request has {size} where {name}={getattr(self, name)} is the limit: "
                    "split it, or start the core with a higher limit"
                )
        if cost(request) > self.max_queued:
            raise RequestError(
                f"the request alone needs {cost(request)} places of the queue's "
                f"max_queued={self.max_queued}: split it"
            )


def cost(request: ScoreRequest) -> int:
    """Return how many places of the queue a request takes."""
    return max(request.frame_count, len(request))
