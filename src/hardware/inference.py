"""A model and batches -> numbers: which device, which precision, and a forward pass without gradients."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from src.graph import Batch
from src.hardware.out_of_memory import (
    TooLargeError,
    free_memory,
    memory_fault,
    num_edges,
    parts_within,
    safe_limit,
    smaller_parts,
)
from src.system.errors import UserError

log = logging.getLogger(__name__)


class DeviceError(UserError):
    """The device that was asked for is not there."""


def choose_device(name: str) -> torch.device:
    """Turn the setting into a device that is there; 'auto' is the first CUDA GPU, else the CPU.

    Raises:
        DeviceError: when the named device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"device = {name!r}: must be auto, cpu, cuda, cuda:<number> or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device = {name!r}, but torch sees {torch.cuda.device_count()} CUDA GPUs")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device = 'mps', but torch sees no Apple GPU")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """fp32 on a CPU, else bf16 where the GPU has it and fp16 where not; a named precision is taken as it is."""
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)


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

    A batch that does not fit into memory is run in parts, and so are those after it that are as large.

    Args:
        left_out: takes the place, counted from 0, of each complex that does not fit even alone. A warning names it,
            and its prediction is NaN. None: such a complex is an error.

    Raises:
        TooLargeError: naming a complex that does not fit even alone.
    """
    model.eval()
    predicted, measured = [np.zeros(0, dtype=np.float32)], [np.zeros(0, dtype=np.float32)]

    def predict(batch: Batch) -> None:
        with autocast(device, precision):
            predicted.append(model(batch.to(device)).float().cpu().numpy())

    limit = None
    for batch in batches:
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
    return np.concatenate(predicted), np.concatenate(measured)
