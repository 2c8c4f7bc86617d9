"""The `--env.*` group that every verb with an environment shares."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from embodied_reward.cli.env_variation import VariationConfig, varied

if TYPE_CHECKING:
    from embodied_reward.envs import VisualEnv


@dataclass
class EnvConfig:
    """Which environment, and how time runs in it."""

    id: str = "metaworld/drawer-open-v3"  # environment, e.g. metaworld/<task> or robosuite/Lift
    horizon: int = 200  # decisions until an episode is cut off
    action_repeat: int = 1  # simulator steps per decision
    reward: str = "success"  # the task's own reward: success (0 or 1) or dense
    render_quality: str = "auto"  # auto, fast (no shadows or multisampling) or full
    control: str = ""  # robosuite only: pose (its default), or position, which keeps orientations
    variation: VariationConfig = field(default_factory=VariationConfig)


def make_env(
    config: EnvConfig,
    *,
    views: Sequence[str],
    size: int | tuple[int, int],
    seed: int | None = None,
    **kwargs: Any,
) -> "VisualEnv":
    """Build the configured environment.

    Args:
        config: the `--env.*` group.
        views: camera names; none takes the environment's own choice.
        size: pixels, one number for squares or (height, width).
        seed: seeds the first reset.
        **kwargs: `pixels` or `terminate_on_success`, see `embodied_reward.envs.make`.

    Raises:
        EnvError: unknown environment or view (naming the nearest), a value out of range, or a
            variation that has nothing to vary here.
        ConfigError: a folder of backgrounds that does not hold any.
        MissingDependencyError: the simulator is not installed.
    """
    from embodied_reward import envs

    if views:
        kwargs["views"] = tuple(views)
    if config.control:
        kwargs["control"] = config.control
    env = envs.make(
        config.id,
        size=size,
        seed=seed,
        horizon=config.horizon,
        action_repeat=config.action_repeat,
        reward=config.reward,
        quality=config.render_quality,
        **kwargs,
    )
    return varied(env, config.variation)
