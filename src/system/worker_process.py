"""The worker's side of a supervised process: tasks from a pipe -> answers, within limits of time and memory."""

from __future__ import annotations

import contextlib
import errno
import pickle
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from src.system.stop_signals import EXIT_CODES, SAVE_SIGNALS

try:
    import resource
except ImportError:  # Windows has no such limits: memory_gb is not enforced there
    resource = None

ORPHAN_GRACE_S = 1.0  # a worker whose parent no longer watches ends itself this long after its time is up

# Ctrl+C and what a job queue sends reach the whole group; the parent decides what they mean.
FOR_PARENT = frozenset({signal.SIGINT, *SAVE_SIGNALS})

READY, DONE, FAILED, OUT_OF_MEMORY = "ready", "done", "failed", "out of memory"


def serve(
    connection: Connection,
    function: Callable,
    timeout_s: float,
    memory_gb: float | None,
    parents_end: Connection | None,
) -> None:
    """The worker's side: answer tasks until the pipe ends, as it does when the parent is gone.

    Args:
        parents_end: of the pipe, which a copy of the parent holds too.
    """
    for number in FOR_PARENT:
        signal.signal(number, signal.SIG_IGN)
    if parents_end is not None:
        parents_end.close()  # or the pipe would not end with the parent
        for number in EXIT_CODES.keys() - FOR_PARENT:
            if callable(signal.getsignal(number)):  # what the parent does at them is nothing for its copy
                signal.signal(number, signal.SIG_DFL)
    if memory_gb is not None and resource is not None:
        hard_limit = resource.getrlimit(resource.RLIMIT_DATA)[1]
        num_bytes = int(memory_gb * 1e9) + (_data_bytes() if parents_end else 0)
        soft_limit = num_bytes if hard_limit == resource.RLIM_INFINITY else min(num_bytes, hard_limit)
        resource.setrlimit(resource.RLIMIT_DATA, (soft_limit, hard_limit))
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        connection.send_bytes(pickle.dumps((READY, None)))
        while True:
            content = connection.recv_bytes()
            _end_myself_after(timeout_s + ORPHAN_GRACE_S)
            answer = _answer(function, content)
            _end_myself_after(0)
            connection.send_bytes(answer)


def _data_bytes() -> int:
    """What the kernel counts as data of this process, stack included."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    return pages * resource.getpagesize()


def _answer(function: Callable, content: bytes) -> bytes:
    # Plain pickle: Connection.send would turn tensors into shared memory that may die with the worker.
    try:
        return pickle.dumps((DONE, function(pickle.loads(content))), protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # the parent raises it again; only full memory is the fault of the task
        if _is_out_of_memory(error):
            return pickle.dumps((OUT_OF_MEMORY, None))
        return pickle.dumps((FAILED, (_picklable(error), traceback.format_exc())))


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch reports "DefaultCPUAllocator: can't allocate memory" as a plain RuntimeError.
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def _picklable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an exception class may do anything when pickled; its text is what matters
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_myself_after(seconds: float) -> None:
    """Let the kernel end this process in `seconds`, even inside native code; 0 takes it back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)  # the default action of SIGALRM ends the process
