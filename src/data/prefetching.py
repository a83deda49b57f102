"""Batches -> the same batches, made by a thread while a GPU works on those before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from src.graph import Batch


def made_ahead(batches: Iterable[Batch], device: torch.device, num_ahead: int = 1) -> Iterator[Batch]:
    """The batches in their order; for a CUDA GPU a thread makes the next ones, in memory that the GPU reads by itself.

    The thread ends with this iterator, and what goes wrong in it is raised here. For other devices there is none: it
    would take a core from those who do the work.

    Args:
        num_ahead: batches that are made before somebody asks for them.
    """
    if device.type != "cuda":
        yield from batches
        return
    remaining = iter(batches)  # starts worker processes, which must not be copies of a process with this thread

    def make() -> Batch | None:
        batch = next(remaining, None)
        return None if batch is None else batch.pin_memory()

    # Each thread has a current GPU of its own, in which memory is pinned.
    pool = ThreadPoolExecutor(1, "made-ahead", torch.cuda.set_device, (torch.cuda.current_device(),))
    try:
        coming = deque(pool.submit(make) for _ in range(num_ahead))
        while (batch := coming.popleft().result()) is not None:
            coming.append(pool.submit(make))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
