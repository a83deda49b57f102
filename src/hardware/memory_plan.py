"""What a training step needs and what the device has -> batch size, accumulation and mode, and the table of --plan."""

from __future__ import annotations

import bisect
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.data.batching import NO_LIMIT, Budget, batch_budget, graph_sizes
from src.data.dataset import DatasetError, Example
from src.hardware.device import choose_device, choose_precision
from src.hardware.step_memory import StepMemory, complex_sizes, measure_step_memory
from src.settings import Settings, TrainingSettings, as_dict, settings_from_dict
from src.system.distributed import ALONE, World
from src.system.terminal import listed
from src.visnet.chunked_kernels import EAGER

log = logging.getLogger(__name__)

EFFECTIVE_BATCH = 16  # complexes per optimizer step with batch_size 'auto'; what does not fit at once is accumulated
MODES_BY_SPEED = ("keep", "fast", "lean")  # modes of message passing, the fastest first
UNMEASURED = "fast"  # of a CPU, where nothing is measured and "keep" might not fit
# Complexes that must fit at once in a mode for it to be used, where more fit in the next one.
SMALLEST_BATCH = {"keep": EFFECTIVE_BATCH, "fast": 4}
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MAX_BATCH_SIZE = 100_000

KEPT_OF_EDGES = 10  # arrays [E, F] of float32 that `keep` keeps in a layer, those of the atoms included
SMALL_SHARE = 0.25  # of the usable memory; processes on one computer see the same

CARDS_GIB = (6, 8, 12, 16, 24)
USABLE_SHARE = 0.85  # fraction of a memory; the rest is lost to fragments and other programs
CUDA_CONTEXT_BYTES = 0.4e9  # memory of a card that CUDA itself takes


@dataclass(frozen=True)
class MemoryPlan:
    """What training needs, and what there is."""

    memory: dict[str, StepMemory]  # mode -> its need, the leanest mode last
    sizes: np.ndarray  # [complexes, 3] atoms, directed edges, contacts
    budget: Budget
    available: float | None  # usable bytes of the device; None = unknown

    @property
    def modes(self) -> list[str]:
        return list(self.memory)

    def fits_alone(self) -> np.ndarray:
        """Which complexes [complexes] fit in the leanest mode; the loop skips the others."""
        most = np.inf if self.available is None else self.available
        return self.memory[self.modes[-1]].need(self.sizes) <= most


@dataclass(frozen=True)
class Proposal:
    """Values for config.py."""

    batch_size: int
    gradient_accumulation_steps: int
    message_passing: str


def plan_memory(
    settings: Settings,
    examples: Sequence[Example],
    device: torch.device,
    modes: Sequence[str] = MODES_BY_SPEED,
    world: World = ALONE,
) -> MemoryPlan:
    """Measure each mode on some of the complexes; what there is, is that of the rank with the least memory.

    Raises:
        DatasetError: there are none.
        TooLargeError: not even one of them fits.
    """
    if not examples:
        raise DatasetError("no usable complexes, and so no memory to plan")
    log.info("measuring the memory of a training step on %s", device)
    precision = choose_precision(settings.training.precision, device)
    memory = measure_step_memory(settings.model, examples, modes, device, precision)
    found = world.ask(partial(_memory_of_rank, name=settings.training.device))
    available = min((usable for usable in found if usable is not None), default=None)
    return MemoryPlan(memory, complex_sizes(examples), batch_budget(settings.training), available)


def _memory_of_rank(world: World, *, name: str) -> float | None:
    return usable_memory(choose_device(name, world.local_rank))


def usable_memory(device: torch.device) -> float | None:
    """Bytes of the device that a run may count on; None where the system does not say."""
    if device.type != "cuda":
        free_ram = _free_ram()
        return None if free_ram is None else USABLE_SHARE * free_ram
    free, total = torch.cuda.mem_get_info(device)
    return min(usable_of_card(total), USABLE_SHARE * (free + torch.cuda.memory_reserved(device)))


def usable_of_card(total: float) -> float:
    """Bytes that a run may count on, of a GPU with `total` bytes."""
    return USABLE_SHARE * total - CUDA_CONTEXT_BYTES


def batch_need(
    memory: StepMemory, sizes: np.ndarray, batch_size: int, *, worst: bool, budget: Budget = NO_LIMIT
) -> float:
    """Bytes of a step on `batch_size` average complexes of these sizes [complexes, 3], or on the largest ones.

    A batch of more complexes than there are holds all of them several times.
    """
    rows = sizes[np.argsort(-memory.need(sizes), kind="stable")] if worst else sizes.mean(0, keepdims=True)
    rounds, rest = divmod(batch_size, len(rows))
    total = rounds * rows.sum(0) + rows[:rest].sum(0)
    most = np.maximum(budget.limits, rows[0, :2])  # a complex above a limit is a batch of its own
    return float(memory.need(total * min(1.0, *(most / np.maximum(total[:2], 1)))))


