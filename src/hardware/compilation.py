"""The kernels of message passing through torch.compile, where that works, agrees and pays."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from src.checkpoint import restore_rng, rng_state
from src.graph import Batch
from src.hardware.device import autocast
from src.hardware.out_of_memory import free_memory, is_out_of_memory, memory_fault
from src.model import AffinityModel
from src.visnet.chunked_kernels import EAGER, ChunkedKernels
from src.visnet.message_passing import Kernels

log = logging.getLogger(__name__)

# Compiling takes one to three minutes the first time; torch keeps the result on disk.
WORTH_COMPILING_S = 1800  # seconds that the steps of the whole training would take
MAX_COMPILED_VARIANTS = 32  # compiled forms of a kernel; by default torch stops compiling after 8
LARGEST_DIFFERENCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}  # relative difference of gradients


def compiled_kernels() -> Kernels:
    """Not compiled before the first call, and then for each kind of layer, with one length and with any length."""
    torch._dynamo.config.recompile_limit = max(MAX_COMPILED_VARIANTS, torch._dynamo.config.recompile_limit)
    return ChunkedKernels(*map(torch.compile, EAGER))


def fastest_kernels(
    model: AffinityModel,
    batches: Sequence[Batch],
    *,
    num_steps: int | None,
    device: torch.device,
    precision: torch.dtype,
) -> Kernels:
    """Compiled kernels if the training is long and they are faster on these batches, else the plain ones.

    Neither the model nor the random numbers change. Where memory runs out nothing is compiled.

    Args:
        batches: two or more, of unlike sizes, so that lengths are compiled as variables.
        num_steps: forward and backward passes of the whole training; None = compile if that works at all.
    """
    random_numbers, chosen = rng_state(), [EAGER]
    fault = memory_fault(lambda: chosen.append(_compare(model, batches, num_steps, device, precision)))
    restore_rng(random_numbers)
    if fault is not None:
        free_memory(device)
        log.warning("message passing is not compiled, memory ran out while it was tried: %s", fault)
    return chosen[-1]


def _compare(
    model: AffinityModel, batches: Sequence[Batch], num_steps: int | None, device: torch.device, precision: torch.dtype
) -> Kernels:
    log.info("timing a step, to know whether compiling the message passing would pay")
    on_device = [batch.to(device) for batch in batches]
    seconds, exact = _run(model, EAGER, on_device, precision)
    if num_steps is not None and seconds * num_steps < WORTH_COMPILING_S:
        log.info("message passing is not compiled: the steps take too little time for that to pay")
        return EAGER
    log.info("compiling the message passing: minutes at the first time, seconds later")
    started, kernels = time.monotonic(), compiled_kernels()
    try:
        compiled_seconds, compiled = _run(model, kernels, on_device, precision)
    except Exception as error:  # torch.compile raises what its compilers raise, and each has types of its own
        if is_out_of_memory(error):
            raise
        log.warning("message passing is not compiled, training is slower: %s", _first_line(error))
        return EAGER
    difference = float((compiled - exact).norm() / exact.norm().clamp(min=1e-12))
    if not difference <= LARGEST_DIFFERENCE[precision]:
        log.warning("message passing is not compiled: gradients would differ by %.1g", difference)
        return EAGER
    if num_steps is not None and compiled_seconds >= seconds:
        log.info("message passing is not compiled: that is no faster here")
        return EAGER
    ratio, spent = compiled_seconds / seconds, time.monotonic() - started
    log.info("message passing is compiled (%.0f s): steps take %.2f of the time they did", spent, ratio)
    return kernels


def _run(
    model: AffinityModel, kernels: Kernels, batches: Sequence[Batch], precision: torch.dtype, repeats: int = 3
) -> tuple[float, Tensor]:
    """Least seconds of a forward and backward pass on the last batch, and the gradients of the representation."""
    earlier, model.representation.kernels = model.representation.kernels, kernels
    parameters = [parameter for parameter in model.representation.parameters() if parameter.requires_grad]
    seconds = []
    try:
        for batch in [*batches, *[batches[-1]] * repeats]:
            torch.manual_seed(0)  # the same dropout for both kernels
            started = time.monotonic()
            with autocast(batch.pos.device, precision):
                loss = model(batch).float().square().sum()
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            gradients = torch.cat([gradient.flatten().float().cpu() for gradient in found if gradient is not None])
            seconds.append(time.monotonic() - started)
    finally:
        model.representation.kernels = earlier
    return min(seconds[-repeats:]), gradients


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
