"""Frames per second of CPU time with each look, for docs/variation.md.

uv run python benchmarks/variation_speed.py
"""

import argparse
import json
import statistics
import time

from embodied_reward.envs import make
from embodied_reward.envs.rendering import gl_renderer
from embodied_reward.envs.variation import LOOKS, Variation, VariedEnv
from embodied_reward.errors import EnvError

SCENES = {
    "embodied_reward/SweepToGoal-MediumStick-v0": "top",
    "embodied_reward/TablePush-v0": "front",
    "metaworld/push-v3": "corner2",
}


def rates(env_id: str, view: str, size: int, seconds: float, repeats: int) -> dict[str, float]:
    """Return look -> median frames per second; "none" is the original."""
    base = make(env_id, views=(view,), size=size)
    found: dict[str, list[float]] = {}
    # Rounds over all looks, so that other work on the machine hits every look alike.
    for _ in range(repeats):
        for look in ("none", *LOOKS, "all"):
            try:
                env = VariedEnv(base, _settings(look, env_id))
            except EnvError:
                continue
            env.reset(seed=0)
            found.setdefault(look, []).append(_rate(base, seconds))
            env.restore()
    base.close()
    return {look: round(statistics.median(values), 1) for look, values in found.items()}


def _settings(look: str, env_id: str) -> Variation:
    absent = ("fixture_colour",) if "Sweep" in env_id else ()
    looks = {"none": (), "all": [f for f in LOOKS if f not in absent]}.get(look, (look,))
    return Variation(**dict.fromkeys(looks, 1.0))


def _rate(base, seconds: float) -> float:
    base.frames()
    count, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        base._forget_frames()
        base.frames()
        count += 1
    return count / (time.process_time() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    found = {
        env_id: rates(env_id, view, given.size, given.seconds, given.repeats)
        for env_id, view in SCENES.items()
    }
    result = {"gl_renderer": gl_renderer(), "size": given.size, "frames_per_second": found}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
