"""The actor's end of the network, in a thread of its own: a robot never waits for it.

Finished episodes go to a folder at once and are sent from there, oldest first, until the learner
says that it has them on its disk; newer parameters are fetched and checked. Whatever fails is said
once and tried again.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from torch import nn

from embodied_reward.cli.pair.messages import Body, Terms, Weights, decode_policy, largest
from embodied_reward.errors import (
    EmbodiedRewardError,
    QueueFullError,
    RequestError,
    ScoringError,
)
from embodied_reward.files import replacing
from embodied_reward.policies.experience import Experience, encode
from embodied_reward.scoring.transport.caller import HttpCaller

HINT = "Is the learner running (er rollout --mode=learn), and is its address right?"
CALL = 30.0
"""Seconds that one call may take; only this thread waits for it."""
STARTING = 30.0
"""Seconds that an actor waits for a learner that does not listen yet."""
_POLL, _AGAIN = 0.2, 1.0  # between two questions for a newer policy; after a failure [s]
_JSON = 1 << 20  # longest answer that is no policy [bytes]


class Link:
    """Sends episodes and fetches policies until it is closed.

    Args:
        url: of the learner.
        token: of the learner.
        folder: where episodes wait to be sent.
        say: shows one line.

    Attributes:
        alive: whether the newest call was answered.
    """

    def __init__(self, url: str, token: str, folder: Path, say: Callable[[str], None]) -> None:
        self._caller = HttpCaller(url, token or None, CALL, hint=HINT)
        self._caller.max_reply = _JSON
        self._folder, self._say = folder, say
        self._stop, self._wake = threading.Event(), threading.Event()
        self._network: nn.Module | None = None
        self._newest: Weights | None = None
        self._known, self._problem = "", ""
        self._thread: threading.Thread | None = None
        self.alive = True

    def meet(self, body: Body, patience: float, stopped: Callable[[], bool]) -> Terms:
        """Describe the robot, send what an earlier run left, and wait for the learner's terms.

        Raises:
            RequestError: the learner refuses this robot, this reward model or the token.
            ScoringError: nobody answers, or not within `patience` seconds.
            KeyboardInterrupt: stopped.
        """
        try:
            return self._met(body, patience, stopped)
        finally:
            self._caller.close()  # this thread's connection

    def _met(self, body: Body, patience: float, stopped: Callable[[], bool]) -> Terms:
        end = time.monotonic() + patience
        self._greet(body, time.monotonic() + min(patience, STARTING), stopped)
        self._send()
        while not stopped():
            try:
                return Terms.decode(self._get("/v1/terms"))
            except QueueFullError as error:
                if time.monotonic() > end:
                    raise ScoringError(
                        f"the learner at {self._caller.url} had no policy after {patience:g} s; "
                        "raise --pair.patience"
                    ) from error
                time.sleep(_POLL)
        raise KeyboardInterrupt

    def start(self, network: nn.Module) -> None:
        """Begin to send and to fetch parameters of networks like this one."""
        self._network = network
        self._thread = threading.Thread(target=self._run, name="er-learner", daemon=True)
        self._thread.start()

    def put(self, episode: Experience) -> None:
        """Keep an episode until the learner has it; returns when it is on the disk."""
        with replacing(self._folder / f"{episode.id}.safetensors") as temporary:
            temporary.write_bytes(encode(episode))
        self._wake.set()

    def take(self) -> Weights | None:
        """Return parameters that are newer than those taken before, None where there are none."""
        newest, self._newest = self._newest, None
        return newest

    @property
    def waiting(self) -> list[Path]:
        """Episodes that the learner does not have yet, oldest first."""
        return sorted(self._folder.glob("[!.]*.safetensors"))

    def close(self) -> None:
        """Stop; what was not sent stays in the folder."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2.0)

    def _greet(self, body: Body, end: float, stopped: Callable[[], bool]) -> None:
        while not stopped():
            try:
                return self._post("/v1/body", body.encode())
            except ScoringError as error:
                if time.monotonic() > end:
                    raise
                self._bad(error)
                time.sleep(_AGAIN)
        raise KeyboardInterrupt

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._send()
                self._fetch()
                self._good()
                wait = _POLL
            except QueueFullError as full:
                wait = full.retry_after
            except (EmbodiedRewardError, OSError) as error:
                self._bad(error)
                wait = _AGAIN
            self._wake.wait(wait)
            self._wake.clear()
        self._caller.close()

    def _send(self) -> None:
        for path in self.waiting:
            if self._stop.is_set():
                return
            self._post("/v1/episode", path.read_bytes())
            path.unlink()

    def _fetch(self) -> None:
        assert self._network is not None
        self._caller.max_reply = largest(self._network)
        try:
            data = self._get(f"/v1/policy?known={self._known}")
        finally:
            self._caller.max_reply = _JSON
        if data:
            weights = decode_policy(data, self._network)
            self._known, self._newest = weights.version, weights
            if weights.final:
                self._get(f"/v1/policy?known={self._known}")  # it arrived: the learner may end
                self._stop.set()

    def _post(self, path: str, data: bytes) -> None:
        self._caller.call("POST", path, [data], time.monotonic() + CALL)

    def _get(self, path: str) -> bytearray:
        return self._caller.call("GET", path, [], time.monotonic() + CALL)

    def _good(self) -> None:
        if self._problem:
            self._say("the learner answers again")
        self._problem, self.alive = "", True

    def _bad(self, error: Exception) -> None:
        # Another sentence for the same failure would be noise: a learner may be away for hours.
        kind = type(error).__name__
        if kind != self._problem:
            verb = "refuses" if isinstance(error, RequestError) else "is away"
            self._say(f"the learner {verb}: {error}")
            if self._thread is not None:
                self._say("the policy that is here goes on; episodes are kept and sent later")
        self._problem, self.alive = kind, False


@contextlib.contextmanager
def linked(link: Link):  # noqa: ANN201
    """Close a link at the end."""
    try:
        yield link
    finally:
        link.close()
