"""A progress bar that shows count, rate and time left."""

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class RateColumn(ProgressColumn):
    """Finished items per second, or per minute where they take longer than a second."""

    def render(self, task: Task) -> Text:
        """Return e.g. `3.2/s` or `14/min`."""
        speed = task.finished_speed or task.speed
        if speed is None:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min")


def progress_bar() -> Progress:
    """Return a bar for the terminal; use as a context manager and add tasks to it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, RateColumn(), TextColumn("left"), TimeRemainingColumn())
