"""Model settings, complexes and a device -> the peak bytes of a training step, from the sizes of its batch.

Warm-up steps on the complexes themselves give the coefficients, so that they are those of this device, width, depth,
lmax, precision and mode of message passing.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import nnls

from src.checkpoint import restore_rng, rng_state
from src.data.batching import collate, graph_sizes
from src.data.dataset import Example
from src.graph import Batch
from src.hardware.device import autocast
from src.hardware.out_of_memory import TooLargeError, free_memory, memory_fault
from src.model import AffinityModel, build_model
from src.settings import ModelSettings
from src.visnet.chunked_kernels import EAGER

WEIGHT_COPIES = 5  # weights, gradients, the two moments of Adam, moving average
NUM_PHASES = 3  # forward through the messages; the readout, forward and backward; backward through the messages
# Directed edges of the middle calibration batch: at least so many, and several chunks, so that those have their full
# size.
CALIBRATION_EDGES = 6_000
CALIBRATION_CHUNKS = 3
PRIOR_WEIGHT = 1e-3  # weight of the expected ratios, which decide only what the measured peaks leave open
BORDER = "border of a phase"  # a mark among the events of the profiler


@dataclass(frozen=True, eq=False)
class StepMemory:
    """Peak bytes of a training step in one mode of message passing: weights, and the most that a phase needs.

    Each phase is linear in what the batch holds: the messages need buffers for a chunk of edges where the readout
    needs its rows of all contacts, and which is more changes with the batch.
    """

    weights: float  # weights, gradients, moments and average: all that stays when a step is done
    phases: np.ndarray  # [NUM_PHASES, 6] bytes for each of `_terms`
    chunk: int  # the most edges that are worked on at once

    def need(self, sizes: np.ndarray) -> np.ndarray:
        """Bytes [...] of a step on batches of so many atoms, directed edges and contacts [..., 3]."""
        return self.weights + (_terms(np.asarray(sizes, dtype=float), self.chunk) @ self.phases.T).max(-1)


def complex_sizes(examples: Sequence[Example]) -> np.ndarray:
    """Atoms, directed edges and contacts of each complex, [complexes, 3]."""
    return np.column_stack([graph_sizes(examples), [example.graph.contacts.shape[1] for example in examples]])


def measure_step_memory(
    settings: ModelSettings,
    examples: Sequence[Example],
    modes: Sequence[str],
    device: torch.device,
    precision: torch.dtype,
) -> dict[str, StepMemory]:
    """Measure the modes with a model of these settings; random numbers go on as if nothing had happened.

    On a device that does not count its memory the steps run on the CPU.

    Raises:
        TooLargeError: not even one complex fits in any mode; a mode in which none fits is left out.
    """
    if device.type not in ("cpu", "cuda"):
        device, precision = torch.device("cpu"), torch.float32
    random_numbers = rng_state()
    try:
        model = model_to_measure(settings, device)
        found: dict[str, StepMemory] = {}
        for mode in modes:
            try:
                found[mode] = _measure_mode(model, settings, examples, mode, device, precision)
            except TooLargeError:
                if mode == modes[-1] and not found:
                    raise
            free_memory(device)
        return found
    finally:
        restore_rng(random_numbers)
        free_memory(device)


def model_to_measure(settings: ModelSettings, device: torch.device) -> AffinityModel:
    """A model whose gradients are there already, as in the second batch of an accumulation."""
    model = build_model(settings).to(device).train()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return model


def phase_peaks(model: AffinityModel, batch: Batch, device: torch.device, precision: torch.dtype) -> np.ndarray:
    """Most bytes [NUM_PHASES] that are allocated in each phase of forward and backward, weights and gradients apart.

    Raises:
        TooLargeError: the batch does not fit.
    """

    def step(border: Callable[[], None]) -> None:
        def begin_readout(_module: object, _inputs: object, outputs: tuple[torch.Tensor, ...]) -> None:
            border()
            torch.autograd.graph.register_multi_grad_hook(outputs, lambda _gradients: border())

        with model.representation.register_forward_hook(begin_readout):
            on_device = batch.to(device)
            with autocast(device, precision):
                predicted = model(on_device)
            predicted.float().square().sum().backward()

    free_memory(device)  # what an earlier step left in cycles must not be freed in the middle of this one
    peaks: list[np.ndarray] = []
    measure = _peaks_on_cuda if device.type == "cuda" else _peaks_on_cpu
    fault = memory_fault(lambda: peaks.append(measure(step, device)))
    if fault is not None:
        raise TooLargeError(f"{batch.num_graphs} complexes do not fit into the memory of {device}: {fault}")
    return peaks[0]


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """The profiler of some versions of torch writes a line to the terminal at each start and stop."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _measure_mode(
    model: AffinityModel,
    settings: ModelSettings,
    examples: Sequence[Example],
    mode: str,
    device: torch.device,
    precision: torch.dtype,
) -> StepMemory:
    model.representation.message_passing = mode
    chunk = EAGER.longest_run(settings.hidden_channels, device)
    ordered = sorted(examples, key=lambda example: example.graph.num_edges)
    middle = ordered[len(ordered) // 4 : max(len(ordered) // 4 + 1, -(-3 * len(ordered) // 4))]
    weights = WEIGHT_COPIES * sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    in_use = _allocated(device)
    phase_peaks(model, collate(middle[:1]), device, precision)  # libraries take memory at their first use and keep it
    weights += _allocated(device) - in_use
    edges = max(1.0, graph_sizes(middle)[:, 1].mean())
    count = math.ceil(max(CALIBRATION_EDGES, CALIBRATION_CHUNKS * chunk) / edges)
    while True:
        batches = _calibration_batches(middle, count, chunk)
        if count == 1:
            batches = [batch for batch in batches if len(batch) == 1]
        try:
            peaks = np.array([phase_peaks(model, collate(batch), device, precision) for batch in batches])
            break
        except TooLargeError:
            if count == 1:
                raise
        free_memory(device)
        count //= 2
    sizes = np.array([complex_sizes(batch).sum(0) for batch in batches], dtype=float)
    ratios = _expected_ratios(settings, mode)
    return StepMemory(weights, np.array([_fit(sizes, peak, chunk, ratios) for peak in peaks.T]), chunk)


def _calibration_batches(examples: Sequence[Example], count: int, chunk: int) -> list[list[Example]]:
    """Less than a chunk of edges, more than one, `count` complexes, twice as many, and `count` with fewer pairs."""
    per_chunk = chunk / max(1.0, graph_sizes(examples)[:, 1].mean())
    many, below, above = (
        [examples[number % len(examples)] for number in range(max(1, int(number)))]
        for number in (count, min(count, 0.8 * per_chunk), min(count, 1.4 * per_chunk))
    )
    thinned = [
        [replace(e, graph=replace(e.graph, **{pairs: getattr(e.graph, pairs)[:, ::2]})) for e in many]
        for pairs in ("near_pairs", "contacts")
    ]
    return [below, above, many, many * 2, *thinned]


def _terms(sizes: np.ndarray, chunk: int) -> np.ndarray:
    """What the bytes of a phase are linear in, [..., 6], from atoms, directed edges and contacts [..., 3].

    These are 1, atoms, edges, contacts, and the edges of a chunk: where it is the only one, and where it is one of
    several, which are equal in length.
    """
    edges = sizes[..., 1:2]
    num_chunks = np.maximum(np.ceil(edges / chunk), 1)
    in_chunk = edges / num_chunks
    alone = num_chunks == 1
    return np.concatenate([np.ones_like(edges), sizes, in_chunk * alone, in_chunk * ~alone], axis=-1)


def _fit(sizes: np.ndarray, peaks: np.ndarray, chunk: int, ratios: tuple[float, float]) -> np.ndarray:
    """Coefficients [6] of `_terms`, none below 0, with the least squares of relative errors.

    Args:
        sizes: [batches, 3].
        peaks: [batches] bytes of one phase.
        ratios: expected bytes of an edge and of a contact over those of an atom.
    """
    rows = _terms(sizes, chunk) / peaks[:, None]
    # What the batches leave open, as for complexes without near pairs or longer than a chunk, these equations decide.
    prior = np.zeros((3, rows.shape[1]))
    prior[:2, 1], prior[0, 2], prior[1, 3] = ratios, -1.0, -1.0
    prior[2, 4:] = 1.0, -1.0
    rows = np.vstack([rows, PRIOR_WEIGHT * sizes[:, 0].max() / peaks.max() * prior])
    scale = np.abs(rows).max(0)
    found, _ = nnls(rows / scale, np.concatenate([np.ones(len(peaks)), np.zeros(len(prior))]))
    return found / scale


def _expected_ratios(settings: ModelSettings, mode: str) -> tuple[float, float]:
    """Bytes of an edge and of a contact over those of an atom, from the arrays of F channels that are kept.

    An atom: x, vec and the sums, in every layer. An edge: its feature, in every layer or only in passing, and what
    products yield of it. A contact: its rows of both atoms in the readout.
    """
    components = settings.lmax**2 + 2 * settings.lmax
    atom = settings.num_layers * (2 * components + 3)
    edge = settings.num_layers * {"keep": 7, "fast": 1}.get(mode, 0) or 1
    return edge / atom, (2 * components + 10) / atom


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _peaks_on_cuda(step: Callable[[Callable[[], None]], None], device: torch.device) -> np.ndarray:
    before, peaks = torch.cuda.memory_allocated(device), []

    def border() -> None:
        peaks.append(torch.cuda.max_memory_allocated(device) - before)
        torch.cuda.reset_peak_memory_stats(device)

    torch.cuda.reset_peak_memory_stats(device)
    step(border)
    border()
    return np.array(peaks, dtype=float)


def _peaks_on_cpu(step: Callable[[Callable[[], None]], None], _device: torch.device) -> np.ndarray:
    """The highest sums of what the allocator gave and took back, from the memory events of the profiler."""

    def border() -> None:
        with torch.autograd.profiler.record_function(BORDER):
            pass

    profiler = torch.autograd.profiler.profile(profile_memory=True)
    with silent_stderr():
        profiler.__enter__()
    try:
        step(border)
    finally:
        with silent_stderr():
            profiler.__exit__(None, None, None)
    total, peaks = 0, [0.0]
    for event in sorted(profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == BORDER:
            peaks.append(total)
        elif event.name() == "[memory]":
            total += event.nbytes()
            peaks[-1] = max(peaks[-1], total)
    return np.array(peaks, dtype=float)
