"""The scoring core on a GPU: comparators, graphs, roofline, transport plans, a training step.

    uv run python benchmarks/scoring/gpu.py [--quick] [--json=FILE] [--docs=PAGE]

The comparators and workloads are those of `run.py`, with every side's trunk on the GPU in
bfloat16, one CPU thread per process. PNG, JPEG and PIL sides are measured on an eighth of the
pictures. All pictures are random, never zeros: a GPU multiplies zeros faster. Takes about five
minutes on an H200; `--device=cpu --quick` shows only that everything runs.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import workloads
from gpu_tables import BEGIN, END, markdown
from run import Effort, machine, open_loop, small_trunk
from tables import write_between
from tqdm import tqdm
from trunk_zoo import SHAPES, Model, build
from workloads import Result, pictures

from embodied_reward.math.sinkhorn import cosine_cost, transport
from embodied_reward.rewards import DopamineConfig, DopamineModel
from embodied_reward.scoring.runner import Runner
from embodied_reward.types import Episode

TRUNKS = ("conv64", "vit-tiny", "vit-b16")
SIZES = (1, 8, 32, 64, 256)
FULL = {"conv64": 8.0, "vit-tiny": 16.0, "vit-b16": 384.0}
"""Factor on the number of pictures that a CPU gets."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to measure."""

    rounds: int = 3
    fine: int = 9
    repeats: int = 20
    seconds: float = 1.0
    trunks: tuple[str, ...] = TRUNKS
    share: float = 1.0

    def effort(self, trunk: str, device: str) -> Effort:
        return Effort(
            rounds=self.rounds,
            fine=self.fine,
            pictures=FULL[trunk] * self.share,
            calls=15,
            seconds=self.seconds,
            device=device,
            windows=0.25 if SHAPES[trunk].size == 64 else 0.5,
            leave_out=("groups", "repeats"),
        )


QUICK = Plan(rounds=1, fine=1, repeats=3, seconds=0.2, share=0.125)


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], device: str, repeats: int) -> float:
    """Median time of a call, from an idle device to an idle device [s]."""
    for _ in range(3):
        call()
    found = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def ceilings(device: str, repeats: int) -> dict[str, float]:
    """What the card does at most: copies and 16-bit products of random numbers."""
    big = 1 << (28 if device != "cpu" else 22)
    host = torch.randint(0, 256, (big,), dtype=torch.uint8)
    there = host.to(device)
    pinned = host.pin_memory() if device != "cpu" else host
    n = 8192 if device != "cpu" else 128
    a, b = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))
    product = seconds(lambda: a @ b, device, repeats)
    return {
        "pinned host to device [GB/s]": big / seconds(lambda: there.copy_(pinned), device, 5) / 1e9,
        "pageable host to device [GB/s]": big / seconds(lambda: there.copy_(host), device, 5) / 1e9,
        "device to device, read and write [GB/s]": 2 * big / seconds(there.clone, device, 5) / 1e9,
        "bfloat16 product of 8192 [TFLOP/s]": 2 * n**3 / product / 1e12,
    }


