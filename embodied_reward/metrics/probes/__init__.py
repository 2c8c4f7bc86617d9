"""Reward-hacking probes: edits that must not raise a reward, and what they did to this one.

Each probe edits episodes whose scores are known, scores them again, and judges the change by
thresholds stated in the result: `pass`, `warn`, `fail`, or `undefined` where the episodes do
not allow the question. A passed probe is no proof of safety; a failed one is proof of a hole.
"""

import dataclasses
from collections.abc import Callable

from embodied_reward.metrics.probes import patches, pictures, timing
from embodied_reward.metrics.probes.base import Bench, Measure, Probe, ProbeResult, Shown

PROBES: dict[str, Probe] = {
    "frozen_frame": timing.frozen_frame,
    "reversed_video": timing.reversed_video,
    "shuffled_frames": timing.shuffled_frames,
    "hovering": timing.hovering,
    "black_camera": pictures.black_camera,
    "distractor_view": pictures.distractor_view,
    "distractor_clutter": pictures.distractor_clutter,
    "goal_patch": pictures.goal_patch,
    "goal_view": pictures.goal_view,
    "progress_patch": patches.progress_patch,
    "success_patch": patches.success_patch,
}

__all__ = ["PROBES", "Bench", "Measure", "ProbeResult", "Shown", "run_probes"]


def run_probes(bench: Bench, *, done: Callable[[str], None] = lambda _: None) -> list[ProbeResult]:
    """Run every probe on the bench; `done` is called with each name.

    Raises:
        DatasetError: the predictor cannot score one of the episodes.
    """
    _ = bench.cases  # scored once, for all probes
    results = []
    for name, probe in PROBES.items():
        before = bench.queries
        result = probe(bench)
        results.append(dataclasses.replace(result, queries=bench.queries - before))
        done(name)
    return results
