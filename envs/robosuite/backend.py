"""robosuite itself: imported without its habits, built without its renderer, seeded in place.

At import robosuite prints warnings through a handler of its own, overwrites MUJOCO_GL and asserts
that MUJOCO_EGL_DEVICE_ID is one of CUDA_VISIBLE_DEVICES (two different numberings). None of that
concerns an environment that draws by itself.
"""

import contextlib
import importlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from embodied_reward.errors import EnvError, MissingDependencyError, did_you_mean

from ..rendering import load_mujoco
from .tasks import TASKS

CONTROLS = ("pose", "position")
_LOGGER = "robosuite_logs"
_TOUCHED = ("MUJOCO_GL", "CUDA_VISIBLE_DEVICES")
_COLLISION, _HIDDEN = 0, 3  # robosuite's geom group of what only collides; MuJoCo draws 0 to 2


def check_installed() -> None:
    """Raise MissingDependencyError, naming the extra, where robosuite is not installed."""
    if importlib.util.find_spec("robosuite") is None:
        raise MissingDependencyError(
            "robosuite is not installed; run `uv sync --extra robosuite`, or with pip "
            "`pip install --no-deps robosuite==1.5.2 && pip install numba termcolor 'mujoco<3.9'`"
        )


def load_robosuite() -> Any:
    """Import robosuite quietly and leave the process's environment variables as they were.

    Raises:
        MissingDependencyError: robosuite is not installed.
        EnvError: it is, but cannot be imported.
    """
    check_installed()
    load_mujoco()
    with _own_environment(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("robosuite")
        except (ImportError, AssertionError, RuntimeError, OSError) as error:
            raise EnvError(
                f"robosuite cannot be imported ({type(error).__name__}: {error}); "
                "`er doctor` looks for the usual causes"
            ) from error


def build(task: str, control: str) -> Any:
    """Return robosuite's environment of a task, which never ends by itself and draws nothing.

    What robosuite draws once per model (the cube's size in Lift, the peg's radius) is drawn from
    seed 0, so that it is the same in every environment.

    Args:
        task: one of `TASKS`.
        control: one of `CONTROLS`.

    Raises:
        EnvError: unknown task or control; robosuite cannot be imported.
        MissingDependencyError: robosuite is not installed.
    """
    if task not in TASKS:
        raise EnvError(f"unknown task 'robosuite/{task}'; {did_you_mean(task, TASKS)}")
    if control not in CONTROLS:
        raise EnvError(f"unknown control '{control}'; {did_you_mean(control, CONTROLS)}")
    suite, arms = load_robosuite(), TASKS[task].robots
    sim = suite.make(
        task,
        robots=["Panda"] * arms,
        controller_configs=[_controller(suite, control) for _ in range(arms)],
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        renderer="mujoco",  # its other one would import a window
        reward_shaping=True,
        ignore_done=True,
        hard_reset=False,
        seed=0,
    )
    sim.early_terminations = False  # of Wipe, which would end at contacts
    _observe_only(sim, wanted_sensors(task))
    model = sim.sim.model._model
    model.geom_group[model.geom_group == _COLLISION] = _HIDDEN
    model.site_group[:] = _HIDDEN  # aids of robosuite's, transparent in pictures but not in masks
    return sim


def wanted_sensors(task: str) -> list[str]:
    """Return robosuite's names of everything that is observed; missing ones are not there."""
    arms = range(TASKS[task].robots)
    hands = [f"robot{i}_{what}" for i in arms for what in ("eef_pos", "eef_quat", "gripper_qpos")]
    return [*hands, *TASKS[task].state]


def reseed(sim: Any, seed: int) -> None:
    """Restart the generator that robosuite and its samplers share."""
    sim.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state


def settle(sim: Any) -> None:
    """Bring everything that follows from positions and velocities up to date.

    A robosuite step ends with positions that are newer than places, contacts and cameras. Next
    step's forces are computed from the same numbers, so the motion is not touched.
    """
    sim.sim.step1()


def observe(sim: Any) -> dict[str, np.ndarray]:
    """Return robosuite's own observations of the present state, Float64["n"] each.

    After a step robosuite itself returns those of 2 ms before its end, or older.
    """
    return {k: np.atleast_1d(v) for k, v in sim._get_observations(force_update=True).items()}


def _controller(suite: Any, control: str) -> dict[str, Any]:
    config = suite.load_composite_controller_config(robot="Panda")
    if control == "position":
        arm = config["body_parts"]["right"]
        arm |= {"type": "OSC_POSITION", "output_max": [0.05] * 3, "output_min": [-0.05] * 3}
    return config


def _observe_only(sim: Any, wanted: list[str]) -> None:
    """Switch off the sensors that nobody reads; robosuite updates the others at every 2 ms."""
    needed = {*wanted, "world_pose_in_gripper"}  # from which others are computed
    for name in sim.observation_names - needed:
        sim.modify_observable(name, "enabled", False)
        sim.modify_observable(name, "active", False)


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    logging.getLogger(_LOGGER).addFilter(_only_errors)
    kept = {name: os.environ.get(name) for name in _TOUCHED}
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _only_errors(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
