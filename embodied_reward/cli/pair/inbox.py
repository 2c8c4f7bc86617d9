"""What a learner was sent: each episode is a file before the actor hears that it has arrived."""

import threading
from collections.abc import Callable
from pathlib import Path

from embodied_reward.errors import CheckpointError, RequestError
from embodied_reward.files import replacing
from embodied_reward.policies.experience import Experience, decode

_POLL = 0.2  # between two looks at whether the run was stopped [s]


class Inbox:
    """Received episodes in the order of their arrival; safe for several threads.

    They stay: a learner that goes on from a checkpoint learns again from those that came later.

    Args:
        folder: of the files `<number>_<id>.safetensors`.
        observation: numbers of an observation.
        action: numbers of an action.
    """

    def __init__(self, folder: Path, *, observation: int, action: int) -> None:
        self._folder, self._sizes = folder, {"observation": observation, "action": action}
        self._files = sorted(folder.glob("[0-9]*_*.safetensors"))
        self._ids = {path.stem.partition("_")[2] for path in self._files}
        self._changed = threading.Condition()
        self._decisions = [len(self._read(path)) for path in self._files]

    def __len__(self) -> int:
        """Episodes."""
        return len(self._files)

    @property
    def decisions(self) -> int:
        """Decisions of all episodes."""
        return sum(self._decisions)

    def add(self, data: bytes | bytearray) -> bool:
        """Keep an episode; returns False where it is there already.

        Raises:
            RequestError: it is malformed. Nothing was kept.
        """
        episode = decode(data, **self._sizes)
        with self._changed:
            if episode.id in self._ids:
                return False
            path = self._folder / f"{len(self._files):08d}_{episode.id}.safetensors"
            with replacing(path) as temporary:
                temporary.write_bytes(data)
            self._files.append(path)
            self._decisions.append(len(episode))
            self._ids.add(episode.id)
            self._changed.notify_all()
        return True

    def wait(self, index: int, stopped: Callable[[], bool]) -> Experience:
        """Return an episode, once it is there. Raises KeyboardInterrupt when stopped."""
        with self._changed:
            while len(self._files) <= index:
                if stopped():
                    raise KeyboardInterrupt
                self._changed.wait(_POLL)
        if stopped():
            raise KeyboardInterrupt
        return self._read(self._files[index])

    def _read(self, path: Path) -> Experience:
        try:
            return decode(path.read_bytes(), **self._sizes)
        except RequestError as error:
            raise CheckpointError(f"'{path}' is damaged: {error}; remove it to go on") from error
