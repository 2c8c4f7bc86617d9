"""The scoring core: requests of everybody in, scores out, each picture encoded once.

    with ScoringCore(cache=FeatureCache()) as core:
        core.register(scorer)
        scores = core.score(ScoreRequest(scorers=("mine",), frames=pictures))["mine"]
        scores.require_ok()

Guarantees: a lone request never waits for others; a reply never mixes versions of a head; an item
that failed is NaN with a status and leaves its neighbours alone; what cannot be queued is rejected
at once, never dropped; every wait ends.
"""

import contextlib
import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import ConfigError, QueueFullError, ScoringError
from embodied_reward.scoring.batch import ScoreBatch
from embodied_reward.scoring.cache import FeatureCache
from embodied_reward.scoring.differentiable import score_gradient
from embodied_reward.scoring.dispatcher import Dispatcher
from embodied_reward.scoring.hosted import Hosted
from embodied_reward.scoring.item_lane import ItemLane
from embodied_reward.scoring.job import Gather, Job, Key
from embodied_reward.scoring.keys import frame_keys
from embodied_reward.scoring.limits import Limits, cost
from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.saliency import explain_pictures
from embodied_reward.scoring.scorer import Head, ItemScorer, Scorer, ScorerCard, Trunk
from embodied_reward.scoring.stats import Stats
from embodied_reward.scoring.status import Priority, Status
from embodied_reward.scoring.watchdog import Watchdog
from embodied_reward.types import UInt8
from embodied_reward.vision.saliency import SaliencyMaps, SaliencyOptions

FEATURES = "features"  # stands where a request of `embed` would name a scorer
EMBED_CHUNK = 1024
CLOSE_TIMEOUT = 10.0


