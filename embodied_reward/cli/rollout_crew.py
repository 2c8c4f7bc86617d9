"""Who stands at the robot: a person with keys, or nobody; and who demonstrates."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from embodied_reward.envs.robots.arm import Arm, LocalArm
from embodied_reward.envs.robots.arm_env import go_home
from embodied_reward.envs.robots.guarded import TRUTH, Reading
from embodied_reward.envs.robots.limits import Limits
from embodied_reward.errors import EnvError
from embodied_reward.types import Float64

_POLL = 0.05  # between two looks at the keys while waiting [s]
_TRIES = 3
READY = ("r", "\n", "\r")
KEYS = (
    "keys: space stops the arm; s success, f failure, x discard the episode; i the operator takes "
    "over or gives back; q finish"
)


class SessionEnd(KeyboardInterrupt):
    """The person at the robot pressed q: nothing moves any more."""


class Operator(Protocol):
    """Somebody who can move the arm: a person with a leader arm, or a script."""

    def begin(self) -> None:
        """Begin an episode."""
        ...

    def wish(self, reading: Reading) -> Float64:
        """Return where the motors should go, Float64["n"] [unit]."""
        ...


class Teleoperated:
    """A LeRobot teleoperator.

    Args:
        teleop: connected.
        limits: the robot's; names the motors.
    """

    def __init__(self, teleop: Any, limits: Limits) -> None:
        self._teleop, self._limits = teleop, limits

    def begin(self) -> None:
        """A leader arm is where it is."""

    def wish(self, reading: Reading) -> Float64:
        """Return the leader's positions; what it does not name stays where it is."""
        action = self._teleop.get_action()
        values = [action.get(m, reading.values[m]) for m in self._limits.motors]
        return np.array(values, np.float64)


class Scripted:
    """The simulated arm's scripted operator.

    Args:
        task: of the simulated arm.
        seed: of how it holds its hand; another way in every episode.
    """

    def __init__(self, task: str, seed: int) -> None:
        self._task, self._rng = task, np.random.default_rng(seed)
        self.begin()

    def begin(self) -> None:
        """Hold the hand in another way."""
        from embodied_reward.envs.robots.sim_arm.operator import ScriptedOperator

        self._operator = ScriptedOperator(self._task, self._rng)

    def wish(self, reading: Reading) -> Float64:
        """See the base class."""
        seen = {k: v for k, v in reading.values.items() if not k.startswith(TRUTH)}
        return self._operator.wish(seen)


class Unattended:
    """Nobody. Simulated scenes are reset by the simulator; a real robot's hold ends the run.

    Args:
        operator: takes over never, but demonstrates in record mode.
    """

    label: bool | None = None

    def __init__(self, operator: Operator | None) -> None:
        self.operator, self.discarded = operator, False

    def prepare(self, arm: Arm, seed: int) -> None:
        """See `Crew`."""
        for _ in range(_TRIES):
            arm.rest()
            if not arm.reset_scene(seed):
                self._prepare_hardware(arm)
            if arm.observe().held is None or arm.release():
                return
            time.sleep(0.0 if isinstance(arm, LocalArm) else arm.limits.period)
        raise EnvError(f"the robot stays held: {arm.observe().held}")

    def begin(self) -> None:
        """See `Crew`."""
        self.discarded = False
        if self.operator:
            self.operator.begin()

    def take(self, keys: str) -> None:
        """See `Crew`."""

    def intervene(self, reading: Reading) -> Float64 | None:
        """See `Crew`."""
        return None

    def _prepare_hardware(self, arm: Arm) -> None:
        held = arm.observe().held
        if held is None and not go_home(arm):
            held = arm.observe().held or "it did not reach its home pose"
        if held:
            raise EnvError(
                f"the robot is held ({held}) and nobody is there to look at it: only a person "
                "releases a real robot, without --unattended=true"
            )


class Person:
    """A person at the terminal.

    Args:
        operator: takes over when i is pressed.
        say: shows one line.
        finish: called at q where the run has its own way to end; else it ends at the next reset.
            Until it has ended nothing moves and nothing is released.
    """

    def __init__(
        self,
        operator: Operator | None,
        say: Callable[[str], None],
        finish: Callable[[], None] | None = None,
    ) -> None:
        self.operator, self._say, self._finish = operator, say, finish
        self.label: bool | None = None
        self.discarded = self._taking_over = self._quit = False

    def prepare(self, arm: Arm, seed: int) -> None:
        """Ask until scene and arm are ready. Raises SessionEnd when the person has enough."""
        arm.rest()
        if not self._quit:
            self._ask(arm, seed)
        if self._quit and (not self._finish or arm.observe().held):
            raise SessionEnd

    def _ask(self, arm: Arm, seed: int) -> None:
        # Before a simulator resets itself, which would release it: a hold is for a person to see.
        if arm.observe().held:
            self._look(arm)
        simulated = not self._quit and arm.reset_scene(seed)
        while not self._quit:
            if arm.observe().held:
                self._look(arm)
            elif not arm.observe().enabled:
                self._wait(arm, "Hold the dead-man key d down; q ends", enabled=True)
            elif simulated or go_home(arm):
                break
        if not simulated and not self._quit:
            self._wait(arm, "Bring the scene to its start, stand back; Enter begins, q ends")

    def begin(self) -> None:
        """See `Crew`."""
        self.label, self.discarded, self._taking_over = None, False, False
        if self.operator:
            self.operator.begin()

    def take(self, keys: str) -> None:
        """See `Crew`."""
        for key in keys:
            if key in ("s", "f", "x"):
                self.label, self.discarded = key == "s", key == "x"
            elif key == "q":
                self._leave()
            elif key == "i" and self.operator:
                self._taking_over = not self._taking_over
                self._say("the operator takes over" if self._taking_over else "the policy acts")

    def intervene(self, reading: Reading) -> Float64 | None:
        """See `Crew`."""
        return self.operator.wish(reading) if self._taking_over and self.operator else None

    def _leave(self) -> None:
        self._quit = True
        if self._finish:
            self._finish()

    def _look(self, arm: Arm) -> None:
        held = arm.observe().held
        self._wait(arm, f"HELD: {held}. Look at the robot; Enter releases it, q ends")
        if not self._quit:
            arm.release()

    def _wait(self, arm: Arm, question: str, *, enabled: bool = False) -> None:
        """Show a question and wait for Enter, or for the dead-man key."""
        self._say(question)
        while True:
            state = arm.observe()
            if "q" in state.keys:
                self._leave()
                return
            if state.enabled if enabled else any(key in READY for key in state.keys):
                return
            time.sleep(_POLL)
