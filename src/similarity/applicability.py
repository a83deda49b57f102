"""What a model was trained on -> what of a new complex it has never seen, in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from src.checkpoint import CheckpointError
from src.chemistry.residues import SYMBOLS
from src.graph import FEATURE_COLUMN, RESIDUE_TYPES, ComplexGraph


@dataclass(frozen=True, eq=False)
class Domain:
    """What the training set holds."""

    elements: frozenset[int]  # atomic numbers in ligands
    pocket_elements: frozenset[int]
    residues: frozenset[str]  # members of RESIDUE_TYPES
    ligand_size: tuple[int, int]  # heavy atoms, least and most
    pk: tuple[float, float]  # least and most

    def unseen(self, graph: ComplexGraph) -> tuple[str, ...]:
        """What of a complex no training complex had: elements, kinds of residues, a ligand of its size."""
        elements = graph.features[:, FEATURE_COLUMN["element"]].numpy()
        of_ligand, of_pocket = elements[: graph.num_ligand_atoms], elements[graph.num_ligand_atoms :]
        found = [*_new_elements(of_ligand, self.elements, "ligand")]
        found += _new_elements(of_pocket, self.pocket_elements, "pocket")
        kinds = np.unique(graph.features[graph.num_ligand_atoms :, FEATURE_COLUMN["residue"]].numpy())
        if odd := sorted({RESIDUE_TYPES[kind] for kind in kinds.tolist() if kind} - self.residues):  # 0: no residue
            found.append(f"new residues ({', '.join(odd)})")
        least, most = self.ligand_size
        if not least <= graph.num_ligand_atoms <= most:
            found.append(f"ligand of {graph.num_ligand_atoms} heavy atoms (training {least} to {most})")
        return tuple(found)

    def unseen_pk(self, pk: float) -> tuple[str, ...]:
        """The same of a predicted pK."""
        least, most = self.pk
        return () if least <= pk <= most else (f"pK outside of the training labels ({least:.1f} to {most:.1f})",)


def domain_facts(graphs: Sequence[ComplexGraph], labels: Sequence[float]) -> dict[str, Any]:
    """What a checkpoint says about a training set, which is not empty, as plain values; labels are pK."""
    sizes = [graph.num_ligand_atoms for graph in graphs]
    return {
        "elements": _values(graphs, "element", ligand=True),
        "pocket_elements": _values(graphs, "element", ligand=False),
        "residues": [RESIDUE_TYPES[kind] for kind in _values(graphs, "residue", ligand=False)],
        "ligand_size": [min(sizes), max(sizes)],
        "pK": [float(min(labels)), float(max(labels))],
    }


def read_domain(state: Mapping[str, Any]) -> Domain | None:
    """The training set as a checkpoint describes it; None for a checkpoint without a description.

    Raises:
        CheckpointError: it is not what this program writes.
    """
    stored = state.get("domain")
    if stored is None:
        return None
    ranges, sets = ("ligand_size", "pK"), ("elements", "pocket_elements", "residues")
    sound = all(_is_list_of(stored.get(name), int, float) for name in (*ranges, *sets[:2]))
    if not (sound and _is_list_of(stored.get("residues"), str) and {len(stored[name]) for name in ranges} == {2}):
        raise CheckpointError("the training set stored in the checkpoint is not described as this program does it")
    return Domain(*(frozenset(stored[name]) for name in sets), *(tuple(stored[name]) for name in ranges))


def _new_elements(elements: np.ndarray, known: frozenset[int], where: str) -> Iterable[str]:
    """What is said of the elements [atoms] that the training did not hold at that place."""
    new = set(elements.tolist()) - known
    if named := ", ".join(SYMBOLS[number] for number in sorted(new - {0})):
        yield f"new elements in the {where} ({named})"
    if 0 in new:
        yield f"an atom without an element (dummy or R group) in the {where}"


def _values(graphs: Sequence[ComplexGraph], feature: str, *, ligand: bool) -> list[int]:
    column = FEATURE_COLUMN[feature]
    places = [slice(0, n) if ligand else slice(n, None) for n in (graph.num_ligand_atoms for graph in graphs)]
    parts = [graph.features[place, column] for graph, place in zip(graphs, places, strict=True)]
    return torch.cat(parts).unique().tolist()


def _is_list_of(value: Any, *kinds: type) -> bool:
    return type(value) is list and all(type(one) in kinds for one in value)
