"""Change arrays for a while, and put back exactly what was there."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

Change = tuple[np.ndarray, Any]
"""A view into a MuJoCo struct, and what it shall hold."""


@contextlib.contextmanager
def changed(changes: Iterable[Change]) -> Iterator[None]:
    """Write every new value; put the old bytes back at the end, last change first.

    A generator sees the changes that it has already yielded, so that two may touch one array.
    """
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    try:
        for array, value in changes:
            kept.append((array, array.copy()))
            array[...] = value
        yield
    finally:
        for array, before in reversed(kept):
            array[...] = before
