"""Settings of the HTTP server, and which of them are refused."""

import ipaddress
from dataclasses import dataclass

from embodied_reward.errors import ConfigError

SHORTEST_TOKEN = 16


@dataclass(frozen=True, kw_only=True)
class HttpConfig:
    """Where the HTTP server listens and what it takes from a client.

    Attributes:
        host: address to listen at. Any but a loopback address needs a token.
        port: 0 takes a free one.
        token: clients must send it as `Authorization: Bearer <token>`; empty asks for none.
        max_body: bytes of one request.
        max_pending: bytes of all requests that are being received or scored; what would exceed
            it is answered 429.
        read_timeout: seconds for a request to arrive whole, and for a silent connection [s].
        deadline: seconds that a reply may take beyond the request's own timeout [s].
        max_connections: open connections; one more is answered 503 and closed.
        drain: seconds that requests under way may take when the server stops [s].
        token_from: where a person gives the token, for messages.

    Raises:
        ConfigError: the combination is unsafe or cannot work.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str = ""
    max_body: int = 64 << 20
    max_pending: int = 512 << 20
    read_timeout: float = 30.0
    deadline: float = 30.0
    max_connections: int = 256
    drain: float = 30.0
    token_from: str = "--token, or ER_SERVE_TOKEN"  # noqa: S105 (words)

    def __post_init__(self) -> None:
        """Refuse an open door."""
        if not self.is_loopback and len(self.token) < SHORTEST_TOKEN:
            raise ConfigError(
                f"host={self.host} can be reached from other machines: give a token of at least "
                f"{SHORTEST_TOKEN} characters ({self.token_from}), or listen at 127.0.0.1"
            )
        if not self.token.isascii() or self.token != self.token.strip():
            raise ConfigError("the token must be ASCII without spaces around it")
        if min(self.max_body, self.max_pending, self.max_connections) < 1:
            raise ConfigError("max_body, max_pending and max_connections must be at least 1")
        if min(self.read_timeout, self.deadline, self.drain) <= 0:
            raise ConfigError("read_timeout, deadline and drain must be positive seconds")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the host."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address means this machine, as far as its text tells."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
