"""What is measured. Every measurement draws fresh random pictures, unless hits are the point.

A round runs every side once, in an order that rotates, so that a slow moment of the machine hits
all sides alike; ratios are taken within a round, and their median is reported.
"""

import itertools
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from sides import Side
from trunk_zoo import SHAPES

from embodied_reward.types import UInt8

WIDTH = 8
GROUP = 24
brief = 1
"""Slow sides are measured on one picture in `brief`: a GPU needs many, and PNG takes its time."""


@dataclass
class Result:
    """Rounds of one workload on one trunk.

    Attributes:
        workload: name.
        trunk: name.
        unit: of `rounds`.
        rounds: side -> one number per round.
        cpu: side -> CPU seconds of this process per round, only where nothing runs elsewhere.
        lower: whether less is better.
    """

    workload: str
    trunk: str
    unit: str
    rounds: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    lower: bool = False

    def value(self, side: str) -> float:
        return median(self.rounds[side])

    def ratio(self, side: str, other: str) -> float:
        """How many times better `side` is than `other`, median over rounds."""
        pairs = zip(self.rounds[side], self.rounds[other], strict=True)
        return median(b / a if self.lower else a / b for a, b in pairs)

    def cpu_ratio(self, side: str, other: str) -> float:
        """CPU time of `side` over that of `other`, median over rounds."""
        return median(a / b for a, b in zip(self.cpu[side], self.cpu[other], strict=True))


Task = Callable[[Side, UInt8], object]


def rotated(sides: Sequence[Side], rounds: int) -> Iterator[Sequence[Side]]:
    for k in range(rounds):
        at = k % len(sides)
        yield [*sides[at:], *sides[:at]]


