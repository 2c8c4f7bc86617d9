"""The scoring core against five ways in which rewards are served today.

    uv run python benchmarks/scoring/run.py [--quick] [--json=FILE] [--docs=PAGE]

Every side scores with the same random-weight trunk on one thread (remote sides: one thread in a
process of their own), on random pictures. Sides alternate within one run; medians of the rounds
are reported, and ratios are taken within rounds. The comparators are described in
`comparators.py`, the workloads in `workloads.py`. Takes less than ten minutes; `--quick` takes
seconds and shows only that everything runs.
"""

import argparse
import dataclasses
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import torch
import workloads
from comparators import COMPARATORS, Bare, Fifo, TimeoutBatcher
from ours import InProcess
from sides import Side
from tables import markdown, write_between
from tqdm import tqdm
from transported import Http, Ring
from trunk_zoo import SHAPES, Model, build
from workloads import Result


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int = 5
    fine: int = 21
    pictures: float = 1.0
    calls: int = 30
    seconds: float = 1.5
    trunks: tuple[str, ...] = ("conv64", "vit-tiny", "vit-s14")
    device: str = "cpu"
    windows: float = 0.125
    leave_out: tuple[str, ...] = ()


QUICK = Effort(rounds=1, fine=1, pictures=0.1, calls=3, seconds=0.2, trunks=("conv64", "vit-tiny"))


@contextmanager
def sides_of(model: Model, *makers: Callable[[Model], Side]) -> Iterator[list[Side]]:
    with ExitStack() as stack:
        yield [stack.enter_context(closing(make(model))) for make in makers]


def no_cache(model: Model) -> Side:
    return InProcess(model, cached=False)


def small_trunk(
    name: str, effort: Effort, step: Callable[[str], None], found: list[Result] | None = None
) -> tuple[list[Result], dict]:
    """Everything, on a trunk that scores hundreds of pictures per second; added to `found`."""
    found = [] if found is None else found
    model, n = build(name, effort.device), max(24, int(SHAPES[name].pictures * effort.pictures))
    with sides_of(model, no_cache, InProcess, Ring, Http, *COMPARATORS) as sides:
        step(f"{name}: same numbers")
        same = workloads.same_numbers(sides, name)
        for run, size in (
            (workloads.unique, n),
            (workloads.windows, max(16, int(n * effort.windows))),
            (workloads.stream, max(16, n // 16)),
            (workloads.groups, max(24, n // 2)),
            (workloads.repeats, n // 2),
            (workloads.heads, n // 2),
        ):
            if run.__name__ not in effort.leave_out:
                step(f"{name}: {run.__name__}")
                found.append(run(name, sides, size, effort.rounds))
        step(f"{name}: latency")
        found.append(workloads.latency(name, sides, effort.rounds, effort.calls))
    with sides_of(model, no_cache, InProcess, Bare) as sides:
        step(f"{name}: overhead")
        fine = workloads.unique(name, sides, n, effort.fine)
        found.append(dataclasses.replace(fine, workload="unique pictures, in process"))
    return found, same


def cache_hits(name: str, effort: Effort, step: Callable[[str], None]) -> list[Result]:
    """Hits cost the same for every trunk; the frame's size counts."""
    found = []
    with sides_of(build(name, effort.device), InProcess, Ring, Http) as sides:
        for size in (64, 224):
            step(f"{name}: hits of {size} px")
            found.append(workloads.hits(name, sides, size, 3 * effort.rounds))
    return found


def open_loop(name: str, effort: Effort, step: Callable[[str], None]) -> list[Result]:
    """Load as a share of what the bare loop manages with single pictures."""
    found = []
    with sides_of(build(name, effort.device), no_cache, TimeoutBatcher, Fifo) as sides:
        alone = workloads.latency(name, sides[-1:], 3, effort.calls).value(sides[-1].name)
        for load in (0.3, 0.6, 1.2):
            step(f"{name}: open loop at {load:.0%}")
            rate = load * 1e3 / alone
            what = f"load {load:.0%}"
            seconds, rounds = effort.seconds, min(5, effort.rounds)
            found += workloads.open_loop(
                name, sides, rate, seconds=seconds, rounds=rounds, what=what
            )
    return found


def large_trunk(name: str, effort: Effort, step: Callable[[str], None]) -> tuple[list, dict]:
    """A trunk so slow that only throughput is worth the wait."""
    model, n = build(name, effort.device), max(2, int(SHAPES[name].pictures * effort.pictures))
    with sides_of(model, no_cache, InProcess, Ring, Http, *COMPARATORS) as sides:
        step(f"{name}: same numbers")
        same = workloads.same_numbers(sides, name, n=4)
        step(f"{name}: unique")
        return [workloads.unique(name, sides, n, min(5, effort.rounds))], same


def measure(effort: Effort) -> dict:
    torch.set_num_threads(1)
    results: list[Result] = []
    same: dict[str, dict[str, float]] = {}
    with tqdm(unit="workload") as bar:

        def step(what: str) -> None:
            bar.set_description(what)
            bar.update()

        for name in effort.trunks:
            run = large_trunk if SHAPES[name].size > 64 else small_trunk
            found, same[name] = run(name, effort, step)
            results += found
        results += cache_hits("conv64", effort, step)
        results += open_loop("vit-tiny", effort, step)
    return {"machine": machine(), "same": same, "results": [dataclasses.asdict(r) for r in results]}


def machine() -> dict:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see it run")
    parser.add_argument("--json", type=Path, help="write all rounds here")
    parser.add_argument("--docs", type=Path, help="replace the tables of this page")
    options = parser.parse_args()
    measured = measure(QUICK if options.quick else Effort())
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n")
    text = markdown(measured)
    print(text)
    if options.docs:
        write_between(options.docs, text)


if __name__ == "__main__":
    main()
