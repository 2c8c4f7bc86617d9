"""Does a task's reward like the task's own episodes best?

Rows are the tasks of the episodes, columns the tasks that the rewards were made for (by
training, or by their goal pictures), entries the mean final potential. A reward that rises in
every episode fills the matrix evenly: VOC does not see that, the diagonal margin does. Source:
the task-by-instruction confusion matrix of video reward models, here without instructions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embodied_reward.errors import DatasetError
from embodied_reward.math.statistics import finite_mean
from embodied_reward.metrics.predictor import Predictor
from embodied_reward.types import Episode, Float64


@dataclass(frozen=True)
class Confusion:
    """Episodes against rewards.

    Attributes:
        tasks: names of rows and columns.
        matrix: Float64["n n"], mean final potential; NaN where nothing was scored.
        margin: see `diagonal_margin`.
    """

    tasks: tuple[str, ...]
    matrix: Float64
    margin: float


def diagonal_margin(matrix: Float64) -> float:
    """Return (mean diagonal - mean rest) / (largest - smallest entry), in [-1, 1].

    NaN for one task, for unknown entries, and for a matrix without any contrast.
    """
    span = np.ptp(matrix) if matrix.size else 0.0
    if len(matrix) < 2 or not span > 0:
        return float("nan")
    own = np.eye(len(matrix), dtype=bool)
    return float((matrix[own].mean() - matrix[~own].mean()) / span)


def task_confusion(
    predictors: Mapping[str, Predictor], episodes: Mapping[str, Sequence[Episode]]
) -> Confusion:
    """Score every task's episodes with every task's reward.

    Args:
        predictors: task -> the reward made for it.
        episodes: task -> its episodes, usually successful ones; the same tasks.

    Raises:
        DatasetError: the tasks differ, or a predictor cannot score an episode.
    """
    if set(predictors) != set(episodes):
        raise DatasetError(
            f"rewards are for {', '.join(predictors)} but episodes are of {', '.join(episodes)}; "
            "give both for the same tasks"
        )
    tasks = tuple(predictors)
    matrix = np.array([[_final(predictors[p], episodes[t]) for p in tasks] for t in tasks])
    return Confusion(tasks, matrix, diagonal_margin(matrix))


def _final(predictor: Predictor, episodes: Sequence[Episode]) -> float:
    return finite_mean([predictor.score_episode(e).potential[-1] for e in episodes])
