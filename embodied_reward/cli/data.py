"""Look at a dataset, convert it, or rescue an interrupted recording.

er data inspect PATH    print its views, rates, ranges and how it is read; save a contact sheet
er data convert --input=PATH --output=PATH --format=lerobot|zarr|robomimic
er data recover PATH    assemble the finished episodes of a killed recording
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from embodied_reward.cli.command import run_verb
from embodied_reward.cli.data_convert import ConvertConfig, convert
from embodied_reward.data.formats.layout import Layout
from embodied_reward.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from rich.table import Table

    from embodied_reward.data.inspect import Summary


@dataclass
class InspectConfig:
    """How `er data inspect PATH` looks at a dataset."""

    output: str | None = None  # folder of the contact sheet; default outputs/data-inspect/<name>
    views: tuple[str, ...] = ()  # cameras to look at; default all
    episodes: int = 4  # episodes on the contact sheet
    columns: int = 8  # frames per episode on the contact sheet
    reference: str | None = None
    """an upright picture of the same camera and scene, to check orientation and colours against"""
    reference_view: str | None = None  # the view that the reference shows; default the first
    layout: Layout = field(default_factory=Layout)


@dataclass
class RecoverConfig:
    """`er data recover PATH` takes the path alone."""


COMMANDS = ("inspect", "convert", "recover")


def main(argv: list[str]) -> int:
    """Run `er data inspect PATH`, `er data convert` or `er data recover PATH`."""
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "").strip() + "\n\ner data <command> --help lists its fields.")
        return 0
    command, rest = argv[0], argv[1:]
    if command not in COMMANDS:
        raise ConfigError(f"unknown 'er data {command}'; {did_you_mean(command, COMMANDS)}")
    if command == "convert":
        return run_verb("data convert", ConvertConfig, convert, rest, ConvertConfig.__doc__)
    if "-h" in rest or "--help" in rest:
        cls = InspectConfig if command == "inspect" else RecoverConfig
        return run_verb(f"data {command} PATH", cls, lambda _: 0, ["--help"], cls.__doc__)
    path, rest = _path(command, rest)
    if command == "recover":
        return run_verb("data", RecoverConfig, lambda _: recover(path), rest, None)
    return run_verb("data", InspectConfig, lambda config: inspect(path, config), rest, None)


def _path(command: str, rest: list[str]) -> tuple[str, list[str]]:
    found = [token for token in rest if not token.startswith("--")]
    if len(found) != 1:
        raise ConfigError(f"write 'er data {command} PATH', got {len(found)} paths")
    return found[0], [token for token in rest if token.startswith("--")]


def recover(path: str) -> int:
    """Assemble what a killed recording left. Raises DatasetError."""
    from embodied_reward.cli.progress_bar import progress_bar
    from embodied_reward.data.assemble import recover

    with progress_bar() as progress:
        bar = progress.add_task("assembling", total=None)
        root, count = recover(
            path, progress=lambda n, all_: progress.update(bar, completed=n, total=all_)
        )
    print(f"{count} episodes: {root}\nnext:\n  er data inspect {root}")
    return 0


def inspect(path: str, config: InspectConfig) -> int:
    """Print a summary and save a contact sheet. Raises DatasetError."""
    from rich.console import Console

    from embodied_reward.data import open_dataset
    from embodied_reward.data.contact_sheet import contact_sheet
    from embodied_reward.data.inspect import summarise
    from embodied_reward.data.reference import match_dataset

    episodes = open_dataset(path, views=config.views or None, layout=config.layout)
    summary = summarise(episodes)
    if config.reference:
        match = match_dataset(episodes, config.reference, config.reference_view)
        summary["notes"].append(match.verdict)
    console = Console()
    for table in (_overview(summary), _reading(summary), _views(summary), _features(summary)):
        console.print(table)
    for note in summary["notes"]:
        console.print(f"- {note}", highlight=False)
    if not episodes.views:
        return 0
    folder = Path(config.output or Path("outputs") / "data-inspect" / _name(path))
    sheet = contact_sheet(
        episodes, folder / "contact_sheet.png", count=config.episodes, columns=config.columns
    )
    print(f"contact sheet: {sheet}")
    return 0


def _name(path: str) -> str:
    return "+".join(Path(part).name or "dataset" for part in path.split(","))


def _overview(summary: "Summary") -> "Table":
    from rich.table import Table

    lengths, rate = summary["lengths"], summary["success_rate"]
    table = Table(title=summary["root"], show_header=False)
    rows = {
        "format": summary["format"],
        "episodes": summary["episodes"],
        "frames": f"{summary['frames']} ({summary['seconds']:.0f} s at {summary['fps']:g} Hz)",
        "length": f"{lengths['min']} to {lengths['max']}, median {lengths['median']:g}",
        "success": "unknown" if rate is None else f"{rate:.0%}",
        "tasks": "; ".join(summary["tasks"]),
    }
    for key, value in rows.items():
        table.add_row(key, str(value))
    return table


def _reading(summary: "Summary") -> "Table":
    from rich.table import Table

    table = Table("read as", "value", "who says so")
    for name, (value, origin) in summary["reading"].items():
        table.add_row(name, value, origin)
    return table


def _views(summary: "Summary") -> "Table":
    from rich.table import Table

    table = Table("view", "size", "stored as", "range", "brightness", "motion")
    for name, view in summary["views"].items():
        height, width = view["size"]
        span = f"{view['min']} to {view['max']}"
        numbers = (f"{view['brightness']:.1f}", f"{view['motion']:.1f}")
        table.add_row(name, f"{height}x{width}", view["storage"], span, *numbers)
    return table


def _features(summary: "Summary") -> "Table":
    from rich.table import Table

    table = Table("feature", "size", "min", "max", "not finite")
    for name, feature in summary["features"].items():
        ends = (_number(feature["min"]), _number(feature["max"]))
        table.add_row(name, str(feature["size"]), *ends, str(feature["not_finite"]))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
