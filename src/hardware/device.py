"""The name of a device or precision in the settings -> the one that is there."""

from __future__ import annotations

import torch

from src.system.errors import UserError


class DeviceError(UserError):
    """The device that was asked for is not there."""


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Turn the setting into a device that is there; 'auto' is a CUDA GPU, else the CPU.

    Args:
        local_rank: number of this process on its computer; each takes a GPU of its own.

    Raises:
        DeviceError: when the named device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local_rank:
        name = f"cuda:{local_rank}"
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
