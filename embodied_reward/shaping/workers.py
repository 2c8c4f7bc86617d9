"""Environments in processes of their own, whose results are taken in the order they arrive.

A Stable-Baselines3 vector environment, like `SubprocVecEnv`, which waits for its environments one
after the other. This one tells a listener of every result at once, so that the frames of the
environments that are done are scored while the slower ones still simulate and render. A process
that dies, raises or hangs becomes one error that names it, and takes the others with it. Processes
leave when whoever started them is gone, however it went.
"""

import contextlib
import multiprocessing as mp
import os
import signal
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import SubprocVecEnv
from stable_baselines3.common.vec_env.base_vec_env import (
    CloudpickleWrapper,
    VecEnv,
    VecEnvObs,
    VecEnvStepReturn,
)
from stable_baselines3.common.vec_env.subproc_vec_env import _stack_obs, _worker

from embodied_reward.errors import EnvError

Listener = Callable[[Sequence[Mapping[str, Any]]], None]
"""Takes new infos of environments: of their step, and of the reset after an end."""

PRELOAD = ("embodied_reward.shaping.workers",)
CLOSE = 5.0  # seconds a process has to leave before it is ended


@dataclass(frozen=True)
class Failure:
    """What went wrong in a process, as text."""

    what: str
    trace: str


