"""The `--pair.*` group of `er rollout`."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embodied_reward.errors import ConfigError

if TYPE_CHECKING:
    from embodied_reward.scoring.transport.http_config import HttpConfig

TOKEN_VARIABLE = "ER_PAIR_TOKEN"  # noqa: S105 (the name of a variable)
MAX_EPISODE = 64 << 20
"""Largest message that a learner takes [bytes]; an episode of 1000 decisions has about 0.3 MB."""


@dataclass(frozen=True)
class PairConfig:
    """An actor and a learner; both take the token from the variable ER_PAIR_TOKEN."""

    url: str = ""
    """finetune: the learner's address, http://HOST:PORT; empty learns in this process"""
    host: str = "127.0.0.1"
    """learn: address to listen at; any but loopback needs a token"""
    port: int = 8767
    """learn: 0 takes a free one"""
    ahead: int = 4
    """finetune: episodes that the actor may be ahead of what the learner has learned from; it then
    waits between episodes, while the learner answers. 0 never waits"""
    patience: float = 600.0
    """finetune: longest wait for the first policy, and for the learner to catch up [s]"""


def token() -> str:
    """Return what both sides must know; empty where none is set."""
    return os.environ.get(TOKEN_VARIABLE, "")


def check_pair(pair: PairConfig) -> None:
    """Raise ConfigError for waits that cannot be."""
    if pair.ahead < 0:
        raise ConfigError(f"--pair.ahead must be at least 0, got {pair.ahead}")
    if not pair.patience > 0:
        raise ConfigError(f"--pair.patience must be positive seconds, got {pair.patience}")


def http_config(pair: PairConfig) -> "HttpConfig":
    """Return the learner's address and limits. Raises ConfigError where they are unsafe."""
    from embodied_reward.scoring.transport.http_config import HttpConfig

    return HttpConfig(
        host=pair.host,
        port=pair.port,
        token=token(),
        max_body=MAX_EPISODE,
        max_pending=4 * MAX_EPISODE,
        max_connections=16,
        drain=5.0,
        token_from=f"the variable {TOKEN_VARIABLE}, on both sides",
    )
