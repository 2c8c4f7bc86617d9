r"""Step-discretised progress and hops (Robo-Dopamine, arXiv:2512.23703, section 3.1).

An expert episode with keyframes K_0..K_N (N sub-tasks) is cut into states s_0..s_M, the same
number in every sub-task, and the progress of a state is \Phi(s_i) = i / M. A *hop* compares a
before-state p with an after-state q:

    H(p, q) = (\Phi_q - \Phi_p) / (1 - \Phi_p)     if \Phi_q >= \Phi_p   (share of what remained)
    H(p, q) = (\Phi_q - \Phi_p) / \Phi_p           otherwise           (share of what was done)

so that H is in [-1, 1] and applying a hop to any potential in [0, 1] stays in [0, 1]. Hops
are not antisymmetric: H(p, q) = -H(q, p) does not hold.
"""

from typing import Literal

import numpy as np

from embodied_reward.types import Float64, Int64


def hop_label(phi_before: Float64, phi_after: Float64) -> Float64:
    """Return H in [-1, 1] for potentials in [0, 1], elementwise (Eq. 2 with Phi_0=0, Phi_M=1).

    A hop up from 1 or down from 0 cannot exist; equal potentials give 0.
    """
    before, after = np.asarray(phi_before, float), np.asarray(phi_after, float)
    change = after - before
    room = np.where(change >= 0, 1.0 - before, before)
    return np.divide(change, room, out=np.zeros_like(change), where=change != 0)


def apply_hop(phi: Float64, hop: Float64) -> Float64:
    """Return the potential after a hop (Eq. 4): Phi + (1 - Phi) H if H >= 0, else Phi + Phi H."""
    phi, hop = np.asarray(phi, float), np.asarray(hop, float)
    return phi + np.where(hop >= 0, 1.0 - phi, phi) * hop


def state_frames(
    keyframes: Int64, chunk: int, *, rounding: Literal["round", "floor"] = "round"
) -> Int64:
    """Return the frame index of every state s_0..s_M.

    Args:
        keyframes: increasing frame indices K_0..K_N; an unannotated clip is [first, last].
        chunk: frames per state C >= 1.
        rounding: `round` follows the released script, `floor` the paper.

    Returns:
        Int64["M+1"], strictly increasing, from K_0 to K_N, with equally many states in every
        sub-task that is long enough to hold them.
    """
    keyframes = np.asarray(keyframes, np.int64)
    subtasks = len(keyframes) - 1
    if subtasks < 1 or (np.diff(keyframes) < 1).any() or chunk < 1:
        raise ValueError(f"need increasing keyframes and chunk >= 1, got {keyframes}, {chunk}")
    share = (keyframes[-1] - keyframes[0]) / chunk / subtasks
    inner = max(int(share + 0.5 if rounding == "round" else share), 1)
    parts = [
        np.linspace(a, b, (inner - 1) + 2).astype(np.int64)
        for a, b in zip(keyframes[:-1], keyframes[1:], strict=True)
    ]
    return np.unique(np.concatenate(parts))


def state_progress(count: int) -> Float64:
    """Return i / M for M + 1 = `count` states."""
    return np.arange(count) / max(count - 1, 1)


def reference_sources(
    own: Int64, count: int, rng: np.random.Generator, *, probability: float = 0.75
) -> Int64:
    """Choose whose start and goal frames each sample sees as references.

    With `probability`, a sample's references are replaced by those of another one, which
    teaches that references are anchors and not this run's own start and end.

    Args:
        own: Int64["p"], the episode of each sample.
        count: number of episodes to choose from.
        rng: source of randomness.
        probability: chance of a swap; 0.75 in the released script.

    Returns:
        Int64["p"], the episode whose references are used.
    """
    own = np.asarray(own, np.int64)
    if count < 2:
        return own.copy()
    other = (own + rng.integers(1, count, len(own))) % count
    return np.where(rng.random(len(own)) < probability, other, own)
