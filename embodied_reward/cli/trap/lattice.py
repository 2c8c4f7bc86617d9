"""`trap/insert` as a finite process: 30 cells, six actions, and a learned potential per state.

With `action_repeat=4` every decision moves the hand by one cell, so a hand that starts on the
lattice stays on it. The picture of a state is then always the same picture, and the potential of
every state is read off the reward model once.
"""

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from embodied_reward.cli.trap.mdp import Process
from embodied_reward.envs import make
from embodied_reward.envs.trap import DEPTH, HALF_WIDTH, SOCKET, STARTS, THROWN, moved
from embodied_reward.types import Float32, Float64, Int64

if TYPE_CHECKING:
    from embodied_reward.scoring.stream import StreamScorer

REPEAT = 4  # simulator steps per decision
PITCH = 0.1  # [m]
COLUMNS, ROWS = 10, 3
CELLS = np.array([(c * PITCH, y) for y in STARTS for c in range(COLUMNS)])  # x, y [m]
GOAL = len(CELLS)  # the state in which the peg is locked
MOVES = {
    "east": (1, 0, 0),
    "west": (-1, 0, 0),
    "north": (0, 1, 0),
    "south": (0, -1, 0),
    "press": (0, 0, -1),
    "stay": (0, 0, 0),
}
ACTIONS = np.array(list(MOVES.values()), np.float32)
PRESS = list(MOVES).index("press")


def cell_of(place: Float64 | Float32) -> int:
    """Return the index of the cell at x, y [m]."""
    column = round(float(place[0]) / PITCH)
    row = round((float(place[1]) + HALF_WIDTH) / PITCH)
    return row * COLUMNS + column


SOCKET_CELL, THROWN_CELL = cell_of(SOCKET), cell_of(THROWN)


def insert_process(potential: Float64, chance: float, gamma: float) -> Process:
    """Tabulate the environment's own motion; entering the hole succeeds with `chance`.

    Args:
        potential: Float64[31], Phi of the cells and of the locked peg.
        chance: success probability of one attempt.
        gamma: the learner's discount.
    """
    chances = np.zeros((GOAL + 1, len(ACTIONS), GOAL + 1))
    for cell, (x, y) in enumerate(CELLS):
        for number, action in enumerate(ACTIONS):
            place = np.array([x, y, 0.0])
            for _ in range(REPEAT):
                place = moved(place, action)
            if place[2] > -DEPTH / 2:
                chances[cell, number, cell_of(place)] = 1.0
            else:
                chances[cell, number, [GOAL, THROWN_CELL]] = chance, 1.0 - chance
    chances[GOAL, :, GOAL] = 1.0
    return Process(chances, GOAL, potential, gamma)


def start_distribution() -> Float64:
    """Return Float64[31]: the environment's own first states."""
    start = np.zeros(GOAL + 1)
    start[[cell_of(np.array([0.0, y])) for y in STARTS]] = 1.0 / len(STARTS)
    return start


def read_potential(scorer: "StreamScorer") -> Float64:
    """Render every cell and the locked peg and read Phi off the reward model, Float64[31].

    The first frame is the start in the middle row; a model with `inference="backward"` reads
    every state from its picture alone.
    """
    env = make("trap/insert", views=scorer.views, action_repeat=REPEAT, success_probability=1.0)
    try:
        env.reset(options={"place": (0.0, 0.0)})
        scorer.start([0], _batch(env))
        values = []
        for x, y in CELLS:
            env.reset(options={"place": (x, y)})
            values.append(scorer.step(_batch(env)).potential[0])
        env.reset(options={"place": tuple(SOCKET)})
        env.step(ACTIONS[PRESS])
        values.append(scorer.step(_batch(env)).potential[0])
    finally:
        env.close()
    return np.array(values)


def _batch(env: Any) -> dict[str, Any]:
    return {view: frame[None] for view, frame in env.frames().items()}


class LatticeEnv(gym.Wrapper):
    """`trap/insert` with six discrete actions, observed as one-hot cell and time (`observe`).

    `progress()` is the learned potential of the present state instead of the simulator's, so
    that `shaping.LearnedReward` pays the learned one.

    Args:
        potential: Float64[31], see `read_potential`.
        chance: success probability of one attempt.
        horizon: decisions until truncation.
        explore: start in a cell drawn uniformly (for training), from a generator of this seed;
            None keeps the environment's own starts.
    """

    def __init__(
        self, potential: Float64, *, chance: float, horizon: int, explore: int | None = None
    ) -> None:
        env = make("trap/insert", action_repeat=REPEAT, horizon=horizon, success_probability=chance)
        super().__init__(env)
        self._potential, self._horizon, self._steps = potential, horizon, 0
        self._starts = None if explore is None else np.random.default_rng(explore)
        self.action_space = gym.spaces.Discrete(len(ACTIONS))
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (GOAL + 2,), np.float32)
        self.state = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32, dict[str, Any]]:
        """Start an episode; see `explore`."""
        if self._starts is not None:
            options = {"place": tuple(CELLS[self._starts.integers(len(CELLS))])}
        observation, info = self.env.reset(seed=seed, options=options)
        self._steps = 0
        return self._seen(observation, info), info

    def step(self, action: Any) -> tuple[Float32, float, bool, bool, dict[str, Any]]:
        """Move one cell, press or stay."""
        observation, reward, terminated, truncated, info = self.env.step(ACTIONS[int(action)])
        self._steps += 1
        return self._seen(observation, info), float(reward), terminated, truncated, info

    def progress(self) -> float:
        """Return the learned potential of the present state."""
        return float(self._potential[self.state])

    def _seen(self, observation: dict[str, Any], info: dict[str, Any]) -> Float32:
        self.state = GOAL if info["is_success"] else cell_of(observation["agent_pos"])
        return observe(np.array([self.state]), np.array([self._steps]), self._horizon)[0]


def observe(states: Int64, steps: Int64, horizon: int) -> Float32:
    """Return the learner's observations Float32["n 32"]: one-hot state, then time in [-1, 1]."""
    time = (2 * steps / horizon - 1)[:, None]
    return np.hstack([np.eye(GOAL + 1)[states], time]).astype(np.float32)