def throughput(  # noqa: PLR0913
    name: str,
    trunk: str,
    sides: Sequence[Side],
    task: Task,
    draw: Callable[[np.random.Generator], UInt8],
    *,
    units: Callable[[int], int] = lambda n: n,
    unit: str = "pictures/s",
    rounds: int,
) -> Result:
    """Units of work, of so many pictures, per second of every side; one round only warms up."""
    result = Result(name, trunk, unit)
    rng = generator(name, trunk)
    for k, order in enumerate(rotated(sides, rounds + 1)):
        for side in order:
            frames = draw(rng)
            if side.slow and brief > 1:
                frames = frames[: max(3 * WIDTH, len(frames) // brief)]
            cpu, start = time.process_time(), time.perf_counter()
            task(side, frames)
            seconds, busy = time.perf_counter() - start, time.process_time() - cpu
            if k:
                result.rounds.setdefault(side.name, []).append(units(len(frames)) / seconds)
                result.cpu.setdefault(side.name, []).append(busy)
    return result


def generator(*facts: object) -> np.random.Generator:
    """Every measurement has pictures of its own, so that none is cached from another."""
    return np.random.default_rng(zlib.crc32(repr(facts).encode()))


def pictures(trunk: str, n: int) -> Callable[[np.random.Generator], UInt8]:
    size = SHAPES[trunk].size
    return lambda rng: rng.integers(0, 256, (n, size, size, 3), np.uint8)


def unique(trunk: str, sides: Sequence[Side], n: int, rounds: int) -> Result:
    """Every picture is new."""
    return throughput(
        "unique pictures",
        trunk,
        sides,
        lambda side, frames: side.score(frames),
        pictures(trunk, n),
        rounds=rounds,
    )


def windows(trunk: str, sides: Sequence[Side], n: int, rounds: int) -> Result:
    """All windows of 8 frames of an episode, at once."""
    return throughput(
        "8-frame windows, whole episode",
        trunk,
        sides,
        lambda side, frames: side.windows(frames, WIDTH),
        pictures(trunk, n),
        units=lambda n: n - WIDTH + 1,
        unit="windows/s",
        rounds=rounds,
    )


def stream(trunk: str, sides: Sequence[Side], n: int, rounds: int) -> Result:
    """All windows of 8 frames, one request per step, as in a control loop."""
    return throughput(
        "8-frame windows, step by step",
        trunk,
        sides,
        lambda side, frames: side.stream(frames, WIDTH),
        pictures(trunk, n),
        units=lambda n: n - WIDTH + 1,
        unit="windows/s",
        rounds=rounds,
    )


def groups(trunk: str, sides: Sequence[Side], n: int, rounds: int) -> Result:
    """Groups of 24 new pictures of one prompt each."""
    n = n // GROUP * GROUP
    serial = itertools.count()

    def task(side: Side, frames: UInt8) -> None:
        run = next(serial)  # prompts are new as well
        side.score(frames, [f"{run} {k // GROUP} task" for k in range(len(frames))])

    return throughput(
        "groups of 24 with one prompt",
        trunk,
        sides,
        task,
        pictures(trunk, n),
        rounds=rounds,
    )


def repeats(trunk: str, sides: Sequence[Side], n: int, rounds: int) -> Result:
    """Every picture stands in the batch twice, as from a generator that has collapsed."""
    draw = pictures(trunk, n // 2)
    return throughput(
        "every picture twice",
        trunk,
        sides,
        lambda side, frames: side.score(np.concatenate([frames, frames])),
        draw,
        rounds=rounds,
    )


def heads(trunk: str, sides: Sequence[Side], n: int, rounds: int) -> Result:
    """Three scorers on one trunk."""
    return throughput(
        "three heads on one trunk",
        trunk,
        sides,
        lambda side, frames: side.heads(frames),
        pictures(trunk, n),
        rounds=rounds,
    )


def hits(trunk: str, sides: Sequence[Side], size: int, rounds: int, n: int = 64) -> Result:
    """Pictures of `size` px that were all scored before: microseconds per frame."""
    result = Result(f"cache hits, {size} px", trunk, "us/frame", lower=True)
    frames = generator("hits", size).integers(0, 256, (n, size, size, 3), np.uint8)
    for side in sides:
        side.score(frames)
    for order in rotated(sides, rounds):
        for side in order:
            start, calls = time.perf_counter(), 10
            for _ in range(calls):
                side.score(frames)
            per_frame = (time.perf_counter() - start) / calls / n
            result.rounds.setdefault(side.name, []).append(per_frame * 1e6)
    return result


def latency(trunk: str, sides: Sequence[Side], rounds: int, calls: int) -> Result:
    """One new picture at a time, nobody else there: median milliseconds."""
    result = Result("one picture, idle", trunk, "ms", lower=True)
    rng, draw = generator("latency", trunk), pictures(trunk, 1)
    for order in rotated(sides, rounds):
        for side in order:
            times = []
            for _ in range(calls):
                frame = draw(rng)
                start = time.perf_counter()
                side.score(frame)
                times.append(time.perf_counter() - start)
            result.rounds.setdefault(side.name, []).append(1e3 * median(times))
    return result


def open_loop(
    trunk: str, sides: Sequence[Side], rate: float, *, seconds: float, rounds: int, what: str
) -> list[Result]:
    """Clients that send single pictures at random times, whatever is unanswered: latency.

    Returns one result for the median and one for the 99th percentile.
    """
    found = [Result(f"open loop, {what}, p{p}", trunk, "ms", lower=True) for p in (50, 99)]
    for k, order in enumerate(rotated(sides, rounds)):
        for side in order:
            times = _poisson(side, trunk, rate, seconds, seed=k)
            for result, p in zip(found, (50, 99), strict=True):
                result.rounds.setdefault(side.name, []).append(float(np.percentile(times, p)) * 1e3)
    return found


def _poisson(side: Side, trunk: str, rate: float, seconds: float, seed: int) -> list[float]:
    rng = generator("open loop", side.name, rate, seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, int(rate * seconds)))
    frames = pictures(trunk, len(arrivals))(rng)
    times: list[float] = []
    waiting: list[Future] = []
    start = time.perf_counter()
    for at, frame in zip(arrivals, frames, strict=True):
        due = start + at
        if (left := due - time.perf_counter()) > 0:
            time.sleep(left)
        future = side.submit(frame)  # type: ignore[attr-defined]
        future.add_done_callback(lambda _, due=due: times.append(time.perf_counter() - due))
        waiting.append(future)
    for future in waiting:
        future.result()
    return times


def same_numbers(sides: Sequence[Side], trunk: str, n: int = 16) -> dict[str, float]:
    """Largest difference of every side from the bare loop, in standard deviations of the scores.

    On smooth pictures, as JPEG is made for; the last side is the reference.
    """
    frames = smooth(SHAPES[trunk].size, n, np.random.default_rng(1))
    texts = [f"prompt {k // 4}" for k in range(n)]
    plain, with_text = sides[-1].score(frames), sides[-1].score(frames, texts)
    found = {}
    for side in sides:
        change = np.abs(side.score(frames) - plain).max() / plain.std()
        worded = np.abs(side.score(frames, texts) - with_text).max() / with_text.std()
        found[side.name] = float(max(change, worded))
    return found


def smooth(size: int, n: int, rng: np.random.Generator) -> UInt8:
    """Pictures of a few soft waves."""
    y, x = np.mgrid[:size, :size] / size
    frequency, phase = rng.uniform(1, 6, (n, 3, 2)), rng.uniform(0, 6, (n, 3))
    wave = frequency[..., :1, None] * x + frequency[..., 1:, None] * y + phase[..., None, None]
    return np.moveaxis(127.5 + 127 * np.sin(wave), 1, -1).astype(np.uint8)
