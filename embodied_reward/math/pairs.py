"""The stratified pair sampler of Robo-Dopamine: 25 hop bins x 4 temporal-distance bins.

Follows the behaviour of the released data generator (arXiv:2512.23703, section 3.1 and its
`1_generate_data` script), with an explicit generator where the script used global ones.
"""

from dataclasses import dataclass

import numpy as np

from embodied_reward.math.hops import hop_label, state_progress
from embodied_reward.types import Float64, Int64

# Share of the distance between the neighbouring states by which a zero pair's frame moves.
ZERO_SHIFT = 0.075


@dataclass(frozen=True)
class PairSampler:
    """How pairs are drawn from one episode's states.

    Attributes:
        pairs: pairs wanted per episode, zero hops included.
        hop_bins: bins over the hop range [-1, 1].
        gap_bins: bins over the temporal distance inside each hop bin.
        zero_ratio: share of pairs whose label is exactly 0.
        oversample: candidates drawn per wanted pair.
    """

    pairs: int = 1000
    hop_bins: int = 25
    gap_bins: int = 4
    zero_ratio: float = 0.05
    oversample: int = 100


@dataclass(frozen=True)
class Pairs:
    """Ordered pairs of frames with their hop labels.

    Attributes:
        before: Int64["p"] frame index.
        after: Int64["p"] frame index.
        hop: Float64["p"] in [-1, 1].
        reversed_hop: Float64["p"], the label were start and goal exchanged (Phi' = 1 - Phi).
    """

    before: Int64
    after: Int64
    hop: Float64
    reversed_hop: Float64

    def __len__(self) -> int:
        return len(self.hop)


def sample_pairs(frames: Int64, sampler: PairSampler, rng: np.random.Generator) -> Pairs:
    """Draw balanced pairs from states at `frames` (Int64["M+1"]), then add zero hops.

    Returns:
        At most `sampler.pairs` pairs: distinct moving pairs first, then the zero hops.
    """
    zeros = round(sampler.pairs * sampler.zero_ratio)
    i, j = _candidates(len(frames), sampler.pairs - zeros, sampler, rng)
    phi = state_progress(len(frames))
    hop = hop_label(phi[i], phi[j])
    chosen = balance(hop, np.abs(j - i), sampler.pairs - zeros, sampler, rng)
    zero = _zero_hops(frames, zeros, rng)
    return Pairs(
        before=np.concatenate([frames[i[chosen]], zero.before]),
        after=np.concatenate([frames[j[chosen]], zero.after]),
        hop=np.concatenate([hop[chosen], zero.hop]),
        reversed_hop=np.concatenate([hop_label(1 - phi[i], 1 - phi[j])[chosen], zero.hop]),
    )


def balance(
    hop: Float64, gap: Int64, want: int, sampler: PairSampler, rng: np.random.Generator
) -> Int64:
    """Select `want` of the candidates so that hop bins, and gap bins inside them, are level.

    Every hop bin gets want // hop_bins; the remainder goes to the bins nearest the centre.
    Inside a bin every gap bin gets a quarter, the remainder to the fullest. What a bin cannot
    supply is refilled from the leftovers of central bins outward.

    Args:
        hop: Float64["n"] labels of the candidates.
        gap: Int64["n"] temporal distances in states, >= 1.
        want: how many to select; all candidates are returned if there are fewer.
        sampler: the numbers of bins.
        rng: source of randomness.

    Returns:
        Int64["min(want, n)"], indices into the candidates, in random order.
    """
    hop_bin = _bin(hop, -1.0, 1.0, sampler.hop_bins)
    gap_bin = _bin(gap, 1.0, max(float(gap.max(initial=1)), 2.0), sampler.gap_bins)
    order = rng.permutation(len(hop))
    central = np.argsort(np.abs(np.arange(sampler.hop_bins) - (sampler.hop_bins - 1) / 2))
    quota = np.full(sampler.hop_bins, want // sampler.hop_bins)
    quota[central[: want % sampler.hop_bins]] += 1
    taken, left = [], []
    for b in central:
        members = order[hop_bin[order] == b]
        picked, rest = _level(members, gap_bin[members], int(quota[b]), sampler.gap_bins)
        taken.append(picked)
        left.append(rest)
    chosen = np.concatenate(taken)
    refill = np.concatenate(left)[: max(want - len(chosen), 0)]
    return rng.permutation(np.concatenate([chosen, refill]).astype(np.int64))


def _level(members: Int64, gap_bin: Int64, quota: int, bins: int) -> tuple[Int64, Int64]:
    """Split shuffled members of a hop bin into a levelled selection and the rest."""
    groups = [members[gap_bin == g] for g in range(bins)]
    share = np.full(bins, quota // bins)
    fullest = np.argsort([-len(g) for g in groups], kind="stable")
    share[fullest[: quota % bins]] += 1
    picked = np.concatenate([g[:n] for g, n in zip(groups, share, strict=True)])
    rest = np.setdiff1d(members, picked, assume_unique=True)
    missing = min(quota - len(picked), len(rest))
    return np.concatenate([picked, rest[:missing]]), rest[missing:]


def _candidates(
    states: int, want: int, sampler: PairSampler, rng: np.random.Generator
) -> tuple[Int64, Int64]:
    """Return distinct ordered pairs i != j: all of them if the target allows, else a sample."""
    target = min(100_000, max(want * sampler.oversample, want * 10))
    total = states * (states - 1)
    if total <= target:
        flat = np.arange(total)
    else:
        flat = np.unique(rng.integers(0, total, min(target, 20 * total)))
    i, k = np.divmod(flat, states - 1)
    return i, k + (k >= i)


def _zero_hops(frames: Int64, count: int, rng: np.random.Generator) -> Pairs:
    """Return pairs of (almost) the same moment, labelled exactly 0."""
    at = rng.integers(0, len(frames), count)
    span = frames[np.minimum(at + 1, len(frames) - 1)] - frames[np.maximum(at - 1, 0)]
    shift = np.floor(ZERO_SHIFT * span).astype(np.int64) * rng.choice([-1, 1], count)
    after = np.clip(frames[at] + shift, frames[0], frames[-1])
    return Pairs(frames[at], after, np.zeros(count), np.zeros(count))


def _bin(value: np.ndarray, low: float, high: float, bins: int) -> Int64:
    scaled = (np.asarray(value, float) - low) / (high - low) * bins
    return np.clip(scaled.astype(np.int64), 0, bins - 1)
