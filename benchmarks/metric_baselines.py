"""What trivial predictors get on every metric: the table of docs/metrics.md.

    uv run python benchmarks/metric_baselines.py

Ten successes that rise evenly and ten failures, half of which rise and fall back and half of
which stop half-way and stay, as synthetic pictures of a square that crosses a dark room. `truth`
answers with true progress; the others are the baselines of `er eval-reward`. Prints Markdown.
"""

import math

import numpy as np

from embodied_reward.metrics.baselines import trivial
from embodied_reward.metrics.catalogue import METRICS
from embodied_reward.metrics.evaluate import aggregate
from embodied_reward.metrics.judge import judge
from embodied_reward.types import Episode, EpisodeScores

SIZE, VIEWS = 16, ("front", "wrist")


class Truth:
    """Answers with true progress, and with success where it is complete."""

    def score_episode(self, episode: Episode) -> EpisodeScores:
        y = np.asarray(episode.progress, np.float64)
        return EpisodeScores(y, (y >= 0.999).astype(float), np.zeros(len(y)))


def episode(progress: np.ndarray, index: int) -> Episode:
    progress = np.asarray(progress, np.float32)
    frames = np.full((len(progress), SIZE, SIZE, 3), 20, np.uint8)
    for t, y in enumerate(progress):
        left = int(y * (SIZE - 4))
        frames[t, 6:10, left : left + 4] = 250
    done = progress >= 0.999
    return Episode(
        views={VIEWS[0]: frames, VIEWS[1]: frames[:, ::-1, ::-1].copy()},
        action=np.zeros((len(progress), 2), np.float32),
        fps=20.0,
        task="cross the room",
        index=index,
        source=f"synthetic#{index}",
        length=len(progress),
        success=bool(done.any()),
        success_frames=done,
        progress=progress,
    )


def episodes() -> list[Episode]:
    lengths = range(60, 100, 4)
    good = [np.append(np.linspace(0, 1, n), np.ones(5)) for n in lengths]
    back = [0.7 * np.sin(np.linspace(0, np.pi, n)) for n in lengths[::2]]
    stay = [np.minimum(np.linspace(0, 1, n), 0.5) for n in lengths[1::2]]
    return [episode(progress, i) for i, progress in enumerate(good + back + stay)]


def table() -> str:
    shown = episodes()
    predictors = {"truth": Truth(), **trivial(shown, shown[:10], views=VIEWS, seed=0)}
    values = {n: aggregate([judge(p, e) for e in shown]) for n, p in predictors.items()}
    lines = [
        f"| metric | better | {' | '.join(predictors)} |",
        f"|---|---|{'---|' * len(predictors)}",
    ]
    for name, metric in METRICS.items():
        cells = [number(found[name]) for found in values.values()]
        mark = " ~" if metric.fooled else ""
        lines.append(f"| `{name}`{mark} | {metric.better} | {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value: float) -> str:
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{round(value, 2) + 0.0:.2f}" if math.isfinite(value) else "-"


if __name__ == "__main__":
    print(table())
