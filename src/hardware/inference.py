"""A model and batches -> numbers, by a forward pass without gradients."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from src.data.prefetching import made_ahead
from src.graph import Batch
from src.hardware.device import autocast
from src.hardware.out_of_memory import (
    TooLargeError,
    free_memory,
    memory_fault,
    num_edges,
    parts_within,
    safe_limit,
    smaller_parts,
)

log = logging.getLogger(__name__)


def predict_batches(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    precision: torch.dtype = torch.float32,
    *,
    left_out: list[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and measured pK of every complex, in the order of the batches, each [number of complexes].

    A model that answers [G, columns] gives so many numbers of each complex in place of its pK. The device is waited
    for once, at the end.

    A batch that does not fit into memory is run in parts, and so are those after it that are as large.

    Args:
        left_out: takes the place, counted from 0, of each complex that does not fit even alone. A warning names it,
            and its prediction is NaN. None: such a complex is an error.

    Raises:
        TooLargeError: naming a complex that does not fit even alone.
    """
    return begin_prediction(model, batches, device, precision, left_out=left_out)()


@torch.no_grad()
def begin_prediction(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    precision: torch.dtype = torch.float32,
    *,
    left_out: list[int] | None = None,
) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """`predict_batches` in two parts: all is given to the device, whose numbers are read when the answer is called.

    Memory runs out in the first part: it is reserved when an operation is given to the device, not when it is done.
    """
    model.eval()
    predicted, measured = [], [np.zeros(0, dtype=np.float32)]

    def predict(batch: Batch) -> None:
        with autocast(device, precision):
            predicted.append(model(batch.to(device)).float())

    limit = None
    for batch in made_ahead(batches, device):
        parts = parts_within(batch, limit)
        while parts:
            fault = memory_fault(predict, parts[0])
            if fault is None:
                parts.pop(0)
                continue
            free_memory(device)
            failed = parts[0]
            limit = safe_limit(failed, limit)
            parts = smaller_parts(parts, failed, limit)
            if failed.num_graphs > 1:
                log.info("memory is full at %d complexes, %d edges: run in parts", failed.num_graphs, num_edges(failed))
                continue
            size = f"{failed.codes[0]} alone ({failed.pos.shape[0]} atoms, {num_edges(failed)} edges)"
            if left_out is None:
                raise TooLargeError(f"{size} does not fit into memory: {fault}")
            log.warning("left out, %s does not fit into memory: %s", size, fault)
            left_out.append(sum(map(len, predicted)))
            predicted.append(torch.full((1,), math.nan, device=device))
        measured.append(batch.pk.numpy())

    def read() -> tuple[np.ndarray, np.ndarray]:
        shape = next((part.shape[1:] for part in predicted if part.dim() > 1), ())
        alike = [part if part.dim() > len(shape) else part.new_full((1, *shape), math.nan) for part in predicted]
        return torch.cat([torch.zeros((0, *shape), device=device), *alike]).cpu().numpy(), np.concatenate(measured)

    return read
