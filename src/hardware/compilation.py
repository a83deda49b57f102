"""The kernels of message passing by Triton or through torch.compile, where that works, agrees and pays."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from src.checkpoint import restore_rng, rng_state
from src.graph import Batch
from src.hardware.device import autocast
from src.hardware.memory_plan import usable_memory
from src.hardware.out_of_memory import free_memory, is_out_of_memory, memory_fault
from src.model import AffinityModel, ViSNet
from src.visnet.chunked_kernels import EAGER, ChunkedKernels, elements_within
from src.visnet.kernels import Kernels

log = logging.getLogger(__name__)

# Seconds that the steps of a training would take. Compiling takes one to five minutes the first time, and seconds when
# torch has the result on disk; steps then take 0.75 to 0.92 of the time.
WORTH_COMPILING_S = 1800
MAX_COMPILED_VARIANTS = 32  # compiled forms of a kernel; by default torch stops compiling after 8
LARGEST_DIFFERENCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}  # relative difference of gradients


def compiled_kernels(plain: ChunkedKernels = EAGER) -> Kernels:
    """Not compiled before the first call, and then for each kind of layer, with one length and with any length."""
    torch._dynamo.config.recompile_limit = max(MAX_COMPILED_VARIANTS, torch._dynamo.config.recompile_limit)
    return ChunkedKernels(*map(torch.compile, plain[:2]), plain.elements)


def kernels_named(name: str, model: ViSNet) -> Kernels:
    """Those that another rank has chosen under this name."""
    return {"plain": lambda: EAGER, "compiled": compiled_kernels, "triton": lambda: triton_kernels(model)}[name]()


def triton_kernels(model: ViSNet) -> Kernels | None:
    """Those for CUDA GPUs, None where they cannot be; the log says why."""
    channels, heads = model.out_norm.weight.numel(), model.layers[0].form.num_heads
    if channels & (channels - 1) or heads & (heads - 1):
        log.info("no Triton kernels: channels and heads must be powers of two, found %d and %d", channels, heads)
        return None
    try:
        from src.visnet.triton_kernels import TritonKernels  # only builds of torch for CUDA bring Triton
    except ImportError as error:
        log.info("no Triton kernels: %s", _first_line(error))
        return None
    return TritonKernels()


def fastest_kernels(
    model: AffinityModel,
    batches: Sequence[Batch],
    *,
    num_steps: int,
    device: torch.device,
    precision: torch.dtype,
    earlier: str | None = None,
) -> tuple[str, Kernels]:
    """Those of Triton on a CUDA GPU, else compiled ones if the training is long, else the plain ones, with their name.

    Triton's and compiled ones are taken where they agree with the plain ones and are faster on these batches.

    Neither the model nor the random numbers change. Where memory runs out nothing is compiled.

    Args:
        batches: two or more, of unlike sizes, so that lengths are compiled as variables.
        num_steps: forward and backward passes of the whole training.
        earlier: the name of those that a run had which goes on; they are taken if they work at all.
    """
    random_numbers, chosen = rng_state(), [("plain", EAGER)]
    fault = memory_fault(lambda: chosen.append(_fastest(model, batches, num_steps, device, precision, earlier)))
    restore_rng(random_numbers)
    if fault is not None:
        free_memory(device)
        log.warning("message passing is not compiled, memory ran out while it was tried: %s", fault)
    return chosen[-1]


def _fastest(
    model: AffinityModel,
    batches: Sequence[Batch],
    num_steps: int,
    device: torch.device,
    precision: torch.dtype,
    earlier: str | None,
) -> tuple[str, Kernels]:
    log.info("timing a step, to know which way to pass messages is the fastest")
    on_device = [batch.to(device) for batch in batches]
    plain = seconds, _ = _run(model, EAGER, on_device, precision)
    chunked = _with_long_chunks(model.representation, device)
    common = plain, model, on_device, precision, earlier is None
    # What 'lean' replays, it replays in chunks; Triton's kernels have none.
    suited = device.type == "cuda" and model.representation.message_passing != "lean" and earlier != "compiled"
    by_triton = triton_kernels(model.representation) if suited else None
    if by_triton and _is_better("by Triton", by_triton, *common):
        return "triton", by_triton
    if earlier == "triton":
        return "plain", chunked
    if earlier is None and seconds * num_steps < WORTH_COMPILING_S:
        log.info("message passing is not compiled: the steps take too little time for that to pay")
        return "plain", chunked
    log.info("compiling the message passing: minutes at the first time, seconds later")
    compiled = compiled_kernels(chunked)
    return ("compiled", compiled) if _is_better("compiled", compiled, *common) else ("plain", chunked)


def _with_long_chunks(model: ViSNet, device: torch.device) -> ChunkedKernels:
    """The plain kernels, on a CUDA GPU with chunks for the memory that the steps until now have left of it."""
    if device.type != "cuda":
        return EAGER
    free = usable_memory(device) - torch.cuda.max_memory_allocated(device)
    return EAGER._replace(elements=elements_within(free, (model.lmax + 1) ** 2 - 1))


def _is_better(
    how: str,
    kernels: Kernels,
    plain: tuple[float, Tensor],
    model: AffinityModel,
    batches: Sequence[Batch],
    precision: torch.dtype,
    must_gain: bool,
) -> bool:
    """Whether they work, agree with the plain form, and are faster if they must; the log says which and why."""
    started = time.monotonic()
    try:
        seconds, found = _run(model, kernels, batches, precision)
    except Exception as error:  # compilers raise what they raise, and each has types of its own
        if is_out_of_memory(error):
            raise
        log.warning("message passing is not %s, training is slower: %s", how, _first_line(error))
        return False
    plain_seconds, expected = plain
    difference = float((found - expected).norm() / expected.norm().clamp(min=1e-12))
    if not difference <= LARGEST_DIFFERENCE[precision]:
        log.warning("message passing is not %s: gradients would differ by %.1g", how, difference)
        return False
    if must_gain and seconds >= plain_seconds:
        log.info("message passing is not %s: that is no faster here", how)
        return False
    ratio, spent = seconds / plain_seconds, time.monotonic() - started
    log.info("message passing is %s (%.0f s): steps take %.2f of the time they did", how, spent, ratio)
    return True


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