class WorkerVecEnv(SubprocVecEnv):
    """One process per environment; see the module docstring.

    Args:
        env_fns: picklable functions that make the environments.
        timeout: seconds that an environment may take for a step or a reset, and ten times that
            for its making, which imports a simulator [s].
        preload: modules that are imported once for all processes, before they start.
        name: of the environment, for errors.

    Attributes:
        on_arrival: listener, or None.

    Raises:
        EnvError: an environment cannot be made.
    """

    on_arrival: Listener | None = None

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gym.Env]],
        *,
        timeout: float = 60.0,
        preload: Sequence[str] = PRELOAD,
        name: str = "",
    ) -> None:
        self.waiting, self.closed, self.timeout = False, False, timeout
        self._name, self._steps = f" ({name})" if name else "", 0
        # Not fork: torch and the renderers have threads and contexts that do not survive it.
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(list(preload))
        pipes = [context.Pipe() for _ in env_fns]
        self.remotes = tuple(ours for ours, _ in pipes)
        self.work_remotes = tuple(theirs for _, theirs in pipes)
        self.processes = []
        try:
            for (ours, theirs), make in zip(pipes, env_fns, strict=True):
                _limit(ours, timeout)
                arguments = (theirs, ours, CloudpickleWrapper(make))
                process = context.Process(target=_serve, args=arguments, daemon=True)
                process.start()
                self.processes.append(process)
                theirs.close()
            self._send([("get_spaces", None)] * len(env_fns))
            observation, action = self._gather("when it was made", patience=10.0)[0]
        except BaseException:  # Ctrl-C as well: nobody else knows of these processes yet
            self.waiting = True
            self.close()
            raise
        VecEnv.__init__(self, len(env_fns), observation, action)

    def step_async(self, actions: np.ndarray) -> None:
        """Send every environment its action."""
        self._send([("step", action) for action in actions])
        self.waiting = True

    def step_wait(self) -> VecEnvStepReturn:
        """Take the results as they arrive. Raises EnvError: a process died, raised or hangs."""
        self._steps += 1
        results = self._gather(f"in step {self._steps}", _infos_of_step)
        self.waiting = False
        obs, rewards, dones, infos, self.reset_infos = zip(*results, strict=True)  # type: ignore[assignment]
        stacked = _stack_obs(obs, self.observation_space)
        # float32 as in `DummyVecEnv`: the same numbers, to the bit.
        paid = np.array(rewards, np.float32)
        return stacked, paid, np.stack(dones), infos  # type: ignore[return-value]

    def reset(self) -> VecEnvObs:
        """Reset all environments. Raises EnvError as `step_wait` does."""
        given = zip(self._seeds, self._options, strict=True)
        self._send([("reset", pair) for pair in given])
        results = self._gather("at reset", _infos_of_reset)
        obs, self.reset_infos = zip(*results, strict=True)  # type: ignore[assignment]
        self._reset_seeds()
        self._reset_options()
        return _stack_obs(obs, self.observation_space)

    def close(self) -> None:
        """End all processes, the hanging ones by force."""
        if self.closed:
            return
        self.closed = True
        for remote in self.remotes:
            with contextlib.suppress(OSError):
                remote.send(("close", None))
        # In the middle of a step a process cannot hear "close".
        patience = 0.1 if self.waiting else CLOSE
        self._join(patience)
        for end in (mp.Process.terminate, mp.Process.kill):
            for process in self.processes:
                if process.is_alive():
                    end(process)
            self._join(max(1.0, patience))
        for remote in self.remotes:
            remote.close()

    # --- inside ---

    def _join(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))

    def _send(self, messages: Sequence[tuple[str, Any]]) -> None:
        for row, (remote, message) in enumerate(zip(self.remotes, messages, strict=True)):
            try:
                remote.send(message)
            except BlockingIOError:
                raise self._silent(row, self.timeout, f"to '{message[0]}'") from None
            except OSError:
                raise self._lost(row, f"at '{message[0]}'") from None

    def _gather(
        self,
        when: str,
        infos_of: Callable[[Any], list[Mapping[str, Any]]] | None = None,
        patience: float = 1.0,
    ) -> list[Any]:
        """Return one answer of every process, in their order."""
        answers: dict[int, Any] = {}
        pending: dict[Connection, int] = {r: k for k, r in enumerate(self.remotes)}
        timeout = patience * self.timeout
        deadline = time.monotonic() + timeout
        while pending:
            ready = wait(list(pending), max(0.0, deadline - time.monotonic()))
            if not ready:
                raise self._silent(min(pending.values()), timeout, when)
            arrived: list[Any] = []
            for remote in ready:
                row = pending.pop(remote)  # type: ignore[arg-type]
                answers[row] = self._receive(row, when)
                arrived.append(answers[row])
            # When nobody is waited for, everything is going to be scored at once anyway.
            if pending and infos_of is not None and self.on_arrival is not None:
                self.on_arrival([info for answer in arrived for info in infos_of(answer)])
        return [answers[row] for row in range(len(self.remotes))]

    def _receive(self, row: int, when: str) -> Any:
        try:
            answer = self.remotes[row].recv()
        except BlockingIOError:
            raise self._silent(row, self.timeout, f"{when}, in the middle of one") from None
        except (EOFError, OSError):
            raise self._lost(row, when) from None
        if isinstance(answer, Failure):
            error = self._broken(f"environment {row}{self._name} failed {when}: {answer.what}")
            error.add_note(answer.trace)
            raise error
        return answer

    def _silent(self, row: int, timeout: float, when: str) -> EnvError:
        return self._broken(
            f"environment {row}{self._name} gave no answer within {timeout:g} s {when}; if it only "
            "is slow, give it more time (--worker_timeout of `er train-policy`)"
        )

    def _lost(self, row: int, when: str) -> EnvError:
        process = self.processes[row]
        process.join(1.0)
        return self._broken(
            f"the process of environment {row}{self._name} (pid {process.pid}) ended {when}, exit "
            f"code {process.exitcode} (negative: a signal; -9 often means that memory ran out)"
        )

    def _broken(self, why: str) -> EnvError:
        """End the other processes: their results would belong to no step."""
        self.waiting = True
        self.close()
        return EnvError(f"{why}. All environments were closed")


def _infos_of_step(answer: Any) -> list[Mapping[str, Any]]:
    _, _, done, info, reset_info = answer
    return [info, reset_info] if done else [info]


def _infos_of_reset(answer: Any) -> list[Mapping[str, Any]]:
    return [answer[1]]


def _limit(ours: Connection, timeout: float) -> None:
    """Let neither the rest of an answer nor a full pipe be waited for longer than `timeout` [s]."""
    limit = struct.pack("@ll", int(timeout), int(timeout % 1 * 1e6))
    with socket.socket(fileno=os.dup(ours.fileno())) as same:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            same.setsockopt(socket.SOL_SOCKET, option, limit)


def _leave_with_parent() -> None:
    """End this process when the one that started it is gone, even in the middle of a step."""
    parent = mp.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _serve(remote: Connection, parent: Connection, make: CloudpickleWrapper) -> None:
    """Run Stable-Baselines3's worker; say what went wrong before leaving."""
    # Ctrl-C reaches the whole group; who takes the steps finishes one and then ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        _worker(remote, parent, make)
    except Exception as error:  # noqa: BLE001 (an environment may raise anything)
        with contextlib.suppress(OSError):
            remote.send(Failure(f"{type(error).__name__}: {error}", traceback.format_exc()))
