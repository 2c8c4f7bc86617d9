"""Labels of every frame of a dataset, as LeRobot's progress sidecar; written in restartable parts.

The sidecar has one row per frame with the columns that `lerobot` reads (`index`, `episode_index`,
`frame_index`, `progress_sparse`, `progress_dense`; lerobot/rewards/*/compute_rabc_weights.py and
`RABCWeights`) and columns of our own, which LeRobot ignores. Who labelled is in the schema's
metadata. Episodes are written one by one into `.<name>.parts` beside it, each complete or not at
all, by any number of processes; when all are there they are joined.
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embodied_reward.errors import DatasetError
from embodied_reward.files import replacing
from embodied_reward.types import Float64, Int64, UInt8

COLUMNS = pa.schema(
    [
        ("index", pa.int64()),
        ("episode_index", pa.int64()),
        ("frame_index", pa.int64()),
        ("progress_sparse", pa.float32()),
        ("progress_dense", pa.float32()),
        ("success", pa.float32()),
        ("uncertainty", pa.float32()),
        ("status", pa.uint8()),
    ]
)
SHA256 = "reward_model_sha256"
"""Key of the metadata by which labels of two models are told apart."""


@dataclass(frozen=True)
class EpisodeLabels:
    """Labels of one episode; every array has one entry per frame.

    Attributes:
        rows: `index`, `episode_index` and `frame_index`, each Int64["t"].
        progress: Float64["t"] in [0, 1]; NaN where `status` is not 0.
        success: Float64["t"] in [0, 1] or NaN.
        uncertainty: Float64["t"] >= 0 or NaN.
        status: UInt8["t"], a `scoring.Status`; 0 is good.
    """

    rows: Mapping[str, Int64]
    progress: Float64
    success: Float64
    uncertainty: Float64
    status: UInt8

    def table(self) -> pa.Table:
        """Return the rows of the sidecar."""
        columns = {
            **self.rows,
            "progress_sparse": self.progress,
            "progress_dense": self.progress,
            "success": self.success,
            "uncertainty": self.uncertainty,
            "status": self.status,
        }
        arrays = [np.asarray(columns[f.name]).astype(f.type.to_pandas_dtype()) for f in COLUMNS]
        return pa.Table.from_arrays([pa.array(a) for a in arrays], schema=COLUMNS)


class LabelFile:
    """One sidecar on its way to completion.

    Args:
        path: the sidecar.
        about: metadata; `SHA256` must be among it.
        lengths: frames of every episode of the dataset.
    """

    def __init__(self, path: Path, about: Mapping[str, str], lengths: tuple[int, ...]) -> None:
        self.path, self.about, self.lengths = path, dict(about), lengths
        self.parts = path.with_name(f".{path.stem}.parts")

    def finished(self) -> bool:
        """Return whether the sidecar is there and this model's. Raises DatasetError if foreign."""
        if not self.path.is_file():
            return False
        found = _about(self.path)
        if found.get(SHA256) != self.about[SHA256]:
            raise DatasetError(
                f"'{self.path}' holds labels of another model "
                f"({found.get('reward_model_path', 'unknown')}); give --overwrite=true to replace "
                "them, or another --output"
            )
        frames = pq.read_metadata(self.path).num_rows
        if frames != sum(self.lengths):
            raise DatasetError(
                f"'{self.path}' labels {frames} frames, the dataset has {sum(self.lengths)}: it "
                "was labelled before it changed; give --overwrite=true to label it again"
            )
        return True

    def begin(self, *, overwrite: bool) -> None:
        """Open the folder of parts. Raises DatasetError if they are of another model or dataset."""
        facts = {SHA256: self.about[SHA256], "lengths": list(self.lengths)}
        file = self.parts / "about.json"
        with self._lock():
            if file.is_file() and json.loads(file.read_text()) != facts:
                if not overwrite:
                    raise DatasetError(
                        f"'{self.parts}' holds unfinished labels of another model or of the "
                        "dataset before it changed; give --overwrite=true to drop them"
                    )
                for part in self.parts.glob("*.parquet"):
                    part.unlink()
            with replacing(file) as temporary:
                temporary.write_text(json.dumps(facts))

    def missing(self) -> list[int]:
        """Return the episodes that have no part yet."""
        return [k for k in range(len(self.lengths)) if not self._part(k).is_file()]

    def write(self, episode: int, labels: EpisodeLabels) -> None:
        """Write one episode's part; complete or not at all."""
        table = labels.table()
        if len(table) != self.lengths[episode]:
            raise DatasetError(
                f"episode {episode} has {self.lengths[episode]} frames, {len(table)} were labelled"
            )
        with replacing(self._part(episode)) as temporary:
            pq.write_table(table, temporary)

    def join(self) -> pa.Table:
        """Join all parts to the sidecar, remove them, and return what was written.

        Where another process has just joined them, its result is returned.

        Raises:
            DatasetError: parts are missing, or frames are there twice or not at all.
        """
        with self._lock():
            missing = self.missing()
            faster = self.path.is_file() and not self.begun()
            if missing and not faster:
                shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
                raise DatasetError(
                    f"{len(missing)} of {len(self.lengths)} episodes of '{self.path}' are not "
                    f"labelled yet ({shown}): run the shards that are missing"
                )
            if not faster:
                self._join()
        shutil.rmtree(self.parts, ignore_errors=True)
        return pq.read_table(self.path, partitioning=None)  # type: ignore[arg-type]

    def _join(self) -> None:
        parts = [
            pq.read_table(self._part(k), partitioning=None)  # type: ignore[arg-type]
            for k in range(len(self.lengths))
        ]
        table = pa.concat_tables(parts).combine_chunks().sort_by("index")
        _check(table, sum(self.lengths), self.path)
        with replacing(self.path) as temporary:
            pq.write_table(table.replace_schema_metadata(self.about), temporary)
        for part in self.parts.glob("*.parquet"):
            part.unlink()

    def begun(self) -> bool:
        """Return whether there is any part; False again when they were joined."""
        return next(self.parts.glob("[!.]*.parquet"), None) is not None

    def _part(self, episode: int) -> Path:
        return self.parts / f"episode_{episode:06d}.parquet"

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Let one process at a time begin or join; the lock goes with the process that holds it."""
        self.parts.mkdir(parents=True, exist_ok=True)
        with (self.parts / "lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self.parts.mkdir(parents=True, exist_ok=True)
            yield


def _check(table: pa.Table, frames: int, path: Path) -> None:
    index = table.column("index").to_numpy()
    distinct = len(np.unique(index))
    if len(index) != frames or distinct != frames:
        raise DatasetError(
            f"the parts of '{path}' name {distinct} distinct frames in {len(index)} rows, the "
            f"dataset has {frames}: its `index` column is damaged; nothing was written"
        )


def _about(path: Path) -> dict[str, str]:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(
            f"'{path}' is not a readable parquet file ({error}); delete it"
        ) from error
    return {k.decode(): v.decode(errors="replace") for k, v in metadata.items()}
