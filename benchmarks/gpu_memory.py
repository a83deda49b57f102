"""Parts of gpu.py about memory: what a step takes against the plan, and what happens when a small GPU is full."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu import Row
from benchmarks.gpu_bench import Bench
from benchmarks.gpu_steps import answered
from benchmarks.networks import OURS, set_form
from src.data.batching import collate
from src.data.dataset import Example
from src.graph import Batch
from src.hardware.memory_plan import (
    CUDA_CONTEXT_BYTES,
    MemoryPlan,
    batch_need,
    largest_batch,
    plan_memory,
    propose,
    usable_of_card,
)
from src.hardware.out_of_memory import free_memory, num_edges
from src.hardware.step_memory import StepMemory, phase_peaks
from src.model import build_model
from src.optimization.gradients import WindowGradient

CARD_GIB = 6
SAME_GRADIENT = 1e-4  # relative, Euclidean: of sums in another order


def memory(bench: Bench) -> Iterator[Row]:
    """Peaks of the worst batches that the plan proposes, against what it says of them."""
    settings = bench.settings("plan", batch_size="auto", dropout_rate=0.0)
    examples = bench.examples(4 * max(bench.sizes.batch_sizes))
    plan = plan_memory(settings, examples, bench.device)
    chosen = propose(plan)
    yield {
        "form": f"proposed: {chosen.message_passing}",
        "complexes": chosen.batch_size,
        "accumulated": chosen.gradient_accumulation_steps,
    }
    for form, need in _planned_forms(bench, plan):
        for size in sorted({*bench.sizes.batch_sizes, chosen.batch_size}):
            planned = batch_need(need, plan.sizes, size, worst=True)
            batch = collate(_worst(need.need(plan.sizes), examples, size))
            yield answered(
                {"form": form, "complexes": size, "planned GB": planned / 1e9},
                partial(_against_plan, bench, form, batch, planned, need.weights),
            )


def full_memory(bench: Bench) -> Iterator[Row]:
    """What fits a small GPU by the plan does; four times as much is split, with the same gradient and a warning."""
    settings = bench.settings("full", dropout_rate=0.0, precision="fp32")
    draw = np.random.default_rng(0)
    examples = bench.examples(4 * max(bench.sizes.batch_sizes))
    plan = plan_memory(settings, examples, bench.device)
    for form, need in _planned_forms(bench, plan):
        if bench.is_gpu:
            usable = min(usable_of_card(CARD_GIB * 2**30), plan.available or math.inf)
            size = max(1, largest_batch(need, plan.sizes, usable, plan.budget))
        else:
            size = bench.sizes.window
        drawn = [[examples[number] for number in draw.integers(len(examples), size=size)] for _ in range(3)]
        quarters = [_worst(need.need(plan.sizes), examples, size), *drawn]
        yield from _in_small_memory(bench, form, {"form": form, "complexes": size}, quarters)


def _planned_forms(bench: Bench, plan: MemoryPlan) -> Iterator[tuple[str, StepMemory]]:
    """Forms, and what the plan says of their modes; it is made with the plain kernels."""
    for form in bench.forms:
        if OURS[form][0] in plan.memory and "compiled" not in form:
            yield form, plan.memory[OURS[form][0]]


def _worst(needs: np.ndarray, examples: Sequence[Example], size: int) -> list[Example]:
    """The complexes that need most, some of them several times where there are not so many."""
    order = np.argsort(-needs, kind="stable")
    return [examples[order[number % len(order)]] for number in range(size)]


def _against_plan(bench: Bench, form: str, batch: Batch, planned: float, fixed: float) -> Row:
    peak, reserved = _peak_of_steps(bench, form, batch, fixed)
    row: Row = {"measured GB": peak / 1e9, "measured / planned": peak / planned}
    return row | ({"reserved / planned": reserved / planned} if reserved else {})


def _peak_of_steps(bench: Bench, form: str, batch: Batch, fixed: float) -> tuple[float, float]:
    """Most bytes allocated, and reserved, in two steps of the loop; without a GPU those of a pass, and none."""
    if not bench.is_gpu:
        model = build_model(bench.model_settings()).train()
        set_form(model.representation, form)
        model(batch).square().sum().backward()
        return fixed + phase_peaks(model, batch, bench.device, torch.float32).max(), 0.0
    free_memory(bench.device)
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    trainer = bench.trainer("peak", form, num_complexes=20, dropout_rate=0.0)[0]
    for _ in range(2):
        trainer._train_window([batch])
    peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    if trainer.progress.edge_limit is not None:
        raise torch.OutOfMemoryError("the batch did not fit and was split")
    return peaks[0] - before[0], peaks[1] - before[1]


def _in_small_memory(bench: Bench, form: str, about: Row, quarters: Sequence[Sequence[Example]]) -> Iterator[Row]:
    torch.manual_seed(0)
    model = build_model(bench.model_settings()).to(bench.device).train()
    set_form(model.representation, form)
    parts = [collate(part) for part in quarters]
    largest = max(parts, key=num_edges)

    def gradient(window: Sequence[Batch]) -> tuple[Tensor, int | None, list[str]]:
        model.zero_grad(set_to_none=True)
        scaler = torch.amp.GradScaler(bench.device.type, enabled=False)
        runner = WindowGradient(model, scaler, device=bench.device, precision=torch.float32)
        with _warnings() as heard:
            runner.accumulate(window)
        used = torch.cat([each.grad.flatten().float().cpu() for each in model.parameters()])
        assert runner.num_used == sum(part.num_graphs for part in window), "complexes were left out"
        return used, runner.edge_limit, heard

    def fits() -> Row:
        limits = [gradient([part])[1] for part in parts]  # unlike batches, one after the other
        reserved = torch.cuda.max_memory_reserved() / 1e9 if bench.is_gpu else None
        return {"what": "fits by the plan", "reserved GB": reserved, "holds": limits == [None] * 4}

    def splits() -> Row:
        expected = gradient(parts)[0]
        whole = collate([example for part in quarters for example in part])
        found, limit, heard = gradient([whole])
        difference = float((found - expected).norm() / expected.norm())
        told = any("the memory is full" in line for line in heard)
        holds = limit is not None and told and difference <= SAME_GRADIENT
        return {"what": "four times as much is split", "difference": difference, "told": told, "holds": holds}

    with _small_memory(bench, model, num_edges(largest)) as limit:
        for what in (fits, splits):
            yield answered(about | {"limit GB": limit}, what)
    free_memory(bench.device)


@contextlib.contextmanager
def _small_memory(bench: Bench, model: torch.nn.Module, most_edges: int) -> Iterator[float | None]:
    """Room for this process as on a GPU of CARD_GIB, in GB; without a GPU a forward pass says that memory is full."""
    if not bench.is_gpu:

        def refuse(_module: object, inputs: tuple[Batch, ...]) -> None:
            if num_edges(inputs[0]) > most_edges:
                raise torch.OutOfMemoryError("out of memory, as the benchmark pretends")

        with model.register_forward_pre_hook(refuse):
            yield None
        return
    free_memory(bench.device)
    total = torch.cuda.get_device_properties(bench.device).total_memory
    room = min(total, CARD_GIB * 2**30 - CUDA_CONTEXT_BYTES)
    torch.cuda.set_per_process_memory_fraction(room / total)
    torch.cuda.reset_peak_memory_stats()
    try:
        if room < total and not _is_limited(room):
            raise RuntimeError("torch takes more than set_per_process_memory_fraction allows, so nothing can be tried")
        yield room / 1e9
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        free_memory(bench.device)


def _is_limited(room: float) -> bool:
    try:
        torch.empty(int(1.1 * room), dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError:
        return True
    return False


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the program warns of meanwhile."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())
    logger = logging.getLogger("src")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield heard
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
