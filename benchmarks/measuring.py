"""A training step -> what it costs: bytes kept and moved, peak, kernels, floating-point operations, waits, seconds.

All but the seconds are counted and come out the same on every run.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from src.graph import Batch
from src.hardware.step_memory import silent_stderr

Forward = Callable[[], tuple[Tensor, ...]]

# Operators that wait for the device, because the size of their result or a number on the host hangs on values.
WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "unique_consecutive",
    "_unique2",
    "bincount",
}
# Beginnings of the names of the driver's calls that start kernels.
LAUNCHING = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchCooperativeKernel", "cudaGraphLaunch")
# Those that wait; the profiler and whoever calls it wait for the whole device, which is another call.
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")
# Operators that only reserve memory, or compute nothing.
RESERVING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "promote_types"}
TORCHS_OWN = {"aten", "prim", "prims", "inductor", "mkldnn", "mkl"}  # namespaces of operators


@dataclass(frozen=True)
class Cost:
    """One training step: a forward pass and the backward pass from given gradients of its outputs."""

    saved: int  # bytes the graph keeps for the backward pass, each storage once, without the constants
    hidden: int  # those of them that hang on a `ctx` and were not saved by `save_for_backward`
    kept: int  # bytes that the forward pass allocates and that are still there at its end, outputs included
    outputs: int  # bytes of the outputs
    peak: int  # most bytes at one time above those before the step; gradients of parameters are there before
    # None where the operators cannot be seen:
    kernels: int | None  # operators that compute or copy
    moved: int | None  # bytes that they read and write
    flops: int | None  # of matrix products
    waits: int | None  # how often the host waits for the device


class DeviceWork(NamedTuple):
    """What a CUDA GPU is made to do."""

    kernels: int
    launches: int  # calls of the driver that start a kernel
    copies: int  # between host and device, on it, and fills
    waits: int  # how often the host waits for it
    busy: float  # seconds in which it does something


def constants_of(model: nn.Module, batch: Batch) -> list[Tensor]:
    """Tensors that exist before a step: parameters, buffers and the batch."""
    tensors = [value for value in vars(batch).values() if isinstance(value, Tensor)]
    return [*model.parameters(), *model.buffers(), *tensors]


def measure_step(
    forward: Forward, gradients: Sequence[Tensor], constants: Iterable[Tensor], *, is_compiled: bool = False
) -> Cost:
    """Cost of one step; it runs five times, the first time so that parameters have gradients.

    Args:
        forward: gives the outputs that `gradients` belong to.
        constants: tensors whose bytes count as there before the step.
        is_compiled: the step runs kernels of `torch.compile`, which are not made of operators that can be counted.
    """

    def step() -> None:
        torch.autograd.backward(forward(), gradients)

    step()
    saved, hidden = saved_bytes(forward, constants)
    kept, outputs = kept_bytes(forward)
    peak = peak_bytes(step)
    if is_compiled:
        return Cost(saved, hidden, kept, outputs, peak, None, None, None, None)
    with OperatorCount() as count:
        step()
    return Cost(saved, hidden, kept, outputs, peak, count.kernels, count.moved, count.flops, count.waits)


def saved_bytes(forward: Forward, constants: Iterable[Tensor]) -> tuple[int, int]:
    """Bytes that the graph of the outputs keeps, and those of them that no hook sees.

    A storage counts whole and once, whatever part of it a saved tensor shows.
    """
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = forward()
    seen = set(found)
    for tensor in tensors_on_ctx(outputs):
        note(tensor)
    there = {tensor.untyped_storage().data_ptr() for tensor in constants}
    saved = sum(size for place, size in found.items() if place not in there)
    return saved, sum(size for place, size in found.items() if place not in there | seen)


def tensors_on_ctx(outputs: Iterable[Tensor]) -> Iterator[Tensor]:
    """Tensors that attributes of a Python `autograd.Function`'s ctx lead to, anywhere in the graph of `outputs`."""
    open_nodes = [output.grad_fn for output in outputs if output.grad_fn is not None]
    known = set(open_nodes)
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            yield from _tensors_within(vars(node), {id(node)})
        following = {after for after, _ in node.next_functions if after is not None} - known
        known |= following
        open_nodes += following


def kept_bytes(forward: Forward) -> tuple[int, int]:
    """Bytes allocated by the forward pass and still there at its end, and the bytes of its outputs among them."""
    with _memory_events() as sizes:
        outputs = forward()
    places = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in outputs}
    return sum(sizes), sum(places.values())


def peak_bytes(step: Callable[[], None]) -> int:
    """The most bytes that are allocated at one time during a step, above those before it."""
    with _memory_events() as sizes:
        step()
    return max(accumulate(sizes, initial=0))


