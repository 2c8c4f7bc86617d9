"""Demonstrations as the windows that a diffusion policy learns from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from embodied_reward.errors import DatasetError
from embodied_reward.types import Bool, Episode, Float32, Float64, Int64

from ..demos import check_finite, flat_observations, success_rows
from .weighting import progress_deltas, progress_weights

ACTION = "action"
IMAGES = "observation.images."
STATE_KEYS = {
    "agent_pos": "observation.state",
    "environment_state": "observation.environment_state",
}
SCALE_FLOOR = 0.2  # range [min, max] of an input: one demonstration moves little


@dataclass(frozen=True)
class Windows:
    """w windows over n rows of demonstrations.

    Attributes:
        columns: LeRobot key -> [n ...], Float32, pictures UInt8["n c h w"]; in the environment's
            units, not normalised.
        obs_rows: Int64["w o"], rows of the newest observations, the present one last.
        action_rows: Int64["w h"], rows of the actions, from the oldest observation on.
        padded: Bool["w h"], the action lies outside the episode and repeats its end.
        probability: Float64["w"], with which a window is drawn; sums to 1.
        episode: Int64["w"], position of the window's episode among those that were cut.
    """

    columns: Mapping[str, Tensor]
    obs_rows: Int64
    action_rows: Int64
    padded: Bool
    probability: Float64
    episode: Int64

    def __len__(self) -> int:
        return len(self.obs_rows)

    def batch(self, windows: Int64) -> dict[str, Tensor]:
        """Return LeRobot's training batch: observations [b o ...], actions [b h a], padding."""
        found = {
            key: as_input(column[self.obs_rows[windows]])
            for key, column in self.columns.items()
            if key != ACTION
        }
        found[ACTION] = self.columns[ACTION][self.action_rows[windows]]
        found["action_is_pad"] = torch.from_numpy(self.padded[windows])
        return found


def as_input(column: Tensor) -> Tensor:
    """Return Float32; pictures UInt8 become [0, 1]."""
    return column.float() / 255 if column.dtype == torch.uint8 else column


def build_windows(
    episodes: Sequence[Episode],
    observation: spaces.Dict,
    action: spaces.Box,
    *,
    views: Sequence[str] = (),
    n_obs_steps: int,
    horizon: int,
    n_action_steps: int,
    potential: Callable[[Episode], Float64] | None = None,
) -> Windows:
    """Cut episodes, up to their first success, into one window per row.

    Args:
        episodes: at least one.
        observation: the environment's space; `agent_pos` and `environment_state` are used, the
            second only without `views`.
        action: the environment's box; what lies outside is clipped.
        views: cameras that the policy sees.
        n_obs_steps: o.
        horizon: h.
        n_action_steps: actions carried out per plan.
        potential: Phi of every row, which turns the windows' probabilities into RA-BC's.

    Raises:
        DatasetError: no episodes, or columns that do not fit the environment.
    """
    if not len(episodes):
        raise DatasetError("the demonstration dataset holds no episodes")
    parts = [_columns(e, observed_space(observation, views), action, views) for e in episodes]
    lengths = [len(part[ACTION]) for part in parts]
    obs, actions, padded = _rows(lengths, n_obs_steps, horizon)
    weights = np.ones(len(obs))
    if potential is not None:
        pairs = zip(episodes, lengths, strict=True)
        deltas = [progress_deltas(potential(e)[:n], n_action_steps) for e, n in pairs]
        weights = progress_weights(np.concatenate(deltas))
    columns = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    owner = np.repeat(np.arange(len(lengths)), lengths)
    return Windows(columns, obs, actions, padded, weights / weights.sum(), owner)


def observed_space(space: spaces.Dict, views: Sequence[str]) -> spaces.Dict:
    """Return what the policy observes beside pictures. Raises DatasetError."""
    names = ("agent_pos",) if views else tuple(STATE_KEYS)
    known = {name: box for name, box in space.spaces.items() if name in names}
    if "agent_pos" not in known or (not views and len(known) < 2):
        raise DatasetError(
            f"a diffusion policy needs {' and '.join(names)}, the environment gives "
            f"{list(space.spaces)}; give --policy.views=CAMERA where the state is not known"
        )
    return spaces.Dict(known)


def statistics(windows: Windows, action: spaces.Box) -> dict[str, dict[str, Tensor]]:
    """Return LeRobot's statistics: inputs from the demonstrations, actions from their range.

    A range below `SCALE_FLOOR` is widened around its middle: what hardly moves in one
    demonstration would otherwise saturate the network as soon as it moves.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for key, column in windows.columns.items():
        if key == ACTION:
            found[key] = {"min": torch.tensor(action.low), "max": torch.tensor(action.high)}
        elif key.startswith(IMAGES):
            pixels = column[:: max(1, len(column) // 200)].float() / 255
            mean, std = pixels.mean(dim=(0, 2, 3)), pixels.std(dim=(0, 2, 3)).clamp_min(0.05)
            found[key] = {"mean": mean.view(3, 1, 1), "std": std.view(3, 1, 1)}
        else:
            low, high = column.amin(dim=0), column.amax(dim=0)
            wider = (SCALE_FLOOR - (high - low)).clamp_min(0) / 2
            found[key] = {"min": low - wider, "max": high + wider}
    return found


def _columns(
    episode: Episode, space: spaces.Dict, action: spaces.Box, views: Sequence[str]
) -> dict[str, Tensor]:
    length = _length(episode)
    found = {
        STATE_KEYS[name]: torch.from_numpy(flat_observations(episode, spaces.Dict({name: box})))
        for name, box in space.spaces.items()
    }
    found |= {f"{IMAGES}{view}": _pictures(episode, view) for view in views}
    found[ACTION] = torch.from_numpy(_actions(episode, action))
    return {key: column[:length] for key, column in found.items()}


def _length(episode: Episode) -> int:
    """Return how many actions led to the first success, or all of them."""
    success = success_rows(episode)
    return max(int(np.argmax(success)), 1) if success.any() else len(episode)


def _pictures(episode: Episode, view: str) -> Tensor:
    if view not in episode.views:
        raise DatasetError(
            f"{episode.source} holds no view '{view}' (--policy.views); it has "
            f"{list(episode.views)}"
        )
    return torch.from_numpy(np.ascontiguousarray(episode.views[view])).permute(0, 3, 1, 2)


def _actions(episode: Episode, space: spaces.Box) -> Float32:
    if episode.action.shape[1:] != space.shape:
        raise DatasetError(
            f"{episode.source}: actions have shape {episode.action.shape[1:]}, the environment "
            f"takes {space.shape}"
        )
    check_finite(episode, "action", episode.action)
    return episode.action.clip(space.low, space.high).astype(np.float32)


def _rows(lengths: Sequence[int], n_obs_steps: int, horizon: int) -> tuple[Int64, Int64, Bool]:
    """Return the rows of every window; what lies outside an episode repeats its first or last."""
    obs, actions, padded, first = [], [], [], 0
    past, plan = (
        np.arange(1 - n_obs_steps, 1),
        np.arange(1 - n_obs_steps, horizon + 1 - n_obs_steps),
    )
    for length in lengths:
        now = np.arange(length)[:, None]
        obs.append(first + (now + past).clip(0))
        actions.append(first + (now + plan).clip(0, length - 1))
        padded.append((now + plan < 0) | (now + plan >= length))
        first += length
    return np.concatenate(obs), np.concatenate(actions), np.concatenate(padded)
