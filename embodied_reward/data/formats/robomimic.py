"""robomimic's HDF5, and LIBERO's, which has the same shape.

`data/demo_<i>` holds `actions`, `rewards`, `dones`, `states` and `obs/<name>`; JSON attributes of
`data` describe the environment. Layout: https://robomimic.github.io/docs/datasets/overview.html
and `scripts/create_dataset.py` of LIBERO.

robomimic's own scripts write pictures upright. LIBERO stores what robosuite returned, whose first
row is the bottom, and notes robosuite's setting in `macros_image_convention`. LIBERO also takes
each picture *after* the action of its row; rows are kept as they are stored.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embodied_reward.data import schema
from embodied_reward.data.formats import hdf5, record
from embodied_reward.data.formats.hdf5_source import Hdf5Source, arrays_in, numbered
from embodied_reward.data.formats.layout import Decisions, Fact, Layout
from embodied_reward.data.formats.plan import Number, Plan, Rules, make_plan
from embodied_reward.data.formats.source import check_lengths
from embodied_reward.errors import DatasetError

if TYPE_CHECKING:
    import h5py

_RENAMES = {
    "actions": schema.ACTION,
    "rewards": schema.REWARD,
    "dones": schema.DONE,
    "states": record.SIM_STATE,
}
_STATE = (
    (r"obs/robot\d+_eef_pos", r"obs/robot\d+_eef_quat", r"obs/robot\d+_gripper_qpos"),
    ("obs/ee_states", "obs/gripper_states"),
    ("obs/state",),
)
_ENVIRONMENT = (("obs/object",), ("obs/object-state",), ("obs/environment_state",))
_FPS = 20.0  # robosuite's default control rate
_SAMPLE = 16  # episodes whose rewards are looked at


class RobomimicSource(Hdf5Source):
    """One robomimic or LIBERO file; attributes as `Source`.

    Raises:
        DatasetError: damaged, hostile or incomplete.
        MissingDependencyError: h5py is not installed.
    """

    kind = "robomimic"

    def __init__(self, path: Path, layout: Layout | None = None) -> None:
        super().__init__(path)
        layout = layout or Layout()
        with hdf5.opened(path) as file:
            data = hdf5.group(file, "data")
            names = numbered(data, "demo_")
            self._groups = [f"data/{name}" for name in names]
            self.lengths = [_length(hdf5.group(data, name)) for name in names]
            check_lengths(self.lengths, path)
            self._stored = arrays_in(hdf5.group(data, names[0]), ("obs",))
            header = _Header(data)
            self.tasks = [
                layout.task or _task(hdf5.group(data, name), header.task) for name in names
            ]
        self.kind = "LIBERO" if header.libero else self.kind
        self.robot_type, self.info = header.robot_type, {"env_args": header.env_args}
        self._settle(layout, header)

    def _settle(self, layout: Layout, header: "_Header") -> None:
        recorded = {"fps": header.fps} | header.record
        decisions = Decisions(layout, recorded, f"'{self.root}'")
        self.fps = float(decisions.settle("fps", _FPS))
        rules = Rules(_RENAMES, _STATE, _ENVIRONMENT, header.orientation)
        plan = make_plan(self._stored, rules, decisions, header.record, f"'{self.root}'")
        if not header.record:
            self._read_success(plan, decisions)
        self._adopt(plan, decisions)
        if header.libero and not header.record:
            self.notes.append("LIBERO takes each picture after the action of its row")
        if not plan.views:
            self.notes.append(
                "no pictures; robomimic's dataset_states_to_obs.py renders them from the states"
            )

    def _read_success(self, plan: Plan, decisions: Decisions) -> None:
        """Rewards of 0 and 1 say which transitions succeed; other rewards say nothing."""
        if schema.REWARD not in plan.numbers or schema.SUCCESS in plan.numbers:
            return
        chosen = np.unique(np.linspace(0, len(self.lengths) - 1, _SAMPLE).round().astype(int))
        rows = [self.read(int(i), "rewards", 0, self.lengths[i]) for i in chosen]
        if all(np.isin(r, (0, 1)).all() for r in rows):
            plan.numbers[schema.SUCCESS] = Number(("rewards",), "bool", (1,))
            decisions.facts["success"] = Fact("rewards of 0 and 1", "detected")


class _Header:
    """What the attributes of `data` say."""

    def __init__(self, data: "h5py.Group") -> None:
        self.env_args = hdf5.document(data, "env_args")
        self.record = hdf5.document(data, record.NAME)
        kwargs = self.env_args.get("env_kwargs")
        kwargs = kwargs if isinstance(kwargs, dict) else {}
        self.libero = "problem_info" in data.attrs or "bddl_file_name" in data.attrs
        self.fps = _rate(kwargs.get("control_freq"))
        problem = hdf5.document(data, "problem_info") if self.libero else {}
        words = problem.get("language_instruction") or self.env_args.get("env_name")
        self.task = _words(words)
        self.robot_type = _words(self.record.get("robot_type") or kwargs.get("robots")) or "unknown"
        self.orientation = self._orientation(data)

    def _orientation(self, data: "h5py.Group") -> Fact:
        convention = hdf5.text(data, "macros_image_convention")
        if convention in ("opengl", "opencv"):
            return Fact("flipped" if convention == "opengl" else "upright", "recorded")
        return Fact("flipped" if self.libero else "upright", "assumed")


def _length(demo: "h5py.Group") -> int:
    rows = hdf5.dataset(demo, "actions").shape[0]
    declared = hdf5.integer(demo, "num_samples")
    if declared is not None and declared != rows:
        raise DatasetError(
            f"'{demo.name}' in '{demo.file.filename}' declares {declared} samples and has {rows} "
            "actions; the file is incomplete: get it again from its source"
        )
    return int(rows)


def _task(demo: "h5py.Group", default: str) -> str:
    words = hdf5.document(demo, "ep_meta").get("lang")
    return words if isinstance(words, str) else default


def _rate(value: Any) -> float | None:
    good = isinstance(value, int | float) and math.isfinite(value) and value > 0
    return float(value) if good else None


def _words(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(v) for v in value)
    return str(value).strip('"') if isinstance(value, str) else ""
