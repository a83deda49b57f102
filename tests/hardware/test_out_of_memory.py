"""Running out of memory: told from other errors, nothing kept alive, and batches cut without changing a number."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import fields

import pytest
import torch

from src.graph import Batch
from src.hardware.out_of_memory import (
    free_memory,
    is_out_of_memory,
    memory_fault,
    num_edges,
    parts_within,
    safe_limit,
    smaller_parts,
    split_batch,
)
from tests.synthetic import batch_of, random_complex


def raising(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def same(one: Batch, other: Batch) -> bool:
    """Every field, so that one that is added to Batch and forgotten in the split shows."""
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Batch)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


GRAPHS = [
    random_complex(seed, num_ligand_atoms=3 + seed, num_pocket_atoms=pocket)
    for seed, pocket in enumerate([6, 9, 0, 12, 7])
]


def joined(graphs: list) -> Batch:
    return batch_of(graphs, torch.tensor([float(graph.num_ligand_atoms) for graph in graphs]))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=lambda error: str(error)[:20],
)
def test_running_out_of_memory_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert memory_fault(raising(error))


def test_what_the_cpu_allocator_says_is_recognised() -> None:
    assert "can't allocate memory" in memory_fault(torch.empty, 10**15)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_go_on_their_way(error: BaseException) -> None:
    with pytest.raises(type(error)):
        memory_fault(raising(error))


@pytest.mark.fault("E5")
def test_nothing_of_the_failed_call_stays_alive() -> None:
    alive = []

    def fail() -> None:
        held = torch.zeros(3)
        alive.append(weakref.ref(held))
        raise torch.OutOfMemoryError("full")

    assert memory_fault(fail) == "full"
    assert alive[0]() is None


def test_a_call_that_fits_has_no_fault() -> None:
    seen: list[int] = []
    assert memory_fault(seen.append, 3) is None
    assert seen == [3]


@pytest.mark.parametrize(("device", "calls"), [("cpu", 0), ("cuda", 1)])
def test_the_cache_of_a_gpu_is_emptied(monkeypatch: pytest.MonkeyPatch, device: str, calls: int) -> None:
    called = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: called.append(True))
    free_memory(torch.device(device))
    assert len(called) == calls


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_halves_equal_the_batches_of_half_the_complexes(count: int) -> None:
    first, second = split_batch(joined(GRAPHS[:count]))
    assert same(first, joined(GRAPHS[: count // 2]))
    assert same(second, joined(GRAPHS[count // 2 : count]))


def test_parts_keep_the_order_and_the_limit() -> None:
    batch = joined(GRAPHS)
    edges = [graph.num_edges for graph in GRAPHS]
    assert parts_within(batch, None) == [batch]
    assert parts_within(batch, sum(edges)) == [batch]
    for limit in (sum(edges) - 1, max(edges), 0):
        parts = parts_within(batch, limit)
        assert [code for part in parts for code in part.codes] == [graph.code for graph in GRAPHS]
        assert all(num_edges(part) <= limit or part.num_graphs == 1 for part in parts)
    assert len(parts) == len(GRAPHS)


def test_what_failed_is_halved_whatever_the_limit_says() -> None:
    first, second = joined(GRAPHS[:2]), joined(GRAPHS[2:4])
    parts = smaller_parts([first, second], second, limit=10**9)
    assert [part.codes for part in parts] == [("syn0", "syn1"), ("syn2",), ("syn3",)]
    assert smaller_parts(parts, parts[2], limit=10**9) == parts[:2]


def test_the_limit_only_falls() -> None:
    batch = joined(GRAPHS)
    edges = num_edges(batch)
    assert safe_limit(batch, None) == int(0.8 * edges)
    assert safe_limit(batch, edges // 2) == edges // 2