def flops(model: Model) -> float:
    """Operations of one picture, two per multiplication and addition."""
    from torch.utils.flop_counter import FlopCounterMode

    size = model.size
    inputs = torch.rand(1, 3, size, size, device=model.trunk.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.trunk.forward(inputs)
    return float(counter.get_total_flops())


def batch_times(name: str, device: str, repeats: int) -> list[dict]:
    """Seconds per batch: bare calls, and the engine's runner with and without graphs.

    `trunk` has its inputs on the device; the runner takes frames in memory, so it copies, resizes
    and computes; `streamed` keeps two batches under way, as the engine does.
    """
    model, rows = build(name, device), []
    each, rng = flops(model), workloads.generator("batches", name)
    for n in SIZES:
        frames = list(pictures(name, n)(rng))
        inputs = model.trunk.preprocess(torch.from_numpy(np.stack(frames)).to(device))
        row = {"trunk": name, "n": n, "gflop": each / 1e9}
        with torch.no_grad():
            row["bare"] = seconds(lambda i=inputs: model.trunk.forward(i), device, repeats)
        for graphs in (False, True):
            runner = Runner(model.trunk, max_batch=256, canonical=None, graphs=graphs)
            key = "graph" if graphs else "eager"
            row[key] = seconds(lambda r=runner, f=frames: r.launch(f).wait(), device, repeats)
            row[f"{key}, streamed"] = streamed(runner, frames, repeats)
            if graphs and runner._graphed is not None:
                replay = runner._graphed

                def trunk_alone(r=replay, i=inputs) -> None:
                    with r.stream(), torch.no_grad():
                        r(i)

                row["graph, on device"] = seconds(trunk_alone, device, repeats)
        rows.append(row)
    return rows


def streamed(runner: Runner, frames: list, repeats: int) -> float:
    """Seconds per batch with `runner.depth` batches under way."""
    runner.launch(frames).wait()
    start, waiting = time.perf_counter(), []
    for _ in range(repeats):
        waiting.append(runner.launch(frames))
        if len(waiting) >= runner.depth:
            waiting.pop(0).wait()
    for ticket in waiting:
        ticket.wait()
    return (time.perf_counter() - start) / repeats


def agreement(name: str, device: str) -> dict:
    """Scores in 16 bits against fp32 on the CPU."""
    n = 256 if SHAPES[name].size == 64 else 8
    frames = torch.from_numpy(workloads.smooth(SHAPES[name].size, n, np.random.default_rng(0)))

    def scores(where: str, dtype: torch.dtype) -> np.ndarray:
        model = build(name, where, dtype)
        return model.forward(model.trunk.preprocess(frames.to(where))).cpu().numpy()

    base, row = scores("cpu", torch.float32), {"trunk": name, "pictures": n}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        found = scores(device, dtype)
        row[str(dtype).removeprefix("torch.")] = {
            "largest": float(np.abs(found - base).max() / base.std()),
            "correlation": float(np.corrcoef(found, base)[0, 1]),
        }
    return row


def transport_times(device: str, repeats: int) -> list[dict]:
    """Plans of 64 x 64 costs, 50 iterations each."""
    rng, rows = np.random.default_rng(0), []
    for pairs, dtype in itertools.product((64, 512), (torch.float64, torch.float32)):
        steps = torch.from_numpy(np.cumsum(rng.normal(size=(2, pairs, 64, 32)), axis=2))
        cost = cosine_cost(*steps).to(dtype)
        options = {"iterations": 50, "tolerance": 0.0}

        def batched(c: torch.Tensor, o: dict = options) -> object:
            return transport(c, 0.05, **o)

        there = cost.to(device)
        rows.append(
            {
                "pairs": pairs,
                "dtype": str(dtype).removeprefix("torch."),
                "loop, CPU": seconds(
                    lambda c=cost: [batched(one[None]) for one in c], "cpu", max(3, repeats // 5)
                ),
                "batched, CPU": seconds(lambda c=cost: batched(c), "cpu", max(3, repeats // 5)),
                "batched, GPU": seconds(lambda c=there: batched(c), device, repeats),
                "largest difference": float(
                    (batched(there).plan.cpu() - batched(cost).plan).abs().max() * 64  # type: ignore[attr-defined]
                ),
            }
        )
    return rows


def training_times(device: str, repeats: int) -> list[dict]:
    """One gradient step of `dopamine` (conv64, two views of 64 px, four episodes of 60 frames)."""
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            {v: rng.integers(0, 256, (60, 64, 64, 3), np.uint8) for v in ("front", "wrist")},
            np.zeros((60, 4), np.float32),
            20.0,
            "noise",
            index,
            f"synthetic#{index}",
            60,
            success=True,
        )
        for index in range(6)
    ]
    rows = []
    for where in dict.fromkeys(("cpu", device)):
        torch.manual_seed(0)
        model = DopamineModel.create(DopamineConfig(views=("front", "wrist")), task="noise")
        model = model.to(where).train()
        data = model.dataset(episodes)
        optimizer = torch.optim.AdamW(model.parameters())

        def step(m=model, d=data, o=optimizer) -> None:
            o.zero_grad()
            loss, _ = m.loss(d.batch(4, 0, 0))
            loss.backward()
            o.step()

        count = repeats if where != "cpu" else 3
        rows.append({"device": where, "seconds": seconds(step, where, count)})
    return rows


def frames_480(device: str, n: int) -> dict:
    """Camera frames of 480 x 640 through the whole engine to ViT-B/16, pictures per second."""
    from ours import InProcess

    rng = np.random.default_rng(0)
    side = InProcess(build("vit-b16", device), cached=False)
    try:
        rates = []
        for _ in range(4):
            frames = rng.integers(0, 256, (n, 480, 640, 3), np.uint8)
            start = time.perf_counter()
            side.score(frames)
            rates.append(n / (time.perf_counter() - start))
        return {"trunk": "vit-b16", "pictures/s": statistics.median(rates[1:])}
    finally:
        side.close()


def measure(plan: Plan, device: str, keep: Callable[[dict], None]) -> dict:
    """Everything, cheapest first; what is there is kept after every part."""
    torch.set_num_threads(1)
    workloads.brief = 8
    results: list[Result] = []
    found: dict = {"machine": machine(), "results": [], "same": {}, "batches": [], "agreement": []}
    if device != "cpu":
        card = torch.cuda.get_device_properties(0)
        found["machine"] |= {"card": card.name, "memory": card.total_memory}
    with tqdm(unit="part") as bar:

        def step(what: str) -> None:
            found["machine"]["seconds"] = bar.format_dict["elapsed"]
            found["results"] = [dataclasses.asdict(r) for r in results]
            keep(found)
            bar.set_description(what)
            bar.update()

        step("ceilings")
        found["ceilings"] = ceilings(device, plan.repeats)
        step("transport")
        found["transport"] = transport_times(device, plan.repeats)
        step("training")
        found["training"] = training_times(device, plan.repeats)
        for name in plan.trunks:
            step(f"{name}: batches")
            found["batches"] += batch_times(name, device, plan.repeats)
            found["agreement"].append(agreement(name, device))
        step("480 x 640")
        found["camera"] = frames_480(device, max(16, int(512 * plan.share)))
        for name in plan.trunks:
            _, found["same"][name] = small_trunk(name, plan.effort(name, device), step, results)
        loop = plan.effort(plan.trunks[-1], device)
        results += open_loop(plan.trunks[-1], loop, step)
        step("done")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cpu shows only that everything runs")
    parser.add_argument("--quick", action="store_true", help="a minute, to see it run")
    parser.add_argument("--trunks", nargs="*", default=TRUNKS, choices=TRUNKS)
    parser.add_argument("--json", type=Path, help="write all numbers here, after every part")
    parser.add_argument("--docs", type=Path, help="replace the tables of this page")
    options = parser.parse_args()

    def keep(found: dict) -> None:
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(found, indent=1) + "\n")

    plan = dataclasses.replace(QUICK if options.quick else Plan(), trunks=tuple(options.trunks))
    text = markdown(measure(plan, options.device, keep))
    print(text)
    if options.docs:
        write_between(options.docs, text, BEGIN, END)


if __name__ == "__main__":
    main()
