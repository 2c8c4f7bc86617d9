"""A scorer as a reward function of TRL's trainers (GRPO, RLOO), or of any trainer of their kind.

    trainer = GRPOTrainer(..., reward_funcs=[reward_function(core, "clip", images="images")])

TRL calls a reward function with `prompts`, `completions` and every column of the dataset, and
takes a float per completion, or None where there is none. An item that failed is None here and
never 0.0: in a group of 24 scores of 0.80 +- 0.05, one 0.0 makes the standard deviation three
times as large and everybody else's advantage a third. TRL leaves None out of the group's mean and
deviation since its pull request 5902 (2026); before, a completion with no reward at all counted
as 0.0. `group_advantages` does it right for trainers of one's own.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from embodied_reward.errors import QueueFullError, RequestError
from embodied_reward.scoring.batch import ScoreBatch
from embodied_reward.scoring.request import NONE, ScoreRequest
from embodied_reward.types import Float64, UInt8

Failure = Literal["none", "raise"]
RewardFunction = Callable[..., list[float | None]]


class Source(Protocol):
    """A `ScoringCore`, or a client of one."""

    def score(self, request: ScoreRequest) -> dict[str, ScoreBatch]:
        """Score and wait."""
        ...


def reward_function(
    source: Source,
    scorer: str,
    *,
    images: str = "images",
    text: str = "prompts",
    on_failure: Failure = "none",
    timeout: float | None = None,
    name: str = "",
) -> RewardFunction:
    """Return a function for `reward_funcs`.

    Args:
        source: a core in this process, or a client of one elsewhere.
        scorer: name of the scorer.
        images: column that holds a picture per completion, or a list of them (frames of a clip):
            PIL images, uint8 arrays ["h w 3"] or paths. `completions`, where they are pictures.
        text: column with the text per completion: `prompts`, `completions` or a dataset's column;
            of a conversation, the last message counts. Empty sends no text.
        on_failure: `none` reports a failed item as None; `raise` stops the training.
        timeout: seconds for one batch, waiting for a full queue included [s].
        name: under which the trainer logs it; default: the scorer's name.

    The function raises RequestError for a column that is missing or holds no pictures, and
    ScoringError if the whole request failed, since None for everybody would look like training.
    """
    if on_failure not in ("none", "raise"):
        raise RequestError(f"on_failure={on_failure!r}; accepted: none, raise")

    def function(
        prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        given = {**columns, "prompts": prompts, "completions": completions}
        pictures = [_frames(v, images) for v in _column(given, images, len(completions))]
        texts = None
        if text:
            texts = [_text(value) for value in _column(given, text, len(completions))]
        batch = _ask(source, _request(scorer, pictures, texts, timeout))[scorer]
        if on_failure == "raise" or not batch.ok.any():
            batch.require_ok()
        _log(columns.get("log_metric"), function.__name__, batch)
        return [float(s) if ok else None for s, ok in zip(batch.score, batch.ok, strict=True)]

    function.__name__ = function.__qualname__ = name or scorer
    return function


def group_advantages(
    rewards: Sequence[float | None] | npt.ArrayLike,
    group_size: int,
    *,
    scale: bool = True,
    eps: float = 1e-4,
) -> Float64:
    """Return GRPO's advantages (r - mean) / (std + eps) of groups, as if failures were not there.

    Args:
        rewards: n rewards, groups after one another; None or NaN where there is none.
        group_size: completions of one prompt.
        scale: divide by the group's standard deviation (unbiased, as TRL's).
        eps: added to it.

    Returns:
        Float64["n"]; 0 (no gradient) for items without a reward and for groups of one reward.

    Raises:
        RequestError: n is no multiple of the group size.
    """
    values = np.array([np.nan if r is None else r for r in rewards], np.float64)  # type: ignore[union-attr]
    if group_size < 1 or len(values) % group_size:
        raise RequestError(f"{len(values)} rewards do not make groups of {group_size}")
    groups = values.reshape(-1, group_size)
    valid = np.isfinite(groups)
    count = valid.sum(1, keepdims=True)
    filled = np.where(valid, groups, 0.0)
    mean = filled.sum(1, keepdims=True) / np.maximum(count, 1)
    centred = np.where(valid, groups - mean, 0.0)
    variance = (centred**2).sum(1, keepdims=True) / np.maximum(count - 1, 1)
    return (centred / (np.sqrt(variance) + eps) if scale else centred).reshape(-1)


def _column(given: dict[str, Any], name: str, n: int) -> Sequence[Any]:
    if name not in given:
        known = ", ".join(sorted(k for k, v in given.items() if isinstance(v, list)))
        raise RequestError(f"the trainer passed no column '{name}'; it passed: {known}")
    column = given[name]
    if len(column) != n:
        raise RequestError(f"column '{name}' has {len(column)} entries for {n} completions")
    return column


def _frames(value: Any, column: str) -> list[UInt8]:
    """Return the pictures of one entry, UInt8["h w 3"] each; none for None."""
    if value is None:
        return []
    many = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 4)
    return [_picture(v, column) for v in (value if many else [value])]


def _picture(value: Any, column: str) -> UInt8:
    import PIL.Image

    if isinstance(value, str | Path):
        with PIL.Image.open(value) as image:
            return np.asarray(image.convert("RGB"))
    if isinstance(value, PIL.Image.Image):
        return np.asarray(value.convert("RGB"))
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3:
        return value
    what = getattr(value, "dtype", "")
    raise RequestError(
        f"column '{column}' holds a {type(value).__name__} {what}".rstrip()
        + ": give PIL images, uint8 arrays [h w 3] or paths"
    )


def _text(value: Any) -> str:
    """Return a text, or that of the last message of a conversation."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1]
    content = value.get("content", "") if isinstance(value, dict) else ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content if part.get("type") == "text")


def _request(
    scorer: str, pictures: list[list[UInt8]], texts: list[str] | None, timeout: float | None
) -> ScoreRequest:
    frames = [frame[None] for item in pictures for frame in item]
    unique = list(dict.fromkeys(texts or []))
    place = {text: i for i, text in enumerate(unique)}
    text = [place[t] for t in texts] if texts else [NONE] * len(pictures)
    return ScoreRequest(
        scorers=(scorer,),
        frames=tuple(frames),
        offsets=np.cumsum([0, *map(len, pictures)]),
        texts=tuple(unique),
        text=np.array(text),
        timeout=timeout,
    )


def _ask(source: Source, request: ScoreRequest) -> dict[str, ScoreBatch]:
    """Score; wait while the queue is full, for as long as the request may take."""
    deadline = time.monotonic() + (600.0 if request.timeout is None else request.timeout)
    while True:
        try:
            return source.score(request)
        except QueueFullError as error:
            if time.monotonic() + error.retry_after >= deadline:
                raise
            time.sleep(error.retry_after)


def _log(log_metric: Any, name: str, batch: ScoreBatch) -> None:
    """Tell the trainer which share failed, where it offers to log (TRL's `log_metric`)."""
    if callable(log_metric):
        log_metric(f"{name}/failed", float((~batch.ok).mean()))
