"""Draw one sheet of what varies in an environment: a row per factor, a column per level.

er variations --env.id=metaworld/push-v3 --view=corner2

Train's levels stand left and test's right. Every tile shows the same moment of the same episode:
an expert acts in the original, and what it did is repeated in every variant.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embodied_reward.cli.command import run_verb
from embodied_reward.cli.env_config import EnvConfig, make_env
from embodied_reward.cli.env_variation import VariationConfig, material
from embodied_reward.envs.variation import FACTORS, LOOKS, SPLITS
from embodied_reward.errors import ConfigError, EnvError, did_you_mean

if TYPE_CHECKING:
    from embodied_reward.cli.variation_sheet import Row, Tile
    from embodied_reward.envs import VisualEnv
    from embodied_reward.types import Float32


@dataclass
class VariationsConfig:
    """What `er variations` draws."""

    env: EnvConfig = field(default_factory=EnvConfig)
    factors: tuple[str, ...] = ()  # rows; default all that this environment has
    levels: tuple[float, ...] = (0.33, 0.67, 1.0)  # columns, for train and again for test
    view: str = ""  # camera; default the environment's first
    size: int = 112  # picture height and width [px]
    seed: int = 0  # of the scene
    steps: int = 20  # expert decisions before the pictures
    output: str | None = None  # the PNG; default outputs/variations/<date>_<env>/sheet.png


def main(argv: list[str]) -> int:
    """Run `er variations`."""
    return run_verb("variations", VariationsConfig, variations, argv, __doc__)


def variations(config: VariationsConfig) -> int:
    """Draw the sheet; returns the exit status.

    Raises:
        ConfigError: an unknown factor, or a value out of range.
        EnvError: the environment does not exist, or a named factor has nothing to vary in it.
    """
    from embodied_reward.cli.variation_sheet import draw_sheet

    _check(config)
    path = Path(config.output) if config.output else _default_path(config)
    plain = replace(config.env, variation=VariationConfig())
    views = (config.view,) if config.view else ()
    env = make_env(
        plain, views=views, size=config.size, seed=config.seed, terminate_on_success=False
    )
    try:
        rows = list(_rows(config, env))
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_sheet(rows, path, title=f"{config.env.id}, view {env.views[0]}")
    finally:
        env.close()
    print(f"{len(rows)} factors: {path}")
    return 0


def _check(config: VariationsConfig) -> None:
    for factor in config.factors:
        if factor not in FACTORS:
            raise ConfigError(f"unknown factor '{factor}'; {did_you_mean(factor, FACTORS)}")
    if not config.levels or not all(0.0 <= level <= 1.0 for level in config.levels):
        raise ConfigError(f"--levels must be one or more numbers in [0, 1], got {config.levels}")
    if config.steps < 0:
        raise ConfigError(f"--steps must be at least 0, got {config.steps}")


def _default_path(config: VariationsConfig) -> Path:
    from embodied_reward.training.run import default_output_dir

    return default_output_dir("variations", config.env.id) / "sheet.png"


def _rows(config: VariationsConfig, env: "VisualEnv") -> Iterator["Row"]:
    from embodied_reward.cli.progress_bar import progress_bar
    from embodied_reward.cli.variation_sheet import Row

    actions = _expert(config, env)
    factors = config.factors or FACTORS
    with progress_bar() as bar:
        for factor in bar.track(factors, description=config.env.id):
            try:
                yield Row(factor, factor in LOOKS, list(_tiles(config, env, factor, actions)))
            except EnvError as error:
                if config.factors:
                    raise
                bar.console.print(f"left out: {error}")


def _expert(config: VariationsConfig, env: "VisualEnv") -> list["Float32"]:
    """Return what an expert does in the original."""
    from embodied_reward.envs import make_behaviour

    observation, _ = env.reset(seed=config.seed)
    act, actions = make_behaviour(env, "expert", np.random.default_rng(config.seed)), []
    for _ in range(config.steps):
        actions.append(act(observation))
        observation = env.step(actions[-1])[0]
    return actions


def _tiles(
    config: VariationsConfig, env: "VisualEnv", factor: str, actions: list["Float32"]
) -> Iterator["Tile"]:
    yield _tile(config, env, factor, 0.0, "", actions)
    for split in SPLITS:
        for level in config.levels:
            yield _tile(config, env, factor, level, split, actions)


def _tile(
    config: VariationsConfig,
    env: "VisualEnv",
    factor: str,
    level: float,
    split: str,
    actions: list["Float32"],
) -> "Tile":
    """Play the actions in one variant; the environment is its old self afterwards."""
    from embodied_reward.cli.variation_sheet import Tile
    from embodied_reward.envs.variation import FACTORS, VariedEnv

    given = config.env.variation
    off = dict.fromkeys(FACTORS, 0.0) | {"variant": max(given.variant, 0)}
    chosen = replace(given, **(off | {factor: level, "split": split or "train"}))
    varied = VariedEnv(env, chosen.settings, material=material(chosen))
    varied.reset(seed=config.seed)
    for action in actions:
        varied.step(action)
    picture, times = varied.render(), varied.multipliers.get(factor)
    varied.restore()
    caption = f"{split} {level:g}" if split else "original"
    return Tile(picture, caption + (f"  x{times:.2f}" if times else ""))
