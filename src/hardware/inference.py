"""A model and batches -> numbers, by a forward pass without gradients."""

from __future__ import annotations

import logging
from collections.abc import Iterable

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


@torch.no_grad()
def predict_batches(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    precision: torch.dtype = torch.float32,
    *,
    left_out: list[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and measured pK of every complex, in the order of the batches, each [number of complexes].

    A model that answers [G, columns] gives so many numbers of each complex in place of its pK.

    A batch that does not fit into memory is run in parts, and so are those after it that are as large.

    Args:
        left_out: takes the place, counted from 0, of each complex that does not fit even alone. A warning names it,
            and its prediction is NaN. None: such a complex is an error.

    Raises:
        TooLargeError: naming a complex that does not fit even alone.
    """
    model.eval()
    predicted, measured = [], [np.zeros(0, dtype=np.float32)]

    def predict(batch: Batch) -> None:
        with autocast(device, precision):
            predicted.append(model(batch.to(device)).float().cpu().numpy())

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
            predicted.append(np.full(1, np.nan, dtype=np.float32))
        measured.append(batch.pk.numpy())
    shape = next((part.shape[1:] for part in predicted if part.ndim > 1), ())
    alike = [part if part.ndim > len(shape) else np.full((1, *shape), np.nan, dtype=np.float32) for part in predicted]
    return np.concatenate([np.zeros((0, *shape), dtype=np.float32), *alike]), np.concatenate(measured)
