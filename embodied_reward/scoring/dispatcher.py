"""The one thread that runs trunks and heads: admit, launch, collect, score, answer.

It never sleeps while a picture waits: an idle device takes a lone request at once, and what
arrives while a batch is computed makes up the next one.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from embodied_reward.scoring.cache import FeatureCache
from embodied_reward.scoring.evaluate import Part, Version, evaluate
from embodied_reward.scoring.job import Gather, Job
from embodied_reward.scoring.lane import Lane
from embodied_reward.scoring.runner import Runner
from embodied_reward.scoring.scorer import Trunk
from embodied_reward.scoring.stats import Stats
from embodied_reward.scoring.text_features import TextFeatures

Ready = tuple[Job, str, Gather]
"""A job, the scorer that it asks, and its features, which are complete."""


class Dispatcher:
    """Serve jobs until closed.

    Args:
        version: scorer name -> its head at this moment.
        reply: takes a job, a scorer's name and its `ScoreBatch`.
        features: takes a job of `embed` and its completed gather.
        broken: takes a job, the scorer that cannot answer it, and what went wrong.
        cache: features seen before, or None.
        max_batch: pictures of one trunk call.
        canonical: the one batch size of strict mode, or None.
        graphs: on CUDA, capture trunks in graphs.
        stats: counters.
    """

    def __init__(
        self,
        *,
        version: Callable[[str], Version],
        reply: Callable,
        features: Callable[[Job, Gather], None],
        broken: Callable[[Job, str, str], None],
        cache: FeatureCache | None,
        max_batch: int,
        canonical: int | None,
        graphs: bool,
        stats: Stats,
    ) -> None:
        self._version, self._reply, self._features = version, reply, features
        self._broken, self._cache, self._stats = broken, cache, stats
        self._max_batch, self._canonical, self._graphs = max_batch, canonical, graphs
        self._texts = TextFeatures(cache, 1 if canonical else max_batch)
        self._lanes: dict[str, Lane] = {}
        self._inbox: deque[tuple[Job, dict[str, Trunk]]] = deque()
        self._cond, self._open = threading.Condition(), True
        self._thread = threading.Thread(target=self._run, name="score-dispatch", daemon=True)
        self._thread.start()

    def send(self, job: Job, trunks: dict[str, Trunk]) -> None:
        """Hand a job in; `trunks` maps the scorers it asks to their trunks."""
        with self._cond:
            self._inbox.append((job, trunks))
            self._cond.notify()

    def close(self, timeout: float) -> None:
        """Stop after the batch that is running."""
        with self._cond:
            self._open = False
            self._cond.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._cond:
                while self._open and not self._inbox and not self._busy():
                    self._cond.wait()
                if not self._open:
                    return
                arrived = list(self._inbox)
                self._inbox.clear()
            self._turn(arrived)
            del arrived  # or the last pictures stay while nothing new comes

    def _busy(self) -> bool:
        return any(lane.flying or lane.rank is not None for lane in self._lanes.values())

    def _turn(self, arrived: list[tuple[Job, dict[str, Trunk]]]) -> None:
        ready: list[Ready] = []
        for job, trunks in arrived:
            job.seconds["queue"] = time.monotonic() - job.submitted
            gathers: dict[str, Gather] = {}
            for name, trunk in trunks.items():
                try:
                    ready += self._admit(job, name, trunk, gathers)
                except Exception as error:  # noqa: BLE001 (the engine must outlive its own faults)
                    self._broken(job, name, f"{type(error).__name__}: {error}")
        self._score(ready)
        self._score(self._advance())

    def _admit(self, job: Job, name: str, trunk: Trunk, gathers: dict[str, Gather]) -> list[Ready]:
        """Take up what one scorer asks for; `gathers` are those of the job's other scorers."""
        lane = self._lane(trunk)
        gather = gathers.get(lane.name)
        if gather is None:
            gather = Gather(job, trunk)
            complete = lane.admit(gather)
            gathers[lane.name] = gather
        else:
            complete = not gather.waiting
        if complete:
            return [(job, name, gather)]
        gather.scorers.append(name)
        return []

    def _advance(self) -> list[Ready]:
        """Launch the most urgent batch and collect what is due."""
        waiting = [lane for lane in self._lanes.values() if lane.rank is not None]
        chosen = min(waiting, key=lambda lane: lane.rank, default=None)  # type: ignore[arg-type,return-value]
        if chosen is not None:
            chosen.launch()
        completed: list[Gather] = []
        for lane in self._lanes.values():
            while lane.flying and (lane.flying >= lane.runner.depth or lane is not chosen):
                completed += lane.collect()
        return [(gather.job, name, gather) for gather in completed for name in gather.scorers]

    def _lane(self, trunk: Trunk) -> Lane:
        mode = f"strict{self._canonical}" if self._canonical else "tolerance"
        name = f"{mode}:{trunk.lane}"
        known = self._lanes.get(name)
        # The encoder that this lane ran may have been trained on; its name now means `trunk`.
        if known is None or self._outdated(known, trunk):
            self._drop_stale()
            runner = Runner(
                trunk, max_batch=self._max_batch, canonical=self._canonical, graphs=self._graphs
            )
            self._lanes[name] = Lane(name, runner, self._cache, self._stats)
        return self._lanes[name]

    @staticmethod
    def _outdated(known: Lane, trunk: Trunk) -> bool:
        """Whether `trunk` must take the place of the one that a lane runs."""
        current = known.runner.trunk
        return current is not trunk and known.idle and current.stale and not trunk.stale

    def _drop_stale(self) -> None:
        """Let go of trunks that were trained on: their graphs hold device memory."""
        self._lanes = {
            name: lane
            for name, lane in self._lanes.items()
            if not (lane.idle and lane.runner.trunk.stale)
        }

    def _score(self, ready: Sequence[Ready]) -> None:
        by_scorer: dict[str, list[tuple[Job, Gather]]] = {}
        for job, name, gather in ready:
            if job.done:
                continue
            if job.embeds:
                self._features(job, gather)
                continue
            by_scorer.setdefault(name, []).append((job, gather))
        for name, asked in by_scorer.items():
            self._score_with(name, asked)

    def _score_with(self, name: str, asked: Sequence[tuple[Job, Gather]]) -> None:
        start, version = time.monotonic(), self._version(name)
        try:
            parts = [Part(j, g, *self._texts(g.trunk, j.request.texts)) for j, g in asked]
            batches = evaluate(version, parts, strict=self._canonical is not None)
        except Exception as error:  # noqa: BLE001 (the engine must outlive its own faults)
            for job, _ in asked:
                self._broken(job, name, f"{type(error).__name__}: {error}")
            return
        for (job, _), batch in zip(asked, batches, strict=True):
            self._reply(job, name, batch)
        self._stats.add(head_calls=1, head_seconds=time.monotonic() - start)
