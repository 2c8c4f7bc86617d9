"""What a person sees while an arm moves: rerun where it is installed, one line otherwise."""

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from embodied_reward.cli.rollout_record import LEARNED, Moment
from embodied_reward.errors import EnvError, MissingDependencyError

_EVERY = 0.2  # between two lines on a terminal [s]
_BAR = 20  # characters of the potential's bar


def make_display(kind: str, say: Callable[[str], None]) -> Callable[[Moment], None]:
    """Return what is told of every step.

    Args:
        kind: auto, rerun, terminal or none.
        say: shows a line that stays.

    Raises:
        MissingDependencyError: rerun was asked for and is not installed.
        EnvError: its viewer cannot be started.
    """
    installed = importlib.util.find_spec("rerun") is not None
    if kind == "rerun" and not installed:
        raise MissingDependencyError("rerun is not installed: pip install rerun-sdk")
    if kind == "rerun" or (kind == "auto" and installed and _windows() and sys.stdout.isatty()):
        return RerunDisplay()
    if kind == "none":
        return lambda moment: None
    return TerminalDisplay(say)


def _windows() -> bool:
    """Return whether a viewer could open a window: elsewhere it ends at once, unseen."""
    return sys.platform != "linux" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


class TerminalDisplay:
    """One line that is written again and again; on a pipe, one line per hold."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._shown, self._held = say, 0.0, False

    def __call__(self, moment: Moment) -> None:
        """Show one step."""
        held = moment.info.get("held")
        if held and not self._held:
            self._say(f"HELD: {held}")
        self._held = bool(held)
        if not sys.stdout.isatty() or time.monotonic() - self._shown < _EVERY:
            return
        self._shown = time.monotonic()
        width = shutil.get_terminal_size().columns - 1
        sys.stdout.write("\r" + line_of(moment)[:width].ljust(width))
        sys.stdout.flush()


def line_of(moment: Moment) -> str:
    """Return one step as one line."""
    scores = {k.removeprefix(LEARNED): v for k, v in moment.scores.items()}
    parts = [f"episode {moment.episode} step {moment.step:3d}"]
    if "potential" in scores:
        full = round(_BAR * min(max(scores["potential"], 0.0), 1.0))
        parts.append(f"Φ [{'#' * full}{' ' * (_BAR - full)}] {scores['potential']:.2f}")
    if "success" in scores:
        parts.append(f"success {scores['success']:.2f}")
    if "uncertainty" in scores:
        parts.append(f"± {scores['uncertainty']:.2f}")
    if moment.info.get("intervention"):
        parts.append("OPERATOR")
    if moment.info.get("is_success"):
        parts.append("DONE")
    if moment.info.get("held"):
        parts.append("HELD")
    return "  ".join(parts)


class RerunDisplay:
    """Pictures and curves in rerun's viewer.

    Args:
        spawn: start the viewer; else whoever calls says where what is shown goes to.

    Raises:
        EnvError: the viewer cannot be started.
    """

    def __init__(self, *, spawn: bool = True) -> None:
        self._rerun: Any = importlib.import_module("rerun")
        try:
            self._rerun.init("er rollout", spawn=spawn)
        except RuntimeError as error:
            why = next(iter(str(error).splitlines()), "no reason given")
            raise EnvError(
                f"rerun's viewer does not start: {why} Take --display=terminal, or see that "
                "`rerun` runs in this shell"
            ) from error
        self._step = 0

    def __call__(self, moment: Moment) -> None:
        """Show one step."""
        rerun, self._step = self._rerun, self._step + 1
        rerun.set_time("step", sequence=self._step)
        for view, frame in moment.frames.items():
            rerun.log(f"cameras/{view}", rerun.Image(frame))
        shown = {k.removeprefix(LEARNED): v for k, v in moment.scores.items()}
        shown["is_success"] = float(moment.info["is_success"])
        shown["intervention"] = float(moment.info["intervention"])
        for name, value in shown.items():
            rerun.log(f"scores/{name}", rerun.Scalars(value))
        if moment.info.get("held"):
            rerun.log("log", rerun.TextLog(moment.info["held"], level="WARN"))
