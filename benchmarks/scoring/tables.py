"""Results to Markdown: one table per trunk, the targets, and where the core does not win."""

from collections.abc import Iterable
from pathlib import Path

from comparators import COMPARATORS
from trunk_zoo import SHAPES
from workloads import Result

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
OURS = ("core, no cache", "core", "core, ring", "core, HTTP")
A, B, C, D, E = (side.name for side in COMPARATORS)


def markdown(measured: dict) -> str:
    results = [Result(**r) for r in measured["results"]]
    m = measured["machine"]
    about = (
        f"{m['cpu']}, {m['cores']} cores, {m['threads']} thread per process, torch {m['torch']}, "
        f"load average {m['load']:.1f} when done."
    )
    parts = [about, *_trunk_tables(results), _hits(results), _open_loop(results)]
    parts += [_targets(results), _losses(results), _same(measured["same"])]
    return "\n\n".join(part for part in parts if part)


def write_between(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace what stands between the markers."""
    before, rest = path.read_text().split(begin)
    after = rest.split(end)[1]
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def short(x: float) -> str:
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def _cell(result: Result, side: str) -> str:
    if side not in result.rounds:
        return ""
    value = short(result.value(side))
    return value if side == E else f"{value} (×{result.ratio(side, E):.2f})"


def _trunk_tables(results: list[Result]) -> Iterable[str]:
    for trunk, shape in SHAPES.items():
        rows = [r for r in results if r.trunk == trunk and E in r.rounds and A in r.rounds]
        if rows:
            sides = [*OURS, A, B, C, D, E]
            head = ["workload", "unit", *sides]
            body = [[r.workload, r.unit, *(_cell(r, s) for s in sides)] for r in rows]
            yield (
                f"### {trunk}: {shape.about}\n\nIn brackets: how many times better than (e), "
                f"above 1 is better.\n\n{table(head, body)}"
            )


def _hits(results: list[Result]) -> str:
    rows = [r for r in results if r.workload.startswith("cache hits")]
    body = [[r.workload.split(", ")[1], *(short(r.value(s)) for s in r.rounds)] for r in rows]
    if not rows:
        return ""
    return "### Cache hits [µs per frame]\n\n" + table(["frame", *rows[0].rounds], body)


def _open_loop(results: list[Result]) -> str:
    rows = [r for r in results if r.workload.startswith("open loop")]
    if not rows:
        return ""
    body = [[*r.workload.split(", ")[1:], *(short(r.value(s)) for s in r.rounds)] for r in rows]
    return (
        f"### Open loop on {rows[0].trunk}: latency [ms]\n\nSingle pictures at Poisson times; load "
        "as a share of what the bare loop manages with single pictures.\n\n"
        + table(["load", "percentile", *rows[0].rounds], body)
    )


def _find(results: list[Result], trunk: str, workload: str) -> Result | None:
    return next((r for r in results if (r.trunk, r.workload) == (trunk, workload)), None)


def _targets(results: list[Result]) -> str:
    rows = []

    def judge(what: str, trunk: str, value: float, target: float, *, least: bool) -> None:
        met = value >= target if least else value <= target
        sign = "≥" if least else "≤"
        rows.append([what, trunk, f"{sign} {target:g}", f"{value:.3g}", "met" if met else "MISSED"])

    for trunk in SHAPES:
        if r := _find(results, trunk, "unique pictures, in process"):
            for side in OURS[:2]:
                what = f"CPU time over (e), {side} [%]"
                judge(what, trunk, 100 * (r.cpu_ratio(side, E) - 1), 3, least=False)
        for how in ("whole episode", "step by step"):
            if r := _find(results, trunk, f"8-frame windows, {how}"):
                judge(f"windows, {how}, over (e)", trunk, r.ratio("core", E), 6, least=True)
        if r := _find(results, trunk, "unique pictures"):
            for side, target in ((A, 10), (B, 10), (C, 20)):
                ratio = r.ratio("core", side)
                judge(f"unique pictures over {side}", trunk, ratio, target, least=True)
    for size in (64, 224):
        for r in results:
            if r.workload == f"cache hits, {size} px":
                what = f"cache hit of {size} px [µs/frame]"
                judge(what, "any", r.value("core"), 20, least=False)
    head = ["target", "trunk", "wanted", "measured", ""]
    return "### Targets\n\n" + table(head, rows)


def _losses(results: list[Result]) -> str:
    """Whatever the core in process does not do at least 5 % better than the best comparator."""
    rows = []
    for r in results:
        others = [s for s in r.rounds if s not in OURS]
        ours = [s for s in OURS[:2] if s in r.rounds]
        if not others or not ours:
            continue
        side = max(ours, key=lambda s: r.value(s) * (-1 if r.lower else 1))
        best = min(others, key=lambda s: r.ratio(side, s))
        ratio = r.ratio(side, best)
        if ratio < 1.05:
            verdict = "tie" if ratio > 0.95 else "loss"
            rows.append([r.trunk, r.workload, side, best, f"×{ratio:.2f}", verdict])
    if not rows:
        return ""
    head = ["trunk", "workload", "ours, the better one", "best comparator", "ratio", ""]
    return "### Where the core only ties or loses\n\n" + table(head, rows)


def _same(same: dict[str, dict[str, float]]) -> str:
    sides = list(next(iter(same.values())))
    body = [[trunk, *(f"{found[s]:.1e}" for s in sides)] for trunk, found in same.items()]
    return (
        "### The same numbers\n\nLargest difference from (e) on smooth pictures, with and without "
        "prompts, in standard deviations of the scores.\n\n" + table(["trunk", *sides], body)
    )