class OperatorCount(TorchDispatchMode):
    """Counts the operators that reach a kernel, the bytes of their arguments and results, products and waits.

    `FlopCounterMode` leaves hooks on parameters with which a backward pass inside a backward pass fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.moved = self.flops = self.waits = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator.namespace not in TORCHS_OWN:
            # An operator of somebody's own may start hundreds of kernels: what counts is what it does.
            with self:
                return OPDEFS[operator._name.rsplit(".", 1)[0]]._init_fn(*args, **(kwargs or {}))
        results = operator(*args, **(kwargs or {}))
        name = operator.overloadpacket.__name__
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
        self.waits += name in WAITING or _takes_mask(name, args) or _has_unknown_length(name, kwargs or {})
        if operator.overloadpacket in flop_registry:
            self.flops += flop_registry[operator.overloadpacket](*args, **(kwargs or {}), out_val=results)
        places = {tensor.untyped_storage().data_ptr() for tensor in read}
        is_view = bool(written) and all(tensor.untyped_storage().data_ptr() in places for tensor in written)
        if name not in RESERVING and (operator._schema.is_mutable or not is_view):
            self.kernels += 1
            self.moved += sum(map(_num_bytes, [*read, *written]))
        return results


def least_seconds(roads: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """The least time of each road; they take turns, and other programs can only add time."""
    best = dict.fromkeys(roads, float("inf"))
    for _ in range(repeats):
        for name, road in roads.items():
            start = clock()
            road()
            best[name] = min(best[name], clock() - start)
    return best


def median_seconds(
    roads: dict[str, Callable[[], object]], *, most_repeats: int, most_seconds: float, wait: Callable[[], object]
) -> dict[str, float]:
    """The median time of each road, three times at least; they take turns.

    Args:
        wait: lets the device end what it was told.
    """
    found: dict[str, list[float]] = {name: [] for name in roads}
    began = time.perf_counter()
    for number in range(most_repeats):
        for name, road in roads.items():
            wait()
            start = time.perf_counter()
            road()
            wait()
            found[name].append(time.perf_counter() - start)
        if number >= 2 and time.perf_counter() - began > most_seconds:
            break
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def device_work(act: Callable[[], object]) -> DeviceWork:
    """What an act makes a CUDA GPU do, by torch's profiler; to be called where CUDA is in use.

    Raises:
        RuntimeError: the profiler sees nothing of the GPU.
    """
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with silent_stderr(), torch.profiler.profile(activities=activities) as profile:
        act()
        torch.cuda.synchronize()
    work = work_of(profile.profiler.kineto_results.events())
    if not work.kernels:
        raise RuntimeError("the profiler of torch sees nothing of the GPU here")
    return work


def work_of(events: Iterable[Any]) -> DeviceWork:
    """What the raw events of torch's profiler say of the device."""
    on_device, names = [], []
    for event in events:
        if event.device_type().name != "CUDA":
            names.append(event.name())
        elif not _is_annotation(event):
            on_device.append(event)
    busy = until = 0
    for start, end in sorted((event.start_ns(), event.start_ns() + event.duration_ns()) for event in on_device):
        busy, until = busy + max(0, end - max(start, until)), max(until, end)
    copies = sum(event.name().startswith(("Memcpy", "Memset")) for event in on_device)
    launches = sum(name.startswith(LAUNCHING) for name in names)
    waits = sum(name in WAITS for name in names)
    return DeviceWork(len(on_device) - copies, launches, copies, waits, busy / 1e9)


def product_rate(repeats: int = 200) -> float:
    """FLOP per second of a [1024, 128] x [128, 256] product in float32, at the number of threads that is set."""
    left, right = torch.randn(1024, 128), torch.randn(128, 256)
    out = torch.empty(1024, 256)
    seconds = least_seconds({"": lambda: torch.mm(left, right, out=out)}, repeats, time.perf_counter)[""]
    return 2 * 1024 * 128 * 256 / seconds


def machine() -> str:
    """The processor, its cores and the versions, in one line."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    model = names[0] if names else platform.processor() or platform.machine()
    vectors = torch.backends.cpu.get_cpu_capability()
    return f"{model}, {vectors}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


@contextlib.contextmanager
def _memory_events() -> Iterator[list[int]]:
    """What the block allocates (positive) and gives back (negative) in bytes, in order of time; filled at its end."""
    sizes: list[int] = []
    profiler = torch.autograd.profiler.profile(profile_memory=True)
    gc.collect()
    with silent_stderr():
        profiler.__enter__()
    try:
        yield sizes
    finally:
        with silent_stderr():
            profiler.__exit__(None, None, None)
    # `profiler.function_events` leaves out those inside an operator; the raw events have all.
    events = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes += [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


def _is_annotation(event: Any) -> bool:
    """Whether an event on the device is a span that somebody named on the host, and no work."""
    named = getattr(event, "is_user_annotation", None)  # not in every torch
    return bool(named and named()) or event.name().startswith(("Optimizer.", "ProfilerStep", "Torch-Compiled"))


def _tensors_within(value: object, known: set[int]) -> Iterator[Tensor]:
    """Tensors that containers, attributes, closures and partial arguments lead to."""
    if isinstance(value, Tensor):
        yield value
        return
    if id(value) in known or isinstance(value, (str, bytes, int, float, complex, type, ModuleType, type(None))):
        return
    known.add(id(value))
    inner: list[object] = []
    if isinstance(value, dict):
        inner += value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner += value
    elif isinstance(value, FunctionType):
        inner += [cell.cell_contents for cell in value.__closure__ or ()]
    elif isinstance(value, partial):
        inner += [value.func, value.args, value.keywords]
    else:
        inner += [getattr(value, "__dict__", None), getattr(value, "__self__", None)]
        inner += [getattr(value, name, None) for name in getattr(type(value), "__slots__", ())]
    for each in inner:
        yield from _tensors_within(each, known)


def _takes_mask(name: str, args: tuple) -> bool:
    """Whether an operator indexes by a mask: how many rows it has must be read back first."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
        return False
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _has_unknown_length(name: str, kwargs: dict) -> bool:
    return name == "repeat_interleave" and kwargs.get("output_size") is None


def _num_bytes(tensor: Tensor) -> int:
    """Bytes that reading the tensor takes: a broadcast one is not longer than its storage."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
