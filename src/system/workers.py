"""A function over many tasks in supervised processes; a task that crashes, hangs or fills memory fails alone.

`multiprocessing.Pool.map` waits for ever for a worker that was killed, and `ProcessPoolExecutor` gives up all
pending tasks. Here each worker has its own pipe and one task in flight, so the blame is exact.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any

from src.system.errors import UserError
from src.system.stop_signals import SAVE_SIGNALS
from src.system.worker_process import FAILED, FOR_PARENT, OUT_OF_MEMORY, READY, serve

log = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3  # in a row, without one answered task in between
START_TIMEOUT_S = 300.0  # importing torch over a slow network disk takes minutes
NO_GUARD = 78  # exit code of a worker whose script begins its work anew when the worker imports it
STOP_TIMEOUT_S = 5.0  # for a worker to end after its pipe closed, or after it was killed

# Each worker fills one core; threads of its own would only compete with the other workers.
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class WorkerFault:
    """What stands in the place of a result when the worker did not survive the task."""

    reason: str


class WorkerStartError(UserError):
    """Workers end before they can take a task, so starting more of them would never stop."""


def require_main_guard() -> None:
    """End this process if it is a worker that is still importing the script that started it."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(NO_GUARD)


def run_supervised(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    *,
    num_workers: int,
    timeout_s: float,
    memory_gb: float | None,
    forked: bool = False,
) -> Iterator[tuple[int, Any]]:
    """Yield (index of the task, function(task) or WorkerFault) in the order in which tasks finish.

    Closing the iterator, or any exception while it runs, kills the workers. A script that calls this needs
    the usual `if __name__ == "__main__"` guard, because workers import it again; one without it is told so.

    Args:
        function: Picklable, so a function of a module's top level or a `functools.partial` of one.
        tasks: One picklable argument each; taken one by one, when a worker is free, so there may be any number.
        num_workers: Processes; 0 calls `function` here, without any protection.
        timeout_s: Longest time for one task; waiting for a free worker and starting one do not count.
        memory_gb: Cap on a worker's data (heap and private mappings, 10^9 bytes), all imports included; None
            for no cap. Linux only: other systems do not enforce it.
        forked: Where the system allows it, workers begin as copies of this process, within a hundredth of a second
            and with `function` as it is here. The cap is then on what they add. `function` must start no threads:
            those of the parent are not there, and libraries wait for them for ever.

    Raises:
        WorkerStartError: Several workers in a row ended before they answered anything, or the script has no guard.
        Exception: Whatever `function` raised, with the worker's traceback as a note: it is a bug, not a fault
            of the task. Only running out of memory becomes a WorkerFault.
    """
    require_main_guard()
    if num_workers == 0:
        for index, task in enumerate(tasks):
            yield index, function(task)
        return
    # On macOS libraries of the system do not survive a fork.
    method = "fork" if forked and sys.platform == "linux" else "spawn"
    crew = _Crew(tasks, num_workers, memory_gb, functools.partial(_Worker, function, timeout_s, memory_gb, method))
    try:
        yield from crew.results()
    finally:
        crew.stop()


class _Worker:
    """The parent's side of one process: its pipe, the task in flight and when that must be done."""

    def __init__(self, function: Callable, timeout_s: float, memory_gb: float | None, method: str):
        context, is_copy = multiprocessing.get_context(method), method == "fork"
        self.connection, far_end = context.Pipe()
        arguments = (far_end, function, timeout_s, memory_gb, self.connection if is_copy else None)
        self.process = context.Process(target=serve, args=arguments, name="aidd-worker", daemon=True)
        self.timeout_s = timeout_s
        self.index: int | None = None  # of the task in flight
        self.limit_s = START_TIMEOUT_S
        with contextlib.nullcontext() if is_copy else _child_surroundings():
            self.process.start()
        far_end.close()  # or the death of the worker would not show as the end of the pipe
        self.deadline = time.monotonic() + self.limit_s

    def send(self, index: int, task: Any) -> bool:
        """Give a task to a worker that waits for one, so this cannot block; False when the worker is gone."""
        content = pickle.dumps(task)
        try:
            self.connection.send_bytes(content)
        except OSError:
            return False
        self.index, self.limit_s = index, self.timeout_s
        self.deadline = time.monotonic() + self.limit_s
        return True

    def receive(self) -> tuple[str, Any] | None:
        """The worker's message, or None if it is dead or silent."""
        try:
            content = self.connection.recv_bytes() if self.connection.poll() else None
        except (EOFError, OSError):  # the pipe ends without a message, or in the middle of one
            return None
        return None if content is None else pickle.loads(content)

    def stop(self) -> None:
        self.process.kill()
        self.connection.close()
        self.process.join(STOP_TIMEOUT_S)
        if self.process.exitcode is None:
            log.warning("worker process %s could not be killed and is left behind", self.process.pid)
        else:
            self.process.close()

    def end(self) -> tuple[int | None, str]:
        """Kill what is left of a dead or late worker; its exit code, and what became of it."""
        late = time.monotonic() >= self.deadline
        if not late:  # its pipe has closed; the exit code follows within moments
            self.process.join(STOP_TIMEOUT_S)
        exit_code = self.process.exitcode
        self.stop()
        if exit_code is None or exit_code == -getattr(signal, "SIGALRM", math.inf):
            return exit_code, f"took longer than {self.limit_s:g} s"
        return exit_code, describe_exit(exit_code)


