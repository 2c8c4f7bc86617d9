"""Zarr replay buffers of diffusion policy and UMI.

`data/<name>` holds the rows of all episodes one after another, `meta/episode_ends` the row after
each episode's last. A store is a folder or a zip. Layout: `common/replay_buffer.py` of diffusion
policy. Pictures may be uint8, or floats in 0 to 255 (PushT). Neither task nor frame rate is stored.
UMI stores no actions; there the pose of the next row stands for the action.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embodied_reward.data import schema
from embodied_reward.data.formats import limits, record
from embodied_reward.data.formats.layout import Decisions, Fact, Layout
from embodied_reward.data.formats.plan import Number, Plan, Rules, Stored, join, make_plan
from embodied_reward.data.formats.source import ArraySource, check_lengths
from embodied_reward.data.formats.zarr_store import ZarrStore
from embodied_reward.errors import DatasetError

_ENDS = "meta/episode_ends"
_UMI = (
    r"robot\d+_eef_pos",
    r"robot\d+_eef_rot_axis_angle",
    r"robot\d+_gripper_width",
)
_RENAMES = {
    "action": schema.ACTION,
    "actions": schema.ACTION,
    "reward": schema.REWARD,
    "done": schema.DONE,
    "success": schema.SUCCESS,
    "progress": schema.PROGRESS,
}
_STATE = (("state",), ("agent_pos",), _UMI, ("robot_eef_pose",))
_ENVIRONMENT = (("environment_state",),)
_FPS = 10.0  # diffusion policy's PushT and real-robot tasks
_FPS_UMI = 59.94  # GoPro


class ReplayBufferSource(ArraySource):
    """One store; attributes as `Source`.

    Raises:
        DatasetError: damaged, hostile or incomplete.
        MissingDependencyError: zarr, or a codec's package, is not installed.
    """

    kind = "zarr"

    def __init__(self, path: Path, layout: Layout | None = None) -> None:
        super().__init__(path)
        layout = layout or Layout()
        self._store = ZarrStore(path, fill=layout.missing_chunks == "fill")
        self._ends = self._read_ends()
        self.lengths = np.diff(self._ends, prepend=0).tolist()
        check_lengths(self.lengths, path)
        stored = {name: self._stored(name) for name in self._store.names("data")}
        if not stored:
            raise DatasetError(
                f"'data' in '{path}' holds no arrays; get the dataset again from its source"
            )
        noted = self._store.attributes().get(record.NAME)
        noted = noted if isinstance(noted, dict) else {}
        self.tasks = self._read_tasks(noted, layout.task)
        self.robot_type = str(noted.get("robot_type") or "unknown")
        self.info = noted["info"] if isinstance(noted.get("info"), dict) else {}
        self._settle(stored, layout, noted)

    def read(self, index: int, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows [start, stop) of an array of one episode. Raises DatasetError."""
        first = int(self._ends[index]) - self.lengths[index]
        return self._store.read(f"data/{name}", first + start, first + stop)

    def stored_bytes(self, index: int, name: str) -> int:
        """Return how many bytes hold the chunks of one episode."""
        end = int(self._ends[index])
        return self._store.stored_bytes(f"data/{name}", end - self.lengths[index], end)

    def spans(self, index: int, name: str, rows: int) -> Iterator[tuple[int, int]]:
        """Yield the rows of one episode, start and stop, so that no chunk is decoded twice."""
        chunk, length = self._store.header(f"data/{name}").chunks[0], self.lengths[index]
        size, first = max(chunk, rows // chunk * chunk), int(self._ends[index]) - length
        start = 0
        while start < length:
            stop = min(length, ((first + start) // size + 1) * size - first)
            yield start, stop
            start = stop

    def _read_ends(self) -> npt.NDArray[np.int64]:
        header = self._store.header(_ENDS)
        where = f"'{_ENDS}' in '{self.root}'"
        if len(header.shape) != 1 or header.dtype.kind not in "iu":
            raise DatasetError(
                f"{where} must be a list of whole numbers, found {header.dtype} of shape "
                f"{header.shape}"
            )
        if header.shape[0] > limits.EPISODES:
            raise DatasetError(
                f"{where} lists {header.shape[0]} episodes, more than {limits.EPISODES}; the file "
                "is damaged: get it again from its source"
            )
        ends = self._store.read(_ENDS, 0, header.shape[0])
        if len(ends) and (int(ends.max()) > 2**48 or int(ends[0]) <= 0):
            raise DatasetError(
                f"{where} holds {ends.min()} to {ends.max()}; each entry must be the number of "
                "rows up to an episode's end: write the buffer again"
            )
        ends = ends.astype(np.int64)
        if (np.diff(ends) <= 0).any():
            at = int(np.argmax(np.diff(ends) <= 0))
            raise DatasetError(
                f"{where} must grow; entry {at + 1} is {ends[at + 1]} after {ends[at]}: "
                "write the buffer again"
            )
        return ends

    def _stored(self, name: str) -> Stored:
        header = self._store.header(f"data/{name}")
        if header.shape[0] < self._ends[-1]:
            raise DatasetError(
                f"'data/{name}' in '{self.root}' has {header.shape[0]} rows, the episodes need "
                f"{self._ends[-1]}; the store is incomplete: get it again from its source"
            )
        return Stored(header.shape[1:], header.dtype)

    def _read_tasks(self, noted: dict[str, Any], given: str | None) -> list[str]:
        count, names = len(self.lengths), noted.get("tasks")
        if given or not isinstance(names, list) or not names:
            return [given or ""] * count
        which = self._store.read("meta/task_index", 0, count)
        if which.shape != (count,) or which.min() < 0 or which.max() >= len(names):
            raise DatasetError(
                f"'meta/task_index' in '{self.root}' does not fit its {len(names)} tasks and "
                f"{count} episodes; write the buffer again"
            )
        return [str(names[int(i)]) for i in which]

    def _settle(self, stored: dict[str, Stored], layout: Layout, noted: dict[str, Any]) -> None:
        where = f"'{self.root}'"
        decisions = Decisions(layout, noted, where)
        umi = any(name.endswith("_eef_rot_axis_angle") for name in stored)
        self.fps = float(decisions.settle("fps", _FPS_UMI if umi else _FPS))
        plan = make_plan(stored, Rules(_RENAMES, _STATE, _ENVIRONMENT), decisions, noted, where)
        if umi and schema.ACTION not in plan.numbers:
            self._act_by_pose(stored, plan, decisions)
        self.kind = "UMI zarr" if umi else self.kind
        self._adopt(plan, decisions)
        if not self.view_keys:
            self.notes.append("no colour pictures; a reward model of pictures cannot use it")

    def _act_by_pose(self, stored: dict[str, Stored], plan: Plan, decisions: Decisions) -> None:
        names = plan.numbers[schema.STATE].names
        pose = join(stored, names, schema.ACTION, f"'{self.root}'")
        plan.numbers[schema.ACTION] = Number(names, pose.dtype, pose.shape, pose.labels, ahead=1)
        decisions.facts["action"] = Fact("the state of the next row", "assumed")