def largest_batch(memory: StepMemory, sizes: np.ndarray, available: float, budget: Budget = NO_LIMIT) -> int:
    """The most complexes whose worst batch fits; 0 when the largest complex does not fit alone."""

    def need(batch_size: int) -> float:
        return batch_need(memory, sizes, batch_size, worst=True, budget=budget)

    return bisect.bisect_right(range(1, MAX_BATCH_SIZE + 1), available, key=need)


def propose(plan: MemoryPlan) -> Proposal:
    """Batch size, accumulation and mode for the memory there is, by the worst batch of the complexes that can fit.

    An optimizer step always sees EFFECTIVE_BATCH complexes, so that what is learned does not depend on the memory.
    A forward pass over more of them is no faster on a CPU, and little faster on a GPU.
    """
    lean = plan.modes[-1]
    if plan.available is None:
        return Proposal(EFFECTIVE_BATCH // 2, 2, UNMEASURED if UNMEASURED in plan.modes else lean)
    sizes = plan.sizes[plan.fits_alone()]
    if not len(sizes):
        return Proposal(1, EFFECTIVE_BATCH, lean)
    fits = {mode: largest_batch(memory, sizes, plan.available, plan.budget) for mode, memory in plan.memory.items()}
    mode = next(mode for mode in plan.modes if fits[mode] >= min(SMALLEST_BATCH.get(mode, 0), fits[lean]))
    batch_size = max(size for size in BATCH_SIZES if size <= min(EFFECTIVE_BATCH, fits[mode]))
    return Proposal(batch_size, EFFECTIVE_BATCH // batch_size, mode)


def fastest_mode(plan: MemoryPlan, batch_size: int) -> str:
    """The first mode whose worst batch fits, of the complexes that can fit at all; the leanest when none does."""
    sizes = plan.sizes[plan.fits_alone()]
    if plan.available is None:
        return UNMEASURED if UNMEASURED in plan.modes else plan.modes[-1]
    for mode, memory in plan.memory.items() if len(sizes) else ():
        if batch_need(memory, sizes, batch_size, worst=True, budget=plan.budget) <= plan.available:
            return mode
    return plan.modes[-1]


def resolve_auto(
    settings: Settings,
    examples: Sequence[Example],
    device: torch.device,
    earlier: dict[str, Any] | None = None,
    world: World = ALONE,
) -> Settings:
    """Put values in the place of 'auto' in batch_size and message_passing, in `config` too.

    When a run begins on a GPU the memory is measured even where nothing is 'auto', so that what cannot fit is named
    before training. On a CPU it is measured for batch_size 'auto' alone.

    Args:
        examples: the training set.
        earlier: the config of the checkpoint from which the run goes on. Its values are taken, whatever is free now:
            with another batch size, a place in the middle of an epoch would be another one.

    Raises:
        SettingsError: the checkpoint holds values that are none.
        TooLargeError: not even one complex fits.
    """
    training = settings.training
    wanted = ["batch_size", "gradient_accumulation_steps"] if training.batch_size == "auto" else []
    wanted += ["message_passing"] if training.message_passing == "auto" else []
    if earlier is not None:
        found = {"message_passing": UNMEASURED, **earlier}
    elif device.type != "cuda" and training.batch_size != "auto":
        keeps = training.message_passing == "auto" and _surely_keeps(settings, examples, world)
        found = {"message_passing": "keep" if keeps else UNMEASURED}
    else:
        found = _values_for_memory(settings, examples, device, world)
    chosen = {key: found.get(key) for key in wanted}
    values = settings_from_dict(TrainingSettings, {**as_dict(training), **chosen}, source="config of the checkpoint")
    return replace(settings, training=values, config={**settings.config, **chosen})


def plan_text(plan: MemoryPlan, settings: Settings, device: torch.device) -> str:
    """The page that --plan prints."""
    model = settings.model
    precision = str(choose_precision(settings.training.precision, device)).removeprefix("torch.")
    network = f"{model.hidden_channels} channels, {model.num_layers} layers, lmax {model.lmax}"
    return "\n\n".join(
        [
            f"memory of a training step: {network}, measured on {device} in {precision}",
            _sizes_text(plan),
            _bytes_table(plan),
            _batches_table(plan),
            _cards_table(plan, device, gpu_chunk=EAGER.longest_run(model.hidden_channels, torch.device("cuda"))),
            _proposal_text(propose(plan), device),
        ]
    )


def _values_for_memory(
    settings: Settings, examples: Sequence[Example], device: torch.device, world: World
) -> dict[str, Any]:
    mode, batch_size = settings.training.message_passing, settings.training.batch_size
    plan = plan_memory(settings, examples, device, MODES_BY_SPEED if mode == "auto" else (mode,), world)
    _warn_of_too_large(plan, [example.graph.code for example in examples])
    chosen = propose(plan)
    if batch_size != "auto":
        chosen = replace(chosen, batch_size=batch_size, message_passing=fastest_mode(plan, batch_size))
    need = batch_need(
        plan.memory[chosen.message_passing], plan.sizes, chosen.batch_size, worst=True, budget=plan.budget
    )
    log.info(
        "batches of %d complexes, message passing %r: the worst needs %s of %s",
        chosen.batch_size,
        chosen.message_passing,
        _gb(need),
        "an unknown amount" if plan.available is None else f"{_gb(plan.available)} usable",
    )
    return asdict(chosen)


def _surely_keeps(settings: Settings, examples: Sequence[Example], world: World) -> bool:
    """Whether what `keep` keeps of the largest batch is, by a count of its arrays, a small part of the memory."""
    edges = np.sort(graph_sizes(examples)[:, 1])[::-1][: settings.training.batch_size].sum()
    kept = KEPT_OF_EDGES * 4.0 * settings.model.hidden_channels * settings.model.num_layers * edges
    found = world.ask(partial(_memory_of_rank, name=settings.training.device))
    return all(usable is not None and kept <= SMALL_SHARE * usable for usable in found)


def _warn_of_too_large(plan: MemoryPlan, codes: Sequence[str]) -> None:
    """Name the complexes that do not fit even alone."""
    over = (~plan.fits_alone()).nonzero()[0].tolist()
    if not over:
        return
    needs = plan.memory[plan.modes[-1]].need(plan.sizes)
    named = [
        f"{codes[n]} ({plan.sizes[n, 0]} atoms, {plan.sizes[n, 1]} edges, {_gb(needs[n])})"
        for n in sorted(over, key=lambda n: -needs[n])
    ]
    log.warning(
        "%d of %d complexes need more than the %s there are, even alone with message_passing %r, and will be skipped "
        "where memory runs out: %s",
        len(over),
        len(codes),
        _gb(plan.available),
        plan.modes[-1],
        listed(named),
    )


def _sizes_text(plan: MemoryPlan) -> str:
    lines = [f"{'complexes':<24}{len(plan.sizes):>9,}"]
    for name, column in zip(("atoms", "edges", "contacts"), plan.sizes.T, strict=True):
        middle, high, largest = np.median(column), np.percentile(column, 95), column.max()
        lines.append(f"  {name + ' per complex':<22}  median {middle:,.0f}, 95% {high:,.0f}, largest {largest:,.0f}")
    return "\n".join(lines)


def _bytes_table(plan: MemoryPlan) -> str:
    average, largest = plan.sizes.mean(0), plan.sizes[plan.sizes[:, 1].argmax()]
    rows = {
        "weights and optimizer": lambda memory: memory.weights,
        "average complex alone": lambda memory: memory.need(average) - memory.weights,
        "largest complex alone": lambda memory: memory.need(largest) - memory.weights,
        # In large batches, where the buffers that do not grow with the batch no longer count.
        "each further complex": lambda memory: (memory.need(128 * average) - memory.need(64 * average)) / 64,
    }
    table = [["bytes", *plan.modes]]
    for name, number in rows.items():
        table.append([name, *(f"{number(memory) / 1e6:,.1f} MB" for memory in plan.memory.values())])
    return _aligned(table)


def _batches_table(plan: MemoryPlan) -> str:
    """What batches need: of average complexes, and of the largest."""
    rows = [["need", *(f"{mode}, {kind}" for mode in plan.modes for kind in ("average", "worst"))]]
    for batch_size in BATCH_SIZES:
        needs = [
            batch_need(memory, plan.sizes, batch_size, worst=worst, budget=plan.budget)
            for memory in plan.memory.values()
            for worst in (False, True)
        ]
        rows.append([f"batch_size {batch_size}", *map(_gb, needs)])
    return _aligned(rows)


def _cards_table(plan: MemoryPlan, device: torch.device, *, gpu_chunk: int) -> str:
    """The largest batches whose worst case fits GPUs, with their longer chunks of edges, and this device."""
    on_gpu = [replace(memory, chunk=gpu_chunk) for memory in plan.memory.values()]
    places = [(f"{card} GB GPU", usable_of_card(card * 2**30), on_gpu) for card in CARDS_GIB]
    if plan.available is not None:
        places.append((f"this device ({device})", plan.available, list(plan.memory.values())))
    rows = [["largest batch_size", "usable", *plan.modes]]
    for name, usable, memories in places:
        largest = [largest_batch(memory, plan.sizes, usable, plan.budget) for memory in memories]
        rows.append([name, _gb(usable), *(f"{number:,}" for number in largest)])
    share = f"usable: {USABLE_SHARE:.0%} of the memory, of a GPU less {_gb(CUDA_CONTEXT_BYTES)} for CUDA itself"
    return f"{_aligned(rows)}\n{share}; every batch may be the worst"


def _proposal_text(chosen: Proposal, device: torch.device) -> str:
    lines = [f'    "{key}": {json.dumps(value)},' for key, value in asdict(chosen).items()]
    return f"for {device}, to paste at the end of CONFIG in config.py:\n" + "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, the first to the left and the others to the right."""
    return "\n".join(f"{row[0]:<24}" + "".join(f"{cell:>16}" for cell in row[1:]) for row in rows)


def _gb(number: float) -> str:
    return f"{number / 1e9:,.2f} GB"


def _free_ram() -> float | None:
    """Bytes of RAM that programs can still take; None on systems that do not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not on Windows; not on macOS
        return None
