"""What the MuJoCo environments share: settings, spaces, drawing, most of a fingerprint."""

import importlib.metadata
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from embodied_reward.types import UInt8

from .arguments import check_at_least_one, checked_size
from .base import VisualEnv
from .dress import Dress
from .parts import PartLabels, PartNames, label_parts
from .rendering import Camera, ViewRenderer, check_quality, gl_renderer, resolve_quality


class MujocoEnv(VisualEnv):
    """Base; a subclass calls `_configure`, sets its views and spaces, then `_finish_spaces`.

    Attributes:
        suite: first part of the environment's id.
        kinematic: places its bodies by itself; masses, frictions and forces mean nothing to it.
        part_names: what is what in the scene, for `parts`.
    """

    suite: str
    kinematic: ClassVar[bool] = False
    part_names: PartNames
    _state_spaces: dict[str, gym.Space]

    def _configure(
        self,
        *,
        size: int | tuple[int, int],
        seed: int | None,
        pixels: bool,
        horizon: int,
        terminate_on_success: bool,
        action_repeat: int,
        quality: str,
        fps: float,
    ) -> None:
        """Check and keep the settings that every suite has; `fps` is that of single steps [Hz].

        Raises:
            EnvError: a size, number or quality that cannot be used.
        """
        self._size = checked_size(size)
        check_at_least_one(horizon=horizon, action_repeat=action_repeat)
        check_quality(quality)
        self._max_episode_steps, self._terminates = horizon, terminate_on_success
        self._repeat, self._pixels, self._quality = action_repeat, pixels, quality
        self._first_seed, self._steps = seed, 0
        self.render_mode = "rgb_array"
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": fps / action_repeat}
        self._renderer: ViewRenderer | None = None
        self._dress: Dress | None = None
        self._drawn: tuple[Any, Any] | None = None
        self._labels: tuple[Any, PartLabels] | None = None

    @property
    @abstractmethod
    def model(self) -> Any:
        """The simulator's `mujoco.MjModel`."""

    @property
    @abstractmethod
    def data(self) -> Any:
        """The simulator's `mujoco.MjData`."""

    @property
    def id(self) -> str:
        """The id that `make` takes."""
        return f"{self.suite}/{self.task}"

    @property
    def action_repeat(self) -> int:
        """Simulator steps per decision."""
        return self._repeat

    @property
    def first_seed(self) -> int | None:
        """The constructor's seed until a reset has used it, then None."""
        return self._first_seed

    def wear(self, dress: Dress | None) -> None:
        """Take all further pictures of the scene in this dress; None is the scene itself."""
        self._dress = dress
        self._forget_frames()

    def upload_meshes(self) -> None:
        """Draw meshes as the model has them now; call after their vertices have changed."""
        self._forget_frames()
        if self._renderer is not None:
            self._renderer.upload_meshes()

    def fingerprint(self) -> dict[str, Any]:
        """Return versions, renderer, quality and settings, as JSON values."""
        return {
            "id": self.id,
            "views": list(self.views),
            "size": list(self._size),
            "quality": resolve_quality(self._quality),
            "gl_renderer": gl_renderer(),
            "pixels": self._pixels,
            "horizon": self._max_episode_steps,
            "terminate_on_success": self._terminates,
            "action_repeat": self._repeat,
            "versions": {"mujoco": importlib.metadata.version("mujoco")},
        }

    def parts(self) -> dict[str, UInt8]:
        """See the base class."""
        self.frames()  # makes the renderer, and brings the scene up to date
        assert self._renderer is not None
        assert self._drawn is not None
        model, data = self._drawn
        if self._labels is None or self._labels[0] is not model:
            self._labels = (model, label_parts(model, self.part_names))
        labels = self._labels[1]
        return {
            view: labels.of(ids) for view, ids in self._renderer.segment(data, self._dress).items()
        }

    def close(self) -> None:
        """Free the GL context; safe to call twice."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _begin_episode(self, seed: int | None) -> None:
        """Seed as Gymnasium does; the first reset without a seed takes the constructor's."""
        super().reset(seed=self._first_seed if seed is None else seed)
        self._first_seed, self._steps = None, 0
        self._forget_frames()

    def _finish_spaces(self) -> None:
        spaces = dict(self._state_spaces)
        if self._pixels:
            image = gym.spaces.Box(0, 255, (*self._size, 3), np.uint8)
            spaces["pixels"] = gym.spaces.Dict(dict.fromkeys(self.views, image))
        self.observation_space = gym.spaces.Dict(spaces)

    def _observed(self, parts: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return float32 parts within their spaces, and the pictures where they are wanted."""
        observation: dict[str, Any] = {}
        for key, part in parts.items():
            space = self._state_spaces[key]
            assert isinstance(space, gym.spaces.Box)
            observation[key] = np.clip(part.astype(np.float32), space.low, space.high)
        return observation | ({"pixels": self.frames()} if self._pixels else {})

    def _draw(
        self, model: Any, data: Any, cameras: Mapping[str, Camera] | None = None
    ) -> dict[str, UInt8]:
        """Render the views; `cameras` default to the scene's own of those names."""
        if self._renderer is None:
            chosen = cameras or {view: Camera(view) for view in self.views}
            self._renderer = ViewRenderer(model, dict(chosen), self._size, self._quality)
        self._drawn = (model, data)
        return self._renderer.render(data, self._dress)
