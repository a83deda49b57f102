"""Cores of this computer -> ranks of a training, one a core, started by the first of them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from src.system.distributed import ROLL_CALL_S, STORE, WAIT_S, RankLostError, Ranks, World
from src.system.workers import THREAD_SETTINGS, describe_exit


def usable_cores() -> int:
    """Cores that this process may use, a container's share of them included."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # of Linux: microseconds of all cores in a period, or "max"
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
        cores = min(cores, max(1, quota // period))
    return cores


@contextlib.contextmanager
def own_ranks(world: World, size: int, command: Sequence[str]) -> Iterator[Callable[[], World]]:
    """Start `size` - 1 more processes; what is yielded waits for them, after which each has one thread.

    They are taken out of the terminal's group, and end with this process, however that ends.

    Args:
        world: that of this process; where it has ranks already, or for size 1, it stays as it is.
    """
    if size == 1 or world.size > 1:
        yield lambda: world
        return
    num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder, contextlib.ExitStack() as stack:
        store = Path(folder) / "store"
        speak_to_oneself()
        shared = {"WORLD_SIZE": str(size), STORE: str(store), **dict.fromkeys(THREAD_SETTINGS, "1")}
        children: list[subprocess.Popen] = []
        stack.callback(_end, children)
        stack.callback(torch.set_num_threads, num_threads)
        for rank in range(1, size):
            environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            children.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )

        def join() -> World:
            torch.set_num_threads(1)
            _wait_for(children, store, size)
            return stack.enter_context(Ranks(0, size, 0, dist.FileStore(str(store), size), lambda: _reasons(children)))

        yield join


def speak_to_oneself() -> None:
    """Let gloo use the computer's own address, as it has no other where there is no network."""
    names = {name for _, name in socket.if_nameindex()}
    loopback = next((name for name in ("lo", "lo0") if name in names), None)
    if loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)


def _wait_for(children: Sequence[subprocess.Popen], path: Path, size: int) -> None:
    """Until all have come to the store.

    Raises:
        RankLostError: one has ended before.
    """
    meeting = dist.FileStore(str(path), size)
    while not meeting.check([f"come {rank}" for rank in range(1, size)]):
        if ended := _ended(children):
            raise RankLostError(f"a process of this training could not start: {ended}; use cpu_processes = 1")
        time.sleep(WAIT_S)


def _reasons(children: Sequence[subprocess.Popen]) -> str:
    """How the processes that this one has started have ended."""
    end = time.monotonic() + ROLL_CALL_S
    while not (ended := _ended(children)) and time.monotonic() < end:
        time.sleep(WAIT_S)
    return ended


def _ended(children: Sequence[subprocess.Popen]) -> str:
    codes = {rank: child.poll() for rank, child in enumerate(children, start=1)}
    return ", ".join(f"rank {rank}: {describe_exit(code)}" for rank, code in codes.items() if code is not None)


def _end(children: Sequence[subprocess.Popen]) -> None:
    for child in children:
        child.kill()
    for child in children:
        child.wait()