class ScoringCore:
    """Hosts scorers; safe to use from any thread. See the module docstring.

    Args:
        cache: features seen before; None keeps nothing and hashes nothing.
        mode: `tolerance` batches as load allows, so that a score may differ in its last bits
            (1e-5 of the scores' standard deviation in fp32); `strict` makes every score bit-equal
            whatever else is asked for, by one batch size and heads that see one item at a time.
        limits: bounds of requests and of the queue.
        max_batch: pictures of one trunk call in tolerance mode.
        canonical: pictures of every trunk call in strict mode.
        graphs: on CUDA, capture every trunk in a graph per batch size; that costs device memory
            and time at the first batch of a size. Trunks that cannot be captured run without. Give
            False where another thread draws random numbers on the same GPU meanwhile, as training
            does: while a graph is captured, torch refuses them.

    Raises:
        ConfigError: a mode or size that cannot be used.
    """

    def __init__(
        self,
        *,
        cache: FeatureCache | None = None,
        mode: Literal["tolerance", "strict"] = "tolerance",
        limits: Limits | None = None,
        max_batch: int = 64,
        canonical: int = 16,
        graphs: bool = True,
    ) -> None:
        if mode not in ("tolerance", "strict"):
            raise ConfigError(f"mode={mode!r}; accepted: tolerance, strict")
        if max_batch < 1 or canonical < 1:
            raise ConfigError(f"max_batch={max_batch}, canonical={canonical}: need at least 1")
        self.limits, self.mode, self.cache = limits or Limits(), mode, cache
        self._strict, self._stats = mode == "strict", Stats()
        self._hosted = Hosted(
            lambda s: ItemLane(s, self._reply, strict=self._strict, stats=self._stats)
        )
        self._lock, self._open = threading.Lock(), True
        self._queued, self._jobs = 0, dict[Future, Job]()
        self._serial = itertools.count()
        self._watchdog = Watchdog(lambda job: self._give_up(job, Status.TIMEOUT, "deadline passed"))
        self._dispatcher = Dispatcher(
            version=self._hosted.version,
            reply=self._reply,
            features=self._finish_features,
            broken=self._fail,
            cache=cache,
            max_batch=max_batch,
            canonical=canonical if self._strict else None,
            graphs=graphs,
            stats=self._stats,
        )

    # --- scorers ---

    def register(self, scorer: Scorer | ItemScorer) -> None:
        """Host a scorer under its card's name. Raises ConfigError for a name that is taken."""
        self._hosted.add(scorer)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the registered scorers."""
        return self._hosted.names

    def card(self, name: str) -> ScorerCard:
        """Return a scorer's card. Raises RequestError for an unknown name."""
        return self._hosted.card(name)

    def ready(self, name: str) -> bool:
        """Return False for a scorer whose last replies held no score at all."""
        return self._hosted.answers(name) and self._open

    def swap_head(self, name: str, head: Head, digest: str = "") -> int:
        """Exchange a head; the trunk's features stay cached.

        Args:
            name: a scorer with a trunk.
            head: a new object; the old one must not be trained while it is in use.
            digest: sha256 of the head's weights; worked out if empty.

        Returns:
            The number of the new version, which replies carry from now on.

        Raises:
            RequestError: there is no such scorer. ConfigError: it has no head of its own.
        """
        return self._hosted.swap(name, head, digest)

    # --- scoring ---

    def score(self, request: ScoreRequest) -> dict[str, ScoreBatch]:
        """Score and wait; one `ScoreBatch` per scorer. Raises as `submit` does."""
        return self.submit(request).result()

    def submit(self, request: ScoreRequest) -> "Future[dict[str, ScoreBatch]]":
        """Queue a request.

        Raises:
            RequestError: an unknown scorer, or a request over a limit.
            QueueFullError: too much is queued; nothing of this request is.
            ScoringError: the core was closed.
        """
        for name in request.scorers:
            self._hosted.check(name)
        lanes = self._hosted.item_lanes
        trunks = {n: self._hosted.trunk(n) for n in request.scorers if n not in lanes}
        return self._send(request, trunks).future

    def embed(
        self,
        trunk: Trunk,
        frames: UInt8 | Tensor | Sequence[UInt8],
        *,
        priority: Priority = Priority.TRAINER,
    ) -> Tensor:
        """Return features Tensor["n d"] of frames uint8 ["n h w 3"], n >= 1, cached and batched.

        Any number of frames, or of arrays of frames whose sizes may differ; what else is asked for
        gets its turn in between.

        Raises:
            ScoringError: the trunk failed on a picture. RequestError, QueueFullError: see `submit`.
        """
        if isinstance(frames, Tensor):
            frames = frames.cpu().numpy()
        if len(frames) > EMBED_CHUNK:
            chunks = [frames[k : k + EMBED_CHUNK] for k in range(0, len(frames), EMBED_CHUNK)]
            return torch.cat([self.embed(trunk, c, priority=priority) for c in chunks])
        request = ScoreRequest(
            scorers=(FEATURES,),
            frames=frames,  # type: ignore[arg-type]
            priority=priority,
        )
        return self._send(request, {FEATURES: trunk}, embeds=True).future.result()

    def prefetch(self, trunk: Trunk, frames: UInt8 | Tensor) -> None:
        """Begin to encode frames that `embed` will be asked for, without waiting.

        Does nothing where it is of no use: without a cache, or with a full queue.
        """
        if self.cache is None:
            return
        if isinstance(frames, Tensor):
            frames = frames.cpu().numpy()
        request = ScoreRequest(
            scorers=(FEATURES,),
            frames=frames,  # type: ignore[arg-type]
            priority=Priority.CONTROL,
        )
        with contextlib.suppress(QueueFullError):
            self._send(request, {FEATURES: trunk}, embeds=True)

    def gradient(
        self, name: str, images: Tensor, texts: Sequence[str] = ()
    ) -> tuple[Tensor, Tensor]:
        """Return scores Tensor["n"] and their gradients in float images ["n 3 h w"] in [0, 1].

        Runs in the caller's thread, without cache. Raises ConfigError for a scorer without trunk.
        """
        trunk, version = self._hosted.trunk(name), self._hosted.version(name)
        return score_gradient(Scorer(version.card, trunk, version.head), images, texts)

    def explain(
        self,
        name: str,
        frames: UInt8,
        options: SaliencyOptions | None = None,
        *,
        text: str = "",
        reference: UInt8 | None = None,
    ) -> SaliencyMaps:
        """Return where a scorer looks in pictures UInt8["n h w 3"], each an item of its own.

        Runs in the caller's thread, without cache. Raises ConfigError for a scorer without trunk,
        or a method that does not fit it; see `scoring.saliency`.
        """
        trunk, version = self._hosted.trunk(name), self._hosted.version(name)
        scorer = Scorer(version.card, trunk, version.head)
        return explain_pictures(scorer, frames, options, text=text, reference=reference)

    def stats(self) -> dict[str, float]:
        """Return counters since the start, and what is queued now."""
        return {**self._stats.read(), "queued": self._queued, "unfinished": len(self._jobs)}

    # --- life ---

    def close(self) -> None:
        """Stop the threads; unfinished requests become SHED, the cache's disk level is written."""
        with self._lock:
            self._open = False
        self._dispatcher.close(CLOSE_TIMEOUT)
        for lane in self._hosted.item_lanes.values():
            lane.close(CLOSE_TIMEOUT)
        for job in list(self._jobs.values()):
            self._give_up(job, Status.SHED, "the core was closed")
        self._watchdog.close()
        if self.cache is not None:
            self.cache.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside ---

    def _send(
        self, request: ScoreRequest, trunks: dict[str, Trunk], *, embeds: bool = False
    ) -> Job:
        self.limits.check(request)
        size = cost(request)
        self._reserve(size)
        try:
            job = Job(
                request,
                self._keys(request),
                max_wait=self.limits.max_wait,
                ageing=self.limits.ageing,
                embeds=embeds,
            )
        except BaseException:
            self._release(size)
            raise
        with self._lock:
            self._jobs[job.future] = job
        # The callback must not hold the job, or the two would keep its pictures until the next
        # garbage collection.
        job.future.add_done_callback(lambda future: self._done(future, size))
        self._watchdog.add(job)
        if trunks:
            self._dispatcher.send(job, trunks)
        for name in () if embeds else request.scorers:
            if name in self._hosted.item_lanes:
                self._hosted.item_lanes[name].admit(job)
        return job

    def _keys(self, request: ScoreRequest) -> Sequence[Key]:
        if self.cache is not None:
            return frame_keys(request.frames, self.cache.digest)
        serial = next(self._serial)
        return [(serial, k) for k in range(request.frame_count)]

    def _reserve(self, size: int) -> None:
        with self._lock:
            if not self._open:
                raise ScoringError("the scoring core was closed")
            if self._queued + size > self.limits.max_queued:
                self._stats.add(rejected=1)
                raise QueueFullError(
                    f"{self._queued} frames and items are queued, {size} more would exceed "
                    f"max_queued={self.limits.max_queued}: try again later",
                    retry_after=self._retry_after(),
                )
            self._queued += size

    def _retry_after(self) -> float:
        sums = self._stats.read()
        seconds = sums.get("trunk_seconds", 0.0) / max(sums.get("trunk_images", 0.0), 1.0)
        return float(np.clip(0.5 * self._queued * seconds, 0.01, 60.0))

    def _release(self, size: int) -> None:
        with self._lock:
            self._queued -= size

    def _done(self, future: Future, size: int) -> None:
        with self._lock:
            self._queued -= size
            del self._jobs[future]

    def _reply(self, job: Job, name: str, batch: ScoreBatch) -> None:
        self._count(name, batch)
        with self._lock:
            job.replies[name] = batch
            wanted = job.request.scorers
            complete = all(n in job.replies for n in wanted)
        if complete:
            job.finish({n: job.replies[n] for n in wanted})

    def _fail(self, job: Job, name: str, why: str) -> None:
        """Answer for one scorer that cannot; the job's other scorers still may."""
        if job.embeds:
            self._give_up(job, Status.SCORER_ERROR, why)
            return
        n = len(job.request)
        self._reply(job, name, ScoreBatch.failed(n, Status.SCORER_ERROR, scorer=name, why=why))

    def _count(self, name: str, batch: ScoreBatch) -> None:
        good = batch.score[batch.ok].astype(np.float64)
        self._hosted.note(name, batch)
        counts = np.bincount(batch.status, minlength=len(Status))
        by_status = {f"status/{s.name}/{name}": int(counts[s]) for s in Status if counts[s]}
        self._stats.add(
            **by_status,
            **{f"sum/{name}": float(good.sum()), f"square/{name}": float((good**2).sum())},
        )

    def _finish_features(self, job: Job, gather: Gather) -> None:
        if gather.failed:
            row, why = next(iter(gather.failed.items()))
            job.finish(ScoringError(f"no features of frame {row}: {why}"))
        else:
            features = gather.features.clone()  # the caller's own
            if features.device.type == "cuda":
                # The caller may use any stream, so the features must be there by now.
                torch.cuda.current_stream(features.device).synchronize()
            job.finish(features)

    def _give_up(self, job: Job, status: Status, why: str) -> None:
        if job.embeds:
            job.finish(ScoringError(f"no features: {status.name}, {why}"))
            return
        n = len(job.request)
        with self._lock:
            replies: dict[str, Any] = {
                name: job.replies.get(name) or ScoreBatch.failed(n, status, scorer=name, why=why)
                for name in job.request.scorers
            }
        if job.finish(replies):
            for name, batch in replies.items():
                if name not in job.replies:
                    self._count(name, batch)
