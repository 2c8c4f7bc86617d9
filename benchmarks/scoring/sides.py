"""What every side can do; a side overrides what it does better than this."""

import numpy as np

from embodied_reward.types import Float32, UInt8


class Side:
    """Scores pictures with the first head of a model."""

    name: str
    slow: bool = False
    """Much slower than the others by its kind; measured on fewer pictures where time is short."""

    def score(self, frames: UInt8, texts: list[str] | None = None) -> Float32:
        """Scores of UInt8["n h w 3"], with a text per picture or without texts."""
        raise NotImplementedError

    def windows(self, frames: UInt8, width: int) -> Float32:
        """Scores of all windows of `width` frames: every window brings its own frames."""
        count = len(frames) - width + 1
        rows = np.arange(width)[None] + np.arange(count)[:, None]
        return self.score(frames[rows].reshape(-1, *frames.shape[1:])).reshape(-1, width).mean(1)

    def stream(self, frames: UInt8, width: int) -> Float32:
        """The same, but one window per call, as frames come in."""
        ends = range(width, len(frames) + 1)
        return np.array([self.score(frames[e - width : e]).mean() for e in ends], np.float32)

    def heads(self, frames: UInt8) -> list[Float32]:
        """Scores by each of the three heads."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop threads and processes."""
