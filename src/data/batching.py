"""Labelled graphs -> which stand in which batch of an epoch, and the batches."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from src.data.dataset import Example
from src.graph import Batch, DirectedEdges
from src.settings import TrainingSettings
from src.system.stop_signals import leave_signals_to_parent
from src.system.terminal import listed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """What a batch may hold beside its number of complexes: peak memory is linear in atoms and edges."""

    max_atoms: int | None = None  # None: no limit
    max_edges: int | None = None  # directed

    @property
    def limits(self) -> tuple[float, float]:
        return self.max_atoms or math.inf, self.max_edges or math.inf


NO_LIMIT = Budget()
_NO_EDGES = DirectedEdges(*(torch.empty(0, dtype=torch.int16) for _ in range(4)))


def batch_budget(training: TrainingSettings) -> Budget:
    return Budget(training.max_atoms_per_batch, training.max_edges_per_batch)


def graph_sizes(examples: Sequence[Example]) -> np.ndarray:
    """Atoms and directed edges of each complex, [number of complexes, 2]."""
    return np.array([(example.graph.num_atoms, example.graph.num_edges) for example in examples]).reshape(-1, 2)


def warn_of_oversized(examples: Sequence[Example], budget: Budget) -> None:
    """Name the complexes that pass a limit of the budget by themselves."""
    sizes = graph_sizes(examples)
    over = (sizes > budget.limits).any(1).nonzero()[0].tolist()
    if over:
        named = [f"{examples[n].graph.code} ({sizes[n, 0]} atoms, {sizes[n, 1]} edges)" for n in over]
        text = "%d larger than max_atoms_per_batch = %s or max_edges_per_batch = %s, each in a batch of its own: %s"
        log.warning(text, len(over), *astuple(budget), listed(named))


def epoch_batches(
    sizes: np.ndarray, batch_size: int, budget: Budget = NO_LIMIT, *, seed: int, epoch: int
) -> list[list[int]]:
    """Which examples stand in which batch: a function of the arguments alone, every example once.

    The examples are put into as many buckets of like size as a batch has places, and every batch draws one at random
    from each bucket. Peak memory is set by the largest batch of all epochs, and so the largest batch is made little
    larger than the mean one: it has 1.1 times the edges where 8 pocket complexes make a batch. A plain shuffle makes
    it 1.3 times, and batches of like size, which save padding where there is padding, 1.8 times.
    A batch that would pass the budget is closed earlier; the next one then begins where it ended.
    """
    if not len(sizes):
        return []
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(len(sizes))
    # Where the budget is the tighter limit, a batch has as many places as it holds complexes of the mean size.
    places = max(1, int(min(batch_size, *(budget.limits / sizes.mean(0).clip(min=1)))))
    whole, rest = np.split(order, [len(order) - len(order) % places])
    buckets = whole[np.argsort(sizes[whole, 1], kind="stable")].reshape(places, -1)
    drawn = draw.permuted(buckets, axis=1).T.ravel()
    return _cut(np.concatenate([drawn, rest]), sizes, batch_size, budget)


def batch_counts(sizes: np.ndarray, batch_size: int, budget: Budget, *, seed: int, epochs: int) -> list[int]:
    """Number of batches in each epoch; with a budget it differs a little from one to the next."""
    if budget == NO_LIMIT:
        return [math.ceil(len(sizes) / batch_size)] * epochs
    return [len(epoch_batches(sizes, batch_size, budget, seed=seed, epoch=epoch)) for epoch in range(epochs)]


def make_loader(examples: Sequence[Example], batches: Sequence[Sequence[int]], *, num_workers: int = 0) -> DataLoader:
    """A loader of the given batches in the given order.

    It has a generator of its own: without one, iterating draws from torch's global random numbers, and a
    resumed run would see another dropout than an uninterrupted one.
    """
    return DataLoader(
        examples,  # type: ignore[arg-type]
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=leave_signals_to_parent if num_workers else None,
    )


def in_order(examples: Sequence[Example], batch_size: int, budget: Budget = NO_LIMIT) -> DataLoader:
    """A loader that goes through the examples once, as they stand."""
    return make_loader(examples, _cut(np.arange(len(examples)), graph_sizes(examples), batch_size, budget))


def collate(examples: Sequence[Example], *, with_edges: bool = True) -> Batch:
    """Put complexes side by side; their edges are sorted by target already, and so are those of the batch.

    Without edges it takes a tenth of the time, where those are made for the first time.
    """
    if not examples:
        return Batch.empty()
    graphs = [example.graph for example in examples]
    edges = [graph.edges if with_edges else _NO_EDGES for graph in graphs]
    num_atoms = torch.tensor([graph.num_atoms for graph in graphs])
    first_atoms = (torch.cumsum(num_atoms, 0) - num_atoms).tolist()

    def renumbered(atoms: Sequence[Tensor]) -> Tensor:
        """Numbers of atoms, [..., n] of each complex, as numbers in the batch."""
        joined = torch.cat(atoms, -1).long()
        # In place, part by part: a tensor of offsets would be as large as the result.
        for part, first_atom in zip(joined.split([one.shape[-1] for one in atoms], -1), first_atoms, strict=True):
            part += first_atom
        return joined

    return Batch(
        codes=tuple(graph.code for graph in graphs),
        features=torch.cat([graph.features for graph in graphs]).long(),
        pos=torch.cat([graph.pos for graph in graphs]),
        fade=torch.cat([graph.fade for graph in graphs]),
        graph_of_atom=torch.repeat_interleave(num_atoms),
        source=renumbered([one.source for one in edges]),
        target=torch.repeat_interleave(torch.cat([one.degree for one in edges]).long()),
        edge_kind=torch.cat([one.kind for one in edges]).long(),
        bond_type=torch.cat([one.bond_type for one in edges]).long(),
        contacts=renumbered([graph.contacts for graph in graphs]),
        pk=torch.tensor([example.pk for example in examples], dtype=torch.float32),
        bound=torch.tensor([example.bound for example in examples], dtype=torch.float32),
        weight=torch.tensor([example.weight for example in examples], dtype=torch.float32),
    )


def _cut(order: np.ndarray, sizes: np.ndarray, batch_size: int, budget: Budget) -> list[list[int]]:
    """Batches of neighbours in the order, each closed before it would pass a limit; what passes one stands alone."""
    max_atoms, max_edges = budget.limits
    batches: list[list[int]] = []
    room, atoms_left, edges_left = 0, 0.0, 0.0
    for number, (atoms, edges) in zip(order.tolist(), sizes[order].tolist(), strict=True):
        if not room or atoms > atoms_left or edges > edges_left:
            batches.append([])
            room, atoms_left, edges_left = batch_size, max_atoms, max_edges
        batches[-1].append(number)
        room, atoms_left, edges_left = room - 1, atoms_left - atoms, edges_left - edges
    return batches
