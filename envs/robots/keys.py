"""Keys of the operator, read from the terminal itself: they work whatever the rollout is doing."""

import contextlib
import os
import select
import termios
import tty

STOP = (" ", "\x1b")  # space, escape
DEADMAN = "d"


class Keys:
    """Single keys without Enter, from the controlling terminal; none where there is no terminal.

    Args:
        path: of the terminal.
    """

    def __init__(self, path: str = "/dev/tty") -> None:
        self.fd, self._before = -1, None
        with contextlib.suppress(OSError, termios.error):
            self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            self._before = termios.tcgetattr(self.fd)
            tty.setcbreak(self.fd, termios.TCSANOW)
        if self._before is None:
            self.close()

    @property
    def there(self) -> bool:
        """Whether there is a terminal."""
        return self.fd >= 0

    def pressed(self) -> str:
        """Return the keys pressed since the last call, without waiting.

        A terminal sends arrows and the like as escape sequences: these count as escape, which
        stops the arm, because stopping by mistake is the mistake to make.
        """
        if not self.there or not select.select([self.fd], [], [], 0)[0]:
            return ""
        try:
            return os.read(self.fd, 64).decode(errors="replace").lower()
        except OSError:
            return ""

    def close(self) -> None:
        """Give the terminal back as it was; safe to call twice."""
        if self.fd >= 0:
            with contextlib.suppress(termios.error):
                if self._before is not None:
                    termios.tcsetattr(self.fd, termios.TCSANOW, self._before)
            os.close(self.fd)
            self.fd = -1
