"""A file of JSON lines that a killed program cannot rob of an answer.

A row is on the disk (written, then fsync) before `append` returns. What a kill leaves behind at
the end of the file is at most one unfinished row that nobody was told about; it is cut off when
the file is opened again.
"""

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from embodied_reward.errors import DatasetError
from embodied_reward.files import fsync

type Row = dict[str, Any]


class Journal:
    """The rows of one file, which this process alone may change.

    Attributes:
        path: the file; it is made, with its folders, where there is none.
        rows: what it holds, in order.
        torn: bytes of an unfinished last row that were cut off on opening.

    Raises:
        DatasetError: another process writes the file, a line is no JSON object, or the disk
            refuses.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self._begin()
        except OSError as error:
            raise DatasetError(f"cannot write '{self.path}': {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def append(self, row: Row) -> None:
        """Add a row; once this returns, no kill can lose it.

        Raises:
            DatasetError: the disk refused; the file is as it was before.
        """
        # ASCII: what counts as the end of a line in Unicode is no line end for every reader.
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        start = self._starts[-1]
        try:
            _write_all(self._file, line, start)
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, start)
            raise DatasetError(f"cannot write '{self.path}': {error.strerror}") from error
        self._starts.append(start + len(line))
        self.rows.append(row)

    def remove_last(self) -> Row:
        """Take the last row out of the file and return it. Raises IndexError: there is none."""
        row = self.rows[-1]
        try:
            os.ftruncate(self._file, self._starts[-2])
            os.fsync(self._file)
        except OSError as error:
            raise DatasetError(f"cannot write '{self.path}': {error.strerror}") from error
        self.rows.pop()
        self._starts.pop()
        return row

    def close(self) -> None:
        """Let other processes write."""
        os.close(self._file)

    def _begin(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock()
            self._read()
            fsync(self.path.parent)  # the name of a new file
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(
                f"another process is writing '{self.path}'; end it, or give this one another "
                "--output"
            ) from error

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        self.torn = len(content) - whole
        if self.torn and _complete(content[whole:]):
            # Somebody's editor left out the last line end.
            _write_all(self._file, b"\n", len(content))
            content, self.torn = content + b"\n", 0
        elif self.torn:
            os.ftruncate(self._file, whole)
            content = content[:whole]
        self.rows: list[Row] = []
        self._starts = [0]  # where each row starts, and where the next one will [byte]
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            self._take(line, f"'{self.path}' line {number}")

    def _take(self, line: bytes, where: str) -> None:
        if not line.strip():
            self._starts[-1] += len(line)
            return
        row = _parsed(line)
        if row is None:
            raise DatasetError(f"{where} is not a JSON object; mend or remove it")
        self.rows.append(row)
        self._starts.append(self._starts[-1] + len(line))


def _write_all(file: int, data: bytes, offset: int) -> None:
    while data:
        count = os.pwrite(file, data, offset)
        data, offset = data[count:], offset + count


def _parsed(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _complete(line: bytes) -> bool:
    return _parsed(line) is not None
