"""Check this machine; each problem comes with the command that mends it.

er doctor [--json=true]
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from embodied_reward.cli import doctor_checks as checks
from embodied_reward.cli.command import run_verb
from embodied_reward.cli.doctor_checks import Finding

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True)
class DoctorConfig:
    """How `er doctor` reports."""

    json: bool = False
    """print JSON instead of a table"""


def main(argv: list[str]) -> int:
    """Entry point of `er doctor`."""
    return run_verb("doctor", DoctorConfig, doctor, argv, __doc__)


def doctor(config: DoctorConfig) -> Literal[0, 1]:
    """Run every check; returns 1 when one fails."""
    findings = [_guarded(check) for check in checks.ALL]
    if config.json:
        print(json.dumps([asdict(f) for f in findings], indent=1))
    else:
        _print(findings)
    return 1 if any(f.level == "fail" for f in findings) else 0


def _guarded(check: Callable[[], Finding]) -> Finding:
    """A check that breaks is a finding too: the doctor must never crash on a sick machine."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001
        name = check.__name__.replace("_", " ")
        return Finding(name, "fail", f"the check itself broke: {type(error).__name__}: {error}")


def _print(findings: list[Finding]) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for title in ("check", "", "found"):
        table.add_column(title, no_wrap=title == "check")
    for f in findings:
        table.add_row(f.check, f"[{STYLES[f.level]}]{f.level}[/]", f.found)
    console = Console()
    console.print(table)
    for f in findings:
        if f.mend:
            # Commands must survive copying: no markup, no wrapping.
            console.print(f"\n{f.check} ({f.level}), mend with:", highlight=False)
            console.print(f"  {f.mend}", markup=False, highlight=False, soft_wrap=True)
    counts = Counter(f.level for f in findings)
    summary = ", ".join(f"{counts[level]} {level}" for level in STYLES if counts[level])
    console.print(f"\n{summary}", highlight=False)
