"""The order of an epoch, budgets, and what a batch is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from src.data.batching import (
    NO_LIMIT,
    Budget,
    batch_counts,
    collate,
    epoch_batches,
    graph_sizes,
    in_order,
    make_loader,
    warn_of_oversized,
)
from src.data.dataset import (
    Example,
)
from src.graph import Batch, BondType, ComplexGraph, EdgeKind
from tests.complexes import assert_same_graph, tensors
from tests.synthetic import batch_of, random_complex


def draw_sizes(count: int, seed: int = 0) -> np.ndarray:
    """Atoms and edges [count, 2] as pockets have them: a few are twice the mean."""
    atoms = np.random.default_rng(seed).gamma(16.0, 20.0, count).astype(int) + 50
    return np.stack([atoms, 18 * atoms], 1)


def totals(batches: list[list[int]], sizes: np.ndarray) -> np.ndarray:
    return np.array([sizes[batch].sum(0) for batch in batches])


def test_contacts_are_batched_without_making_edges() -> None:
    examples = [Example(random_complex(n), pk=5.0 + n) for n in range(3)]
    batch = collate(examples, with_edges=False)
    assert not any("edges" in vars(example.graph) for example in examples)
    whole = collate(examples)
    for name in ("features", "pos", "fade", "graph_of_atom", "contacts", "pk", "bound"):
        assert torch.equal(getattr(batch, name), getattr(whole, name)), name
    assert batch.codes == whole.codes
    assert not len(batch.source)


@pytest.mark.parametrize(("count", "size"), [(0, 4), (1, 4), (8, 4), (9, 4), (10, 100), (7, 1)])
def test_an_epoch_has_every_example_once(count: int, size: int) -> None:
    batches = epoch_batches(draw_sizes(count), size, seed=0, epoch=0)
    assert sorted(number for batch in batches for number in batch) == list(range(count))
    assert [len(batch) for batch in batches[:-1]] == [size] * (math.ceil(count / size) - 1 if count else 0)
    assert batch_counts(draw_sizes(count), size, NO_LIMIT, seed=0, epochs=3) == [len(batches)] * 3


def test_the_order_is_a_function_of_sizes_seed_and_epoch() -> None:
    sizes = draw_sizes(50)
    np.random.seed(1)
    first = epoch_batches(sizes, 4, seed=0, epoch=0)
    np.random.seed(2)
    assert epoch_batches(sizes, 4, seed=0, epoch=0) == first
    assert epoch_batches(sizes, 4, seed=0, epoch=1) != first
    assert epoch_batches(sizes, 4, seed=1, epoch=0) != first
    assert epoch_batches(sizes, 4, seed=0, epoch=1) != epoch_batches(sizes, 4, seed=1, epoch=0)


BUDGETS = [Budget(max_atoms=1500), Budget(max_edges=20_000), Budget(1800, 30_000), Budget(max_edges=1)]


@pytest.mark.parametrize("budget", BUDGETS)
def test_no_batch_of_two_or_more_passes_the_budget(budget: Budget) -> None:
    sizes = draw_sizes(300)
    for epoch in range(3):
        batches = epoch_batches(sizes, 6, budget, seed=0, epoch=epoch)
        assert sorted(number for batch in batches for number in batch) == list(range(300))
        assert max(map(len, batches)) <= 6
        together = [batch for batch in batches if len(batch) > 1]
        assert (totals(together, sizes).reshape(-1, 2) <= budget.limits).all()


def test_a_batch_holds_what_fits() -> None:
    sizes = np.array([[10, 100], [10, 100], [10, 100], [50, 100], [10, 100], [10, 901], [1, 1], [1, 1], [1, 1], [1, 1]])
    loader = in_order([sized(atoms, edges) for atoms, edges in sizes], 3, Budget(max_atoms=30, max_edges=800))
    assert list(loader.batch_sampler) == [[0, 1, 2], [3], [4], [5], [6, 7, 8], [9]]


def sized(atoms: int, edges: int) -> Example:
    """What batching looks at."""
    return Example(SimpleNamespace(code=f"{atoms}-{edges}", num_atoms=atoms, num_edges=edges), 5.0)  # type: ignore[arg-type]


def test_the_largest_batch_is_little_larger_than_the_mean_one() -> None:
    sizes = draw_sizes(2000)
    edges = np.array([totals(epoch_batches(sizes, 8, seed=0, epoch=epoch), sizes)[:, 1] for epoch in range(5)])
    plain = sizes[np.random.default_rng(0).permutation(2000), 1].reshape(-1, 8).sum(1)
    assert edges.max() < 1.1 * edges.mean()
    assert plain.max() > 1.2 * plain.mean()


def test_a_tight_budget_needs_hardly_more_batches_than_its_share() -> None:
    sizes = draw_sizes(2000)
    budget = Budget(max_edges=int(8.5 * sizes[:, 1].mean()))
    for batch_size in (8, 1000):
        batches = epoch_batches(sizes, batch_size, budget, seed=0, epoch=0)
        assert len(batches) <= 1.03 * 2000 / 8
        assert max(map(len, batches)) <= 9  # and not twenty small ones here, four large ones there


def test_who_meets_whom_changes_with_the_epoch() -> None:
    sizes = draw_sizes(64)
    met = [
        {frozenset(pair) for batch in epoch_batches(sizes, 8, seed=0, epoch=epoch) for pair in combinations(batch, 2)}
        for epoch in range(20)
    ]
    again = [len(one & other) / len(one) for one, other in pairwise(met)]
    assert np.mean(again) < 0.2  # by chance 7 of 63 others are in one's batch
    assert len(set.union(*met)) > 0.75 * math.comb(64, 2)
    first = [epoch_batches(sizes, 8, seed=0, epoch=epoch)[0] for epoch in range(200)]
    mean_edges = np.mean([sizes[batch, 1].mean() for batch in first])
    assert mean_edges == pytest.approx(sizes[:, 1].mean(), rel=0.01)  # neither large nor small ones come first


def test_the_counts_are_those_of_each_epoch() -> None:
    sizes, budget = draw_sizes(200), Budget(max_atoms=2000)
    counts = batch_counts(sizes, 8, budget, seed=3, epochs=12)
    assert counts == [len(epoch_batches(sizes, 8, budget, seed=3, epoch=epoch)) for epoch in range(12)]
    assert len(set(counts)) > 1


def test_oversized_complexes_are_named_with_their_sizes(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_oversized([sized(30, 800), sized(31, 2), sized(3, 801)], Budget(30, 800))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("2 larger than max_atoms_per_batch = 30 or max_edges_per_batch = 800")
    assert record.getMessage().endswith("batch of its own: 31-2 (31 atoms, 2 edges), 3-801 (3 atoms, 801 edges)")
    caplog.clear()
    warn_of_oversized([sized(30, 800)] * 3, Budget(30, 800))
    warn_of_oversized([sized(30, 800)] * 3, NO_LIMIT)
    warn_of_oversized([], Budget(1, 1))
    assert caplog.records == []


def examples(count: int = 4) -> list[Example]:
    return [
        Example(random_complex(seed, num_ligand_atoms=3 + seed, num_pocket_atoms=10 + seed), 5.0 + seed, seed % 2)
        for seed in range(count)
    ]


def edges(batch: Batch) -> list[tuple[int, ...]]:
    return sorted(
        zip(*(getattr(batch, n).tolist() for n in ("target", "source", "edge_kind", "bond_type")), strict=True)
    )


def test_a_batch_has_the_edges_of_brute_force() -> None:
    # The other builder gives bonds of the protein the type of a single bond.
    batch, expected = collate(examples()), batch_of([example.graph for example in examples()])
    of_protein = expected.edge_kind == EdgeKind.PROTEIN_BOND
    assert edges(batch) == edges(replace(expected, bond_type=expected.bond_type.masked_fill(of_protein, BondType.NONE)))
    for name in ("features", "pos", "fade", "graph_of_atom", "contacts"):
        assert torch.equal(getattr(batch, name), getattr(expected, name)), name
    assert batch.codes == expected.codes
    assert batch.pk.tolist() == [5.0, 6.0, 7.0, 8.0]
    assert batch.bound.tolist() == [0.0, 1.0, 0.0, 1.0]


def sorted_at_once(graphs: Sequence[ComplexGraph]) -> list[torch.Tensor]:
    """Source, target, kind and bond type [E] of a batch, sorted as a whole: the pairs as they stand, then turned."""
    starts = np.cumsum([0, *(graph.num_atoms for graph in graphs)]).tolist()
    columns: list[list[torch.Tensor]] = []
    for kind, name in zip(EdgeKind, ("ligand_bonds", "protein_bonds", "near_pairs", "contacts"), strict=True):
        for graph, start in zip(graphs, starts, strict=False):
            first, second = getattr(graph, name).long() + start
            none = torch.full_like(first, int(BondType.NONE))
            bond_type = graph.ligand_bond_types.long() if kind == EdgeKind.LIGAND_BOND else none
            columns.append([first, second, torch.full_like(first, int(kind)), bond_type])
    first, second, kinds, bond_types = (torch.cat(column) for column in zip(*columns, strict=True))
    target, order = torch.sort(torch.cat([second, first]), stable=True)
    return [torch.cat([first, second])[order], target, kinds.repeat(2)[order], bond_types.repeat(2)[order]]


def test_edges_sorted_in_each_complex_are_those_sorted_at_once_bit_for_bit() -> None:
    batch = collate(examples(6))
    expected = sorted_at_once([example.graph for example in examples(6)])
    for name, tensor in zip(("source", "target", "edge_kind", "bond_type"), expected, strict=True):
        assert getattr(batch, name).dtype == torch.int64
        assert torch.equal(getattr(batch, name), tensor), name


def test_edges_are_sorted_once_and_a_changed_complex_has_its_own() -> None:
    graph = random_complex(0)
    assert graph.edges is graph.edges
    fewer = replace(graph, near_pairs=graph.near_pairs[:, 1:])
    assert len(fewer.edges.source) == len(graph.edges.source) - 2 == fewer.num_edges
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors(graph.edges).values())
    assert size == 4 * graph.num_edges + 2 * graph.num_atoms


def test_edges_are_sorted_by_target_and_go_both_ways() -> None:
    batch = collate(examples())
    assert bool((batch.target.diff() >= 0).all())
    pairs = set(zip(batch.source.tolist(), batch.target.tolist(), batch.edge_kind.tolist(), strict=True))
    assert pairs == {(target, source, kind) for source, target, kind in pairs}
    assert len(batch.source) == sum(example.graph.num_edges for example in examples())


def test_no_edge_leaves_its_complex() -> None:
    batch = collate(examples())
    assert torch.equal(batch.graph_of_atom[batch.source], batch.graph_of_atom[batch.target])


def test_a_complex_is_the_same_alone_and_in_a_batch() -> None:
    together, start = collate(examples()), 0
    for number, example in enumerate(examples()):
        alone = collate([example])
        stop = start + example.graph.num_atoms
        inside = (together.target >= start) & (together.target < stop)
        assert torch.equal(together.pos[start:stop], alone.pos)
        assert torch.equal(together.features[start:stop], alone.features)
        for name in ("source", "target"):
            assert torch.equal(getattr(together, name)[inside] - start, getattr(alone, name))
        for name in ("edge_kind", "bond_type"):
            assert torch.equal(getattr(together, name)[inside], getattr(alone, name))
        assert together.pk[number] == alone.pk[0]
        start = stop


def test_a_ligand_atom_without_any_pair_makes_a_batch() -> None:
    graph = random_complex(0, num_ligand_atoms=1, num_pocket_atoms=0)
    batch = collate([Example(graph, 5.0), Example(graph, 6.0)])
    assert batch.source.shape == (0,)
    assert batch.contacts.shape == (2, 0)
    assert batch.graph_of_atom.tolist() == [0, 1]


def test_a_loader_gives_the_batches_in_the_order_asked_for() -> None:
    order = [[3, 1], [0], [2]]
    batches = list(make_loader(examples(), order))
    assert [batch.codes for batch in batches] == [tuple(f"syn{n}" for n in numbers) for numbers in order]
    assert [batch.codes for batch in in_order(examples(), 3)] == [("syn0", "syn1", "syn2"), ("syn3",)]
    assert list(in_order([], 3)) == []


def test_worker_processes_give_the_same_batches() -> None:
    order = epoch_batches(graph_sizes(examples()), 2, seed=3, epoch=1)
    for one, other in zip(make_loader(examples(), order), make_loader(examples(), order, num_workers=2), strict=True):
        assert_same_graph(one, other)


def test_a_loader_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    list(make_loader(examples(), [[0, 1], [2, 3]]))
    assert torch.equal(torch.get_rng_state(), before)
