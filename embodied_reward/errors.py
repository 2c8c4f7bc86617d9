"""Every error a user can cause: what was expected, what came, what would be accepted."""

import difflib
from collections.abc import Iterable


class EmbodiedRewardError(Exception):
    """Base of all errors raised on purpose by this library."""


class ConfigError(EmbodiedRewardError):
    """A configuration key, value or combination that cannot be used."""


class DatasetError(EmbodiedRewardError):
    """A dataset that cannot be read, or that does not hold what was asked for."""


class EnvError(EmbodiedRewardError):
    """An environment that does not exist or cannot do what was asked of it."""


class CheckpointError(EmbodiedRewardError):
    """A checkpoint that is missing, incomplete or altered."""


class NonFiniteError(EmbodiedRewardError):
    """A NaN or infinity where a number was needed; nothing was updated."""


class ShapingError(EmbodiedRewardError):
    """A shaped return that is not what theory says; the reward would change the best policy."""


class RequestError(EmbodiedRewardError):
    """A scoring request that is malformed or over a limit; nothing was scored."""


class QueueFullError(EmbodiedRewardError):
    """A scoring request that was rejected because the queue is full; send it again later.

    Attributes:
        retry_after: seconds after which there may be room [s].
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ScoringError(EmbodiedRewardError):
    """Scores were asked for that do not exist: an item failed, or the scorer is not ready."""


class MissingDependencyError(EmbodiedRewardError):
    """An optional package that the requested feature needs."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` of the `known` names closest in spelling to `name`, best first."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.4)
    tail = name.rsplit(".", 1)[-1]
    by_tail = [k for k in known if k.rsplit(".", 1)[-1] == tail and k not in close]
    return (by_tail + close)[:count]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean 'a' or 'b'?", or the accepted names where none is close."""
    known = sorted(known)
    close = nearest(name, known)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"accepted: {shown}"
