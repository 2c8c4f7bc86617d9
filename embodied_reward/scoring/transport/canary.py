"""Readiness: a scorer is ready once it has scored a picture that never changes.

The card may say what the score must be, `extra["canary"]`: then other weights, another
preprocessing or a broken device are noticed before the first client is.
"""

import math
import threading
from collections.abc import Mapping

import numpy as np

from embodied_reward.errors import EmbodiedRewardError
from embodied_reward.scoring.card import ScorerCard
from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.status import Role, Status
from embodied_reward.scoring.transport.core import Core
from embodied_reward.types import UInt8

RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""Tolerance of the canary's score, wide enough for another processor's fp32."""
SIDE = 64
TIMEOUT = 120.0


def canary_request(card: ScorerCard, *, text: bool = True) -> ScoreRequest:
    """Return two candidates with every role in every view, and a text if wanted."""
    views = tuple(card.extra.get("views", ()))
    roles = np.array([role for _ in range(max(1, len(views))) for role in Role], np.uint8)
    f = len(roles)
    view = np.repeat(np.arange(max(1, len(views))), len(Role))
    return ScoreRequest(
        scorers=(card.name,),
        frames=(np.stack([_picture(k) for k in range(2 * f)]),),
        offsets=np.array([0, f, 2 * f]),
        time=np.tile(np.arange(f), 2).astype(np.float32),
        view=np.tile(view, 2).astype(np.uint8),
        role=np.tile(roles, 2),
        views=views,
        texts=("the robot opens the door",) if text else (),
        group=np.zeros(2, np.int64),
        timeout=TIMEOUT,
    )


def _picture(k: int) -> UInt8:
    """Return UInt8["h w 3"]: waves whose direction and length depend on k."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    phase = np.stack([x * (k + 1), y * (k + 2), (x + y) * (k % 3 + 1)], -1)
    return np.round(127.5 + 127.5 * np.sin(2 * np.pi * phase)).astype(np.uint8)


class Canary:
    """Keeps which scorers are ready, and why the others are not.

    Args:
        core: hosts the scorers.
        requests: scorer -> a request of its own, for scorers that the general one does not suit;
            its first item counts.
    """

    def __init__(self, core: Core, requests: Mapping[str, ScoreRequest] | None = None) -> None:
        self._core, self._requests = core, dict(requests or {})
        self._passed: set[str] = set()
        self._why: dict[str, str] = {}
        self._lock = threading.Lock()

    def problems(self) -> dict[str, str]:
        """Return scorer -> why it is not ready, of those that are not. Computes nothing."""
        return {
            name: self._why.get(name, "warming up")
            for name in self._core.names
            if name not in self._passed or not self._core.ready(name)
        }

    def check(self) -> dict[str, str]:
        """Ask every scorer that is not ready for its canary's score; returns `problems()`."""
        with self._lock:
            for name in self.problems():
                why = self._ask(name)
                self._why[name] = why
                (self._passed.discard if why else self._passed.add)(name)
        return self.problems()

    def _ask(self, name: str) -> str:
        """Return what is wrong with a scorer, or nothing."""
        card = self._core.card(name)
        if name in self._requests:
            return self._try(card, self._requests[name])
        # Some scorers need a text, others have no text tower.
        why = self._try(card, canary_request(card))
        return why and self._try(card, canary_request(card, text=False)) and why

    def _try(self, card: ScorerCard, request: ScoreRequest) -> str:
        name = card.name
        try:
            batch = self._core.submit(request).result(TIMEOUT + 10)[name]
        except (EmbodiedRewardError, TimeoutError) as error:
            return f"{type(error).__name__}: {error}"
        status, score = Status(batch.status[0]), float(batch.score[0])
        if status != Status.OK:
            return f"{status.name} on the canary: {batch.detail.get(0, 'no reason given')}"
        expected = card.extra.get("canary")
        if expected is None or math.isclose(
            score, float(expected), rel_tol=RELATIVE, abs_tol=ABSOLUTE
        ):
            return ""
        return f"the canary scores {score:.6g}, its card says {float(expected):.6g}"