class _Crew:
    """All workers and the tasks that nobody has taken yet."""

    def __init__(
        self, tasks: Iterable[Any], num_workers: int, memory_gb: float | None, new_worker: Callable[[], _Worker]
    ):
        self.tasks = enumerate(tasks)
        self.waiting = deque(islice(self.tasks, num_workers))
        self.memory_gb = memory_gb
        self.failed_starts = 0
        self.new_worker = new_worker
        self.workers: list[_Worker] = []
        self.num_workers = len(self.waiting)

    def results(self) -> Iterator[tuple[int, Any]]:
        while len(self.workers) < self.num_workers:
            self.workers.append(self.new_worker())
        while self._has_waiting() or any(worker.index is not None for worker in self.workers):
            # All free workers get their next task before the caller gets a result to work on.
            outcomes = [self._attend(worker) for worker in self._speaking_or_late()]
            yield from (outcome for outcome in outcomes if outcome is not None)

    def stop(self) -> None:
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.stop()

    def _speaking_or_late(self) -> list[_Worker]:
        soonest = min(worker.deadline for worker in self.workers)
        sources = [source for w in self.workers for source in (w.connection, w.process.sentinel)]
        signalled, now = {*wait(sources, max(0.0, soonest - time.monotonic()))}, time.monotonic()
        return [w for w in self.workers if {w.connection, w.process.sentinel} & signalled or now >= w.deadline]

    def _attend(self, worker: _Worker) -> tuple[int, Any] | None:
        message = worker.receive()
        index, worker.index = worker.index, None
        if message is None:
            return self._bury(worker, index)
        status, content = message
        if status == READY:
            self._assign(worker)
            return None
        if status == FAILED:
            error, text = content
            error.add_note(f"In a worker process, task {index}:\n{text}")
            raise error
        if status == OUT_OF_MEMORY:
            self._dismiss(worker)  # native code that failed to get memory may be in any state
            self._fill_up()
            limit = "" if self.memory_gb is None else f" (limit {self.memory_gb:g} GB)"
            return index, WorkerFault(f"ran out of memory{limit}")
        self._assign(worker)
        return index, content

    def _assign(self, worker: _Worker) -> None:
        if not self._has_waiting():
            self._dismiss(worker)
        elif worker.send(*self.waiting[0]):
            self.waiting.popleft()
            self.failed_starts = 0
        else:
            self._bury(worker, None)

    def _bury(self, worker: _Worker, index: int | None) -> tuple[int, WorkerFault] | None:
        """Replace a dead or late worker; the task it had in flight, if any, is the one to blame."""
        self.workers.remove(worker)
        exit_code, reason = worker.end()
        if exit_code == NO_GUARD:
            raise WorkerStartError(
                "this script begins its work when it is imported, and workers import it: put what it does below a line "
                'if __name__ == "__main__":'
            )
        if index is None:
            self.failed_starts += 1
            if self.failed_starts >= MAX_FAILED_STARTS:
                raise WorkerStartError(f"{self.failed_starts} workers in a row ended before their first task: {reason}")
        else:
            log.info("task %d: %s; the worker is replaced", index, reason)
        self._fill_up()
        return None if index is None else (index, WorkerFault(reason))

    def _dismiss(self, worker: _Worker) -> None:
        self.workers.remove(worker)  # first: after an interrupt in between, stop() must not meet it again
        worker.stop()

    def _fill_up(self) -> None:
        if self._has_waiting():
            self.workers.append(self.new_worker())

    def _has_waiting(self) -> bool:
        if not self.waiting:
            self.waiting.extend(islice(self.tasks, 1))
        return bool(self.waiting)


def describe_exit(exit_code: int) -> str:
    if exit_code >= 0:
        return f"worker exited with code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = str(-exit_code)
    hint = " (the machine may be out of memory)" if name == "SIGKILL" else ""
    return f"worker died with signal {name}{hint}"


@contextlib.contextmanager
def _child_surroundings() -> Iterator[None]:
    """What a process inherits at its start: one thread per numeric library, no signals of the parent during imports."""
    before = {name: os.environ.get(name) for name in THREAD_SETTINGS}
    masked = hasattr(signal, "pthread_sigmask")
    if masked:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SAVE_SIGNALS)
    try:
        if masked:
            resource_tracker.ensure_running()  # a process too, whose start would unblock SIGINT again
            signal.pthread_sigmask(signal.SIG_BLOCK, FOR_PARENT)
        os.environ.update(dict.fromkeys(THREAD_SETTINGS, "1"))
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if masked:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
