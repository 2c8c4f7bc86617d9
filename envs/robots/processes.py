"""What our helper processes share: they end with the one that started them."""

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies; elsewhere closed pipes tell it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def hurry() -> bool:
    """Ask for real-time priority, so that a busy machine does not delay a hold.

    Returns:
        Whether the system allowed it; without, the scheduler's delays are those of any process.
    """
    if not hasattr(os, "sched_setscheduler"):
        return False
    try:
        # Threads and processes that are started later do not inherit it.
        kind = os.SCHED_RR | getattr(os, "SCHED_RESET_ON_FORK", 0)
        os.sched_setscheduler(0, kind, os.sched_param(10))
    except OSError:
        return False
    return True
