"""What to do when memory runs out: tell it from other errors, let go of the failed pass, and cut a batch in parts."""

from __future__ import annotations

import gc
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from src.graph import Batch

# Fraction of a size that did not fit which is tried from then on: the peak is not quite linear in the edges, and
# the memory of a GPU is never free in one piece.
SAFE_FRACTION = 0.8

# What a RuntimeError says that is no torch.OutOfMemoryError: the allocators of CPU and Apple GPUs, the CUDA runtime,
# cuBLAS and cuDNN for their workspaces, and C++.
TEXTS = ("can't allocate memory", "not enough memory", "out of memory", "_ALLOC_FAILED", "bad_alloc")


class TooLargeError(torch.OutOfMemoryError):
    """One complex does not fit into memory, even without gradients; the message names it."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError):
        return any(text in str(error) for text in TEXTS)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError))


def memory_fault(call: Callable[..., object], *arguments: object) -> str | None:
    """Call; the beginning of the error's text when memory ran out, else None. Every other error goes on its way.

    When this returns nothing of the failed call is alive: the traceback, whose frames hold its tensors, is gone.
    """
    try:
        call(*arguments)
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
        return textwrap.shorten(str(error), 120) or type(error).__name__
    return None


def free_memory(device: torch.device) -> None:
    """Give back what nobody uses, so that the next try does not meet memory in pieces of the wrong size."""
    gc.collect()  # graphs of autograd that are held by a cycle of references
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def num_edges(batch: Batch) -> int:
    """Directed edges, by which the memory of a batch is measured."""
    return batch.source.shape[0]


def safe_limit(failed: Batch, limit: int | None) -> int:
    """The most edges to try from now on: well below a batch that did not fit, and never more than before."""
    safe = int(SAFE_FRACTION * num_edges(failed))
    return safe if limit is None else min(limit, safe)


def parts_within(batch: Batch, limit: int | None) -> list[Batch]:
    """The batch, halved until no part of several complexes has more edges than the limit; in the same order."""
    if limit is None or batch.num_graphs == 1 or num_edges(batch) <= limit:
        return [batch]
    return [part for half in split_batch(batch) for part in parts_within(half, limit)]


def smaller_parts(parts: Sequence[Batch], failed: Batch, limit: int) -> list[Batch]:
    """The parts in the same order and within the limit; `failed` in halves, or left out when it is one complex."""
    smaller: list[Batch] = []
    for part in parts:
        if part is not failed:
            smaller += parts_within(part, limit)
        elif part.num_graphs > 1:
            smaller += [piece for half in split_batch(part) for piece in parts_within(half, limit)]
    return smaller


def split_batch(batch: Batch) -> tuple[Batch, Batch]:
    """The first and the second half of the complexes, at least two; equal to what collating each half would give."""
    middle = batch.num_graphs // 2
    is_first = batch.graph_of_atom < middle
    num_atoms = int(is_first.sum())  # the atoms of a complex stand together, in the order of the complexes
    of_edge, of_contact = batch.target < num_atoms, batch.contacts[0] < num_atoms
    return (
        _part(batch, slice(None, middle), is_first, of_edge, of_contact, first_atom=0, first_graph=0),
        _part(batch, slice(middle, None), ~is_first, ~of_edge, ~of_contact, first_atom=num_atoms, first_graph=middle),
    )


def _part(
    batch: Batch,
    graphs: slice,
    of_atom: Tensor,
    of_edge: Tensor,
    of_contact: Tensor,
    *,
    first_atom: int,
    first_graph: int,
) -> Batch:
    return replace(
        batch,
        codes=batch.codes[graphs],
        features=batch.features[of_atom],
        pos=batch.pos[of_atom],
        fade=batch.fade[of_atom],
        graph_of_atom=batch.graph_of_atom[of_atom] - first_graph,
        source=batch.source[of_edge] - first_atom,
        target=batch.target[of_edge] - first_atom,
        edge_kind=batch.edge_kind[of_edge],
        bond_type=batch.bond_type[of_edge],
        contacts=batch.contacts[:, of_contact] - first_atom,
        pk=batch.pk[graphs],
        bound=batch.bound[graphs],
        weight=batch.weight[graphs],
    )
