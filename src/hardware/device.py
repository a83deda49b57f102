"""The name of a device or precision in the settings -> the one that is there and works."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from functools import cache

import torch

from src.system.errors import UserError

log = logging.getLogger(__name__)

# What the driver, the CUDA runtime or torch says when a card is used -> what it means and what to do.
_BUSY = (
    "it is busy, or another program has it for itself: end that program, which nvidia-smi names, or name another card"
)
_OLD_DRIVER = (
    "its driver is older than this build of torch needs: update the driver, or install a build of torch for the CUDA "
    "version that nvidia-smi shows"
)
_NO_CODE = (
    "this build of torch has no code for it, of compute capability {capability}, but for {codes}: "
    "install one that has. For cards of 5.0 to 9.0 that is the one for CUDA 12.6: "
    "pip install torch=={version} --index-url https://download.pytorch.org/whl/cu126"
)
FAULTS = {
    "no kernel image": _NO_CODE,
    "busy or unavailable": _BUSY,
    "already in use": _BUSY,
    "out of memory": "its memory is full: end programs that nvidia-smi names, or name another card",
    "driver on your system is too old": _OLD_DRIVER,
    "driver version is insufficient": _OLD_DRIVER,
}
NO_CARD = ("not compiled with CUDA", "no NVIDIA driver", "GPUs are available")


class DeviceError(UserError):
    """The device that was asked for is not there, or does not work."""


class NoCardError(DeviceError):
    """There is no CUDA GPU."""


class UnusableCardError(DeviceError):
    """There is a CUDA GPU, and it does not work."""


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Turn the setting into a device that works; 'auto' is a CUDA GPU, else the CPU, aloud where a GPU is of no use.

    A GPU with a number becomes the one that torch means where nothing is named: for its precisions, and to pin memory.

    Args:
        local_rank: number of this process on its computer; each takes a GPU of its own.

    Raises:
        DeviceError: when the named device is not there or does not work.
    """
    if name == "auto":
        try:
            return choose_device("cuda", local_rank)
        except NoCardError:
            return torch.device("cpu")
        except UnusableCardError as error:
            _warn_once(f"going on on the CPU: {error}")
            return torch.device("cpu")
    if name == "cuda" and local_rank:
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"device = {name!r}: must be auto, cpu, cuda, cuda:<number> or mps")
    if device.type == "cuda":
        _check_card(device, name)
        if device.index is not None:
            torch.cuda.set_device(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device = 'mps', but torch sees no Apple GPU")
    return device


def _check_card(device: torch.device, name: str) -> None:
    """Let the card do one thing, which brings to light all that keeps it from working."""
    count = torch.cuda.device_count()
    if count and (device.index or 0) >= count:
        raise DeviceError(f"device = {name!r}, but torch sees {count} CUDA GPUs")
    try:
        torch.ones(1, device=device).add_(1).cpu()
    except (RuntimeError, AssertionError) as error:  # the second from a build of torch without CUDA
        text = str(error)
    else:
        return
    first_line = text.split("\n")[0]
    if any(part in text for part in NO_CARD):
        raise NoCardError(f"device = {name!r}, but torch sees 0 CUDA GPUs ({first_line})")
    meaning = next((meaning for part, meaning in FAULTS.items() if part in text), first_line)
    if meaning is _NO_CODE:
        capability = "{}.{}".format(*torch.cuda.get_device_capability(device))
        codes, version = ", ".join(torch.cuda.get_arch_list()), torch.__version__.split("+")[0]
        meaning = meaning.format(capability=capability, codes=codes, version=version)
    raise UnusableCardError(f"device = {name!r} does not work: {meaning}")


@cache
def _warn_once(text: str) -> None:
    log.warning("%s", text)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """fp32 on a CPU, else bf16 where the GPU has it and fp16 where not; a named precision is taken as it is.

    Of 'tf32' all numbers are fp32; see matrix_products.
    """
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


@contextlib.contextmanager
def matrix_products(precision: str, device: torch.device) -> Iterator[None]:
    """How a CUDA GPU multiplies matrices meanwhile: those of fp32 in TF32 where that is the precision.

    Those of bf16 and fp16 are summed in fp32, where torch lets cuBLAS add the parts of long sums, as those over all
    edges are, in the type of the factors.
    """
    if precision == "tf32" and device.type != "cuda":
        log.info("precision = 'tf32' is the same as 'fp32' on %s: only CUDA GPUs have TF32", device)
    flags = torch.backends.cuda.matmul
    wanted = {f"allow_{name}_reduced_precision_reduction": False for name in ("bf16", "fp16")}
    wanted["allow_tf32"] = flags.allow_tf32 or (precision == "tf32" and device.type == "cuda")
    earlier = {name: getattr(flags, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(flags, name, value)
        yield
    finally:
        for name, value in earlier.items():
            setattr(flags, name, value)


@contextlib.contextmanager
def sums_in_fixed_order(wanted: bool) -> Iterator[None]:
    """Where wanted, torch adds by index on a GPU in an order that is always the same, which takes more operations.

    Of an operation that has no such form torch warns.
    """
    deterministic = torch.utils.deterministic
    earlier = torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted:
        torch.use_deterministic_algorithms(True, warn_only=True)
        deterministic.fill_uninitialized_memory = False  # it would write into all memory before its first use
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(earlier[0], warn_only=warns)
        deterministic.fill_uninitialized_memory = earlier[1]


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)
