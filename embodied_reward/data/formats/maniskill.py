"""ManiSkill's trajectories: `<name>.h5` with a group per episode, `<name>.json` beside it.

`traj_<i>` holds `actions` (T rows), `success`, `rewards`, ... and, one row longer because the
observation after the last action is kept too, `obs` and `env_states`, each an array or a tree of
them. That last row is left out here. Layout: ManiSkill's `RecordEpisode`.
"""

import json
import math
from pathlib import Path
from typing import Any

from embodied_reward.data import schema
from embodied_reward.data.formats import hdf5, limits
from embodied_reward.data.formats.hdf5_source import Hdf5Source, arrays_in, numbered
from embodied_reward.data.formats.layout import Decisions, Fact, Layout
from embodied_reward.data.formats.plan import Rules, make_plan
from embodied_reward.data.formats.source import check_lengths
from embodied_reward.errors import DatasetError

_RENAMES = {
    "actions": schema.ACTION,
    "rewards": schema.REWARD,
    "success": schema.SUCCESS,
    "terminated": schema.DONE,
}
_STATE = (("obs/agent/qpos", "obs/agent/qvel"), ("obs",))
_FPS = 20.0  # ManiSkill's default control rate


class ManiSkillSource(Hdf5Source):
    """One trajectory file; attributes as `Source`.

    Raises:
        DatasetError: damaged, hostile or incomplete, or the JSON contradicts the arrays.
        MissingDependencyError: h5py is not installed.
    """

    kind = "ManiSkill"

    def __init__(self, path: Path, layout: Layout | None = None) -> None:
        super().__init__(path)
        layout, meta = layout or Layout(), _read_json(path.with_suffix(".json"))
        with hdf5.opened(path) as file:
            self._groups = numbered(file, "traj_")
            self.lengths = [
                int(hdf5.dataset(file, f"{name}/actions").shape[0]) for name in self._groups
            ]
            check_lengths(self.lengths, path)
            first = hdf5.group(file, self._groups[0])
            self._stored = arrays_in(first, ("obs", "env_states"))
        _agree(meta, self._groups, self.lengths, path)
        env = meta.get("env_info") if isinstance(meta.get("env_info"), dict) else {}
        assert isinstance(env, dict)
        self.info = {"env_info": env}
        self.tasks = [layout.task or str(env.get("env_id", ""))] * len(self.lengths)
        decisions = Decisions(layout, {"fps": _control_rate(env)}, f"'{path}'")
        self.fps = float(decisions.settle("fps", _FPS))
        rules = Rules(_RENAMES, _STATE, orientation=Fact("upright", "assumed"))
        self._adopt(make_plan(self._stored, rules, decisions, {}, f"'{path}'"), decisions)
        if not meta:
            self.notes.append(f"there is no '{path.stem}.json' beside it, so the task is unknown")
        if not self.view_keys:
            self.notes.append(
                "no pictures; 'python -m mani_skill.trajectory.replay_trajectory -o rgb' adds them"
            )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    limits.fits(f"'{path}'", path.stat().st_size, 4 * limits.TEXT)
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"'{path}' is truncated or damaged ({error}); get it again from its source"
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("episodes"), list):
        raise DatasetError(
            f"'{path}' lists no 'episodes'; get the JSON again that was recorded with the HDF5 file"
        )
    return found


def _agree(meta: dict[str, Any], groups: list[str], lengths: list[int], path: Path) -> None:
    """Hold the JSON against the arrays: a file of another recording is easily mixed up."""
    if not meta:
        return
    known = {
        f"traj_{e.get('episode_id')}": e.get("elapsed_steps")
        for e in meta["episodes"]
        if isinstance(e, dict)
    }
    for name, length in zip(groups, lengths, strict=True):
        if name not in known:
            raise DatasetError(
                f"'{path.stem}.json' does not list '{name}' of '{path}'; "
                "the two files belong to different recordings: get them again together"
            )
        if known[name] is not None and known[name] != length:
            raise DatasetError(
                f"'{path.stem}.json' lists {known[name]} steps for '{name}', '{path}' has {length} "
                "actions; the two belong to different recordings: get them again together"
            )


def _control_rate(env: dict[str, Any]) -> float | None:
    here: Any = env
    for key in ("env_kwargs", "sim_config", "control_freq"):
        here = here.get(key) if isinstance(here, dict) else None
    good = isinstance(here, int | float) and math.isfinite(here) and here > 0
    return float(here) if good else None
