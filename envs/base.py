"""The contract of every environment: Gymnasium, plus cameras, true progress and a fingerprint."""

from abc import ABC, abstractmethod
from typing import Any

import gymnasium as gym

from embodied_reward.errors import EnvError
from embodied_reward.types import Float32, UInt8


class VisualEnv(gym.Env[dict[str, Any], Float32], ABC):
    """A Gymnasium environment that a reward model can look at.

    Observations are a dict in LeRobot's vocabulary: `agent_pos` Float32["s"],
    `environment_state` Float32["e"] and, where asked for, `pixels`: view -> UInt8["h w 3"].
    `info["is_success"]` is present after `reset` and after every `step`.

    Subclasses call `_forget_frames` whenever the scene has changed; everybody who calls
    `frames` between two steps shares one rendering.

    Attributes:
        views: the cameras, in the order in which they were asked for.
        task: short name of the task, e.g. "drawer-open-v3".
        task_description: the task in words.
        metadata: `render_fps` is the rate of decisions [Hz].
    """

    views: tuple[str, ...]
    task: str
    task_description: str
    _max_episode_steps: int  # the horizon in decisions, under the name LeRobot reads
    _rendered: dict[str, UInt8] | None = None

    def frames(self) -> dict[str, UInt8]:
        """Return one upright RGB picture per view, UInt8["h w 3"], of the present scene.

        Rendered at most once per step. The arrays are the caller's own: writing into them
        changes nobody else's.

        Raises:
            EnvError: before the first reset, or where no picture can be rendered.
        """
        if self._rendered is None:
            self._rendered = self._render_views()
        return {view: frame.copy() for view, frame in self._rendered.items()}

    def render(self) -> UInt8:  # type: ignore[override]
        """Return the first view, UInt8["h w 3"]. Raises EnvError as `frames` does."""
        return self.frames()[self.views[0]]

    def parts(self) -> dict[str, UInt8]:
        """Return what every pixel of `frames` shows: view -> UInt8["h w"], an index into `PARTS`.

        The simulator's own segmentation, for measurements; see `embodied_reward.envs.parts`.

        Raises:
            EnvError: before the first reset, or where the environment cannot tell.
        """
        raise EnvError(f"'{self.task}' cannot tell what its pixels show")

    @abstractmethod
    def progress(self) -> float:
        """Return the simulator's own progress in [0, 1]; exactly 1.0 when the task is done.

        For metrics and reports, never for training unless a user asks for the oracle.

        Raises:
            EnvError: before the first reset, or where the task has no honest definition.
        """

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return what determines states and pictures: id, views, size, versions, renderer."""

    @abstractmethod
    def _render_views(self) -> dict[str, UInt8]:
        """Render every view of the present scene, whatever was rendered before."""

    def _forget_frames(self) -> None:
        self._rendered = None
