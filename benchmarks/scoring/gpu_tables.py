"""Numbers of a GPU to Markdown."""

from tables import (
    OURS,
    E,
    _losses,
    _open_loop,
    _same,
    _targets,
    _trunk_tables,
    short,
    table,
)
from workloads import Result

BEGIN, END = "<!-- gpu results -->", "<!-- end of gpu results -->"
PEAK = "bfloat16 product of 8192 [TFLOP/s]"


def markdown(found: dict) -> str:
    results = [Result(**r) for r in found["results"]]
    m = found["machine"]
    about = (
        f"One {m.get('card', 'CPU')}, torch {m['torch']}, host {m['cpu']} with {m['cores']} cores, "
        f"{m['threads']} thread per process."
    )
    parts = [about, _ceilings(found), _batches(found), _agreement(found), _transport(found)]
    parts += [_training(found), _camera(found), *_trunk_tables(results), _open_loop(results)]
    if results:
        parts += [_targets(results), _wall(results), _losses(results)]
    if found["same"]:
        parts.append(_same(found["same"]))
    return "\n\n".join(part for part in parts if part).replace("\n### ", "\n#### ")


def _ceilings(found: dict) -> str:
    rows = [[what, short(value)] for what, value in found.get("ceilings", {}).items()]
    return "### What the card does at most\n\n" + table(["", "measured"], rows) if rows else ""


def _batches(found: dict) -> str:
    peak = found.get("ceilings", {}).get(PEAK, float("nan"))
    head = ["trunk", "batch", "bare [ms]", "graph, on device [ms]", "share of peak"]
    head += ["from memory, eager [ms]", "from memory, graph [ms]"]
    head += ["streamed, eager [pictures/s]", "streamed, graph [pictures/s]"]
    rows = []
    for r in found["batches"]:
        best = r.get("graph, on device", r["bare"])
        share = r["gflop"] * r["n"] / best / 1e3 / peak
        rates = [short(r["n"] / r[f"{k}, streamed"]) for k in ("eager", "graph")]
        times = [short(1e3 * r[k]) for k in ("eager", "graph")]
        row = [r["trunk"], str(r["n"]), short(1e3 * r["bare"]), short(1e3 * best)]
        rows.append([*row, f"{share:.1%}", *times, *rates])
    return (
        "### Batches, with and without CUDA graphs\n\n`bare` calls the trunk on inputs that lie on "
        "the device; `from memory` copies, resizes and computes one batch and waits; `streamed` "
        "keeps two under way. The share of peak is that of the graph against the measured product."
        "\n\n" + table(head, rows)
    )


def _agreement(found: dict) -> str:
    kinds = [k for k in found["agreement"][0] if k not in ("trunk", "pictures")]
    head = ["trunk", "pictures", *(f"{k}, largest, correlation" for k in kinds)]
    rows = [
        [
            a["trunk"],
            str(a["pictures"]),
            *(f"{a[k]['largest']:.1e}, {a[k]['correlation']:.6f}" for k in kinds),
        ]
        for a in found["agreement"]
    ]
    return (
        "### Against fp32 on the CPU\n\nLargest difference of a score in standard deviations of "
        "the scores, and their correlation, on smooth pictures.\n\n" + table(head, rows)
    )


def _transport(found: dict) -> str:
    head = ["plans", "dtype", "loop, CPU [ms]", "batched, CPU [ms]", "batched, GPU [ms]"]
    head += ["GPU over loop", "largest difference of a plan"]
    rows = [
        [
            str(r["pairs"]),
            r["dtype"],
            *(short(1e3 * r[k]) for k in ("loop, CPU", "batched, CPU", "batched, GPU")),
            f"×{r['loop, CPU'] / r['batched, GPU']:.1f}",
            f"{r['largest difference']:.1e}",
        ]
        for r in found["transport"]
    ]
    return (
        "### Entropic transport\n\nPlans of 64 x 64 frames, 50 iterations, epsilon 0.05; the "
        "loop computes one plan per call.\n\n" + table(head, rows)
    )


def _training(found: dict) -> str:
    rows = [[r["device"], short(1e3 * r["seconds"])] for r in found["training"]]
    return (
        "### A training step of `dopamine`\n\nconv64, two views of 64 px, four episodes of 60 "
        "frames, fp32, batch assembly included.\n\n" + table(["device", "ms"], rows)
    )


def _camera(found: dict) -> str:
    rate = found["camera"]["pictures/s"]
    bare = [r["n"] / r["graph, streamed"] for r in found["batches"] if r["trunk"] == "vit-b16"]
    against = f", {rate / max(bare):.0%} of what streamed 224 px batches reach" if bare else ""
    return f"Frames of 480 x 640 through the engine to vit-b16: {short(rate)} pictures/s{against}."


def _wall(results: list[Result]) -> str:
    rows = [
        [r.trunk, *(f"{100 * (1 / r.ratio(s, E) - 1):+.1f} %" for s in OURS[:2])]
        for r in results
        if r.workload == "unique pictures, in process"
    ]
    return (
        "Wall time over the bare loop (e) on new pictures; below zero the engine is faster, "
        "because it copies while the device computes.\n\n" + table(["trunk", *OURS[:2]], rows)
    )
