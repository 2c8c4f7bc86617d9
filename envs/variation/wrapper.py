"""The Gymnasium wrapper around any MuJoCo environment of ours."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from embodied_reward.errors import EnvError
from embodied_reward.types import Float32, UInt8

from ..base import VisualEnv
from ..mujoco_env import MujocoEnv
from .costume import Costume, Material
from .distractors import scattered
from .draws import Draw
from .dynamics import Dynamics, multiplier
from .needs import check_needs
from .roles import roles_of
from .settings import Variation, checked_names

_MANY = 2**31


class VariedEnv(gym.Wrapper, VisualEnv):  # type: ignore[misc]
    """Varies looks and dynamics of a `VisualEnv` that MuJoCo simulates.

    Looks are put on while a picture is taken and taken off again, so states, progress and rewards
    are those of the original to the last bit. Dynamics are applied before a reset and taken back
    by the next one, by `close` and by `restore`. The environment's own model is changed, which no
    other environment shares.

    A variant is drawn at every reset, from the reset's seed and the settings alone; the number is
    `variant`, and `info["variant"]` where something varies.

    Args:
        env: the environment, wrapped or not, before its first reset.
        variation: what varies.
        material: pictures and videos for backgrounds; None draws patterns.

    Raises:
        EnvError: not a MuJoCo environment of ours; a factor that has nothing to vary in it.
    """

    def __init__(
        self, env: gym.Env, variation: Variation, *, material: Material | None = None
    ) -> None:
        gym.Wrapper.__init__(self, env)
        base = env.unwrapped
        if not isinstance(base, MujocoEnv):
            raise EnvError(f"{type(base).__name__} is no MuJoCo environment; nothing can vary")
        if base.kinematic and variation.dynamics:
            raise EnvError(
                f"'{base.id}' simulates no forces, so these mean nothing to it: "
                f"{', '.join(variation.dynamics)}"
            )
        if _varied_within(env):
            raise EnvError(f"'{base.id}' is varied already; give all levels to one wrapper")
        self._base, self.variation = base, variation
        self.views, self.task = base.views, base.task
        self.task_description = base.task_description
        self._max_episode_steps = base._max_episode_steps
        self._roles = roles_of(base.model)
        self._dynamics = Dynamics(base.model, self._roles)
        check_needs(variation.levels, base.model, self._roles)
        self._material = material or Material()
        self._source: np.random.Generator | None = None
        self._variant, self._costume = 0, None

    @property
    def variant(self) -> int:
        """Number of the present variant; the same number of a split always looks the same."""
        return self._variant

    @property
    def multipliers(self) -> Mapping[str, float]:
        """Task-relevant factor -> what the present variant multiplies by."""
        levels = self.variation.dynamics
        return {name: multiplier(name, level, self._draw(name)) for name, level in levels.items()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draw a variant, then reset; a seed decides both whatever went before."""
        if not self.variation.levels:
            return self.env.reset(seed=seed, options=options)
        self._variant = self._next_variant(seed)
        meshes = self._dynamics.changed_meshes
        self._dynamics.apply(self.multipliers)
        if meshes or self._dynamics.changed_meshes:
            self._base.upload_meshes()
        self._costume = self._new_costume()
        self._base.wear(self._costume)
        observation, info = self.env.reset(seed=seed, options=options)
        return self._dressed(observation), self._told(info)

    def step(self, action: Float32) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Step; moving backgrounds go on by one decision."""
        if self._costume is not None:
            self._costume.time += 1.0
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward), terminated, truncated, self._told(info)

    def frames(self) -> dict[str, UInt8]:
        """Return the pictures as `VisualEnv.frames` does, of the varied scene."""
        return self._base.frames()

    def parts(self) -> dict[str, UInt8]:
        """Return what the pixels of the varied scene show; distractors belong to the rest."""
        return self._base.parts()

    def render(self) -> UInt8:  # type: ignore[override]
        """Return the first view, UInt8["h w 3"]."""
        return self._base.render()

    def progress(self) -> float:
        """Return the true progress of the wrapped environment."""
        return self._base.progress()

    def fingerprint(self) -> dict[str, Any]:
        """Return the wrapped environment's, and the variation's settings."""
        known = self._base.fingerprint()
        if not self.variation.levels:
            return known
        return known | {"variation": dataclasses.asdict(self.variation)}

    def restore(self) -> None:
        """Give the wrapped environment its own looks and dynamics back, exactly."""
        meshes = self._dynamics.changed_meshes
        self._dynamics.restore()
        if meshes:
            self._base.upload_meshes()
        self._base.wear(None)
        self._costume = None

    def close(self) -> None:
        """Restore, then close; safe to call twice."""
        self.restore()
        self.env.close()

    def _render_views(self) -> dict[str, UInt8]:
        return self._base._render_views()

    def _next_variant(self, seed: int | None) -> int:
        chosen = self.variation.variant
        if chosen >= 0:
            return chosen
        seed = self._base.first_seed if seed is None else seed
        if seed is not None or self._source is None:
            self._source = np.random.default_rng(None if seed is None else [2, seed])
        return int(self._source.integers(self.variation.variants or _MANY))

    def _draw(self, factor: str) -> Draw:
        return Draw(factor, self._variant, self.variation.seed, self.variation.split)

    def _new_costume(self) -> Costume | None:
        looks = self.variation.looks
        return Costume(self._roles, looks, self._draw, self._material) if looks else None

    def _dressed(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Scatter distractors where the reset left room, and show them."""
        level = self.variation.distractors
        if self._costume is None or not level:
            return observation
        model, data = self._base.model, self._base.data
        draw = self._draw("distractors")
        self._costume.distractors = scattered(model, data, self._roles, level, draw)
        self._base.wear(self._costume)
        return observation | ({"pixels": self.frames()} if "pixels" in observation else {})

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        return {**info, "variant": self._variant} if self.variation.levels else info


def _varied_within(env: gym.Env) -> bool:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, VariedEnv):
            return True
        env = env.env
    return False


def vary(env: gym.Env, *, material: Material | None = None, **levels: Any) -> VariedEnv:
    """Wrap an environment: `vary(env, texture=0.5, friction=1.0, split="test")`.

    Args:
        env: a MuJoCo environment of `embodied_reward.envs.make`.
        material: pictures and videos for backgrounds.
        **levels: fields of `Variation`.

    Raises:
        EnvError: an unknown name, a level outside [0, 1], or nothing to vary.
    """
    checked_names(levels)
    return VariedEnv(env, Variation(**levels), material=material)
