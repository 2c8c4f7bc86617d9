"""Print the table of malformed datasets as Markdown: kind, count, result.

python benchmarks/data_formats/table.py
"""

import logging
import tempfile
from collections import defaultdict
from pathlib import Path

import av.logging
from malformed import cases, sound
from trial import attempt, warm_up


def main() -> None:
    av.logging.set_level(av.logging.PANIC)
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        root = sound(Path(folder))
        warm_up(root)
        outcomes = [(case, attempt(case, root)) for case in cases()]
    groups = defaultdict(list)
    for case, outcome in outcomes:
        groups[case.kind].append((case, outcome))
    print("| what is wrong | cases | formats | one named error | slowest [ms] | memory [MiB] |")
    print("|---|---|---|---|---|---|")
    for kind, rows in sorted(groups.items(), key=lambda item: -len(item[1])):
        print(_row(kind, rows))
    print(_row("**all**", outcomes))
    for case, outcome in outcomes:
        if not outcome.good:
            print(f"\nnot refused as it should be: {case.id}: {outcome}")


def _row(kind, rows):
    families = sorted({case.family for case, _ in rows})
    good = sum(outcome.good for _, outcome in rows)
    slowest = max(outcome.seconds for _, outcome in rows) * 1000
    memory = max(outcome.memory for _, outcome in rows)
    shown = "" if kind == "**all**" else ", ".join(families)
    return f"| {kind} | {len(rows)} | {shown} | {good} | {slowest:.0f} | {memory:.0f} |"


if __name__ == "__main__":
    main()
