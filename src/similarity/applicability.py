"""What a model was trained on -> whether a new complex is like it, in plain words.

A prediction for a ligand and a protein that resemble nothing of the training is a guess, whatever its interval says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import DataStructs

from src.checkpoint import CheckpointError
from src.chemistry.residues import SYMBOLS
from src.graph import FEATURE_COLUMN, RESIDUE_TYPES, ComplexGraph
from src.pdbbind.folders import ComplexFiles
from src.similarity.comparison import Similarity, fingerprints, main_chains
from src.similarity.sequences import read_chains

LEAST_TANIMOTO = 0.4  # ECFP4, by a rule of thumb: ligands of one series are mostly more alike
LEAST_IDENTITY = 0.3  # below it two proteins need not have one fold (Rost, doi 10.1093/protein/12.2.85)
BITS = 2048


@dataclass(frozen=True)
class Applicability:
    """How a complex stands to the training set."""

    text: str  # verdict in words, '' when the checkpoint does not know its training set
    reasons: tuple[str, ...] = ()  # why it is unlike the training: 'ligand', 'protein', 'elements', ...


UNKNOWN_DOMAIN = Applicability("")


@dataclass(frozen=True, eq=False)
class Domain:
    """What the training set holds."""

    codes: tuple[str, ...]  # [L] one complex for each of its different ligands
    fingerprints: np.ndarray  # [L, BITS / 64] uint64, ECFP4
    sequences: tuple[str, ...]  # sequences of the main chains
    elements: frozenset[int]  # atomic numbers in ligands
    pocket_elements: frozenset[int]
    residues: frozenset[str]  # members of RESIDUE_TYPES
    ligand_size: tuple[int, int]  # heavy atoms, least and most
    pk: tuple[float, float]  # least and most

    def nearest_ligand(self, smiles: str) -> tuple[float, str]:
        """Tanimoto similarity to the nearest training ligand, and the code of its complex; NaN without a SMILES."""
        (one,) = fingerprints([smiles])
        if one is None or not len(self.codes):
            return math.nan, ""
        bits = _packed(one)
        shared = np.bitwise_count(self.fingerprints & bits).sum(axis=1, dtype=int)
        either = np.bitwise_count(self.fingerprints | bits).sum(axis=1, dtype=int)
        best = int(np.argmax(shared / np.maximum(either, 1)))
        return float(shared[best] / max(either[best], 1)), self.codes[best]

    def nearest_protein(self, path: Path) -> float:
        """Sequence identity to the nearest training protein, 0 to 1; NaN where either has no sequence."""
        chains = main_chains(read_chains(ComplexFiles(path.name, path, None, ())).sequences)
        if not chains or not self.sequences:
            return math.nan
        known = [[sequence] for sequence in self.sequences]
        similarity = Similarity([*known, chains], [""] * (len(known) + 1))
        return similarity.nearest(len(known), range(len(known))).identity

    def judge(self, graph: ComplexGraph, identity: float) -> Applicability:
        """Whether ligand, protein, elements, residues and ligand size are like those of the training.

        Args:
            identity: of nearest_protein.
        """
        tanimoto, code = _nearest(self, graph.smiles)
        found: dict[str, str] = {}
        if tanimoto < LEAST_TANIMOTO:
            found["ligand"] = f"no similar ligand (nearest {tanimoto:.2f}, {code})"
        if identity < LEAST_IDENTITY:
            found["protein"] = f"no similar protein (nearest {identity:.0%} identical)"
        elements = graph.features[:, FEATURE_COLUMN["element"]].numpy()
        of_ligand, of_pocket = elements[: graph.num_ligand_atoms], elements[graph.num_ligand_atoms :]
        new = [*_new_elements(of_ligand, self.elements, "ligand")]
        new += _new_elements(of_pocket, self.pocket_elements, "pocket")
        if new:
            found["elements"] = "; ".join(new)
        kinds = np.unique(graph.features[graph.num_ligand_atoms :, FEATURE_COLUMN["residue"]].numpy())
        if odd := sorted({RESIDUE_TYPES[kind] for kind in kinds.tolist() if kind} - self.residues):  # 0: no residue
            found["residues"] = f"new residues ({', '.join(odd)})"
        least, most = self.ligand_size
        if not least <= graph.num_ligand_atoms <= most:
            found["size"] = f"ligand of {graph.num_ligand_atoms} heavy atoms (training {least} to {most})"
        unknown = "the similarity of the ligand is not known" if math.isnan(tanimoto) else ""
        if found:
            text = "; ".join([*found.values(), *([unknown] if unknown else [])])
            return Applicability(f"unlike the training: {text}", tuple(found))
        near = [f"ligand {tanimoto:.2f}, {code}"] * (not math.isnan(tanimoto))
        near += [f"protein {identity:.0%}"] * (not math.isnan(identity))
        alike = f"like the training ({'; '.join(near)})" if near else "like the training"
        return Applicability(f"{unknown}, otherwise {alike}" if unknown else alike)

    def judge_pk(self, pk: float, so_far: Applicability) -> Applicability:
        """The same, with a prediction that lies outside of the training labels as one more reason."""
        least, most = self.pk
        if least <= pk <= most:
            return so_far
        text = f"pK outside of the training labels ({least:.1f} to {most:.1f})"
        before = f"{so_far.text}; " if so_far.reasons else "unlike the training: "
        return Applicability(before + text, (*so_far.reasons, "pK"))


def domain_facts(
    graphs: Sequence[ComplexGraph], labels: Sequence[float], sequences: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """What a checkpoint says about the training set, as plain values.

    Args:
        graphs: of the training set, not empty.
        labels: pK of each.
        sequences: code -> chains of the complex, in one-letter code.
    """
    code_of = {graph.smiles: graph.code for graph in reversed(graphs)}
    found = zip(code_of.values(), fingerprints(code_of), strict=True)
    ligands = sorted((code, _packed(one)) for code, one in found if one is not None)
    chains = {chain for graph in graphs for chain in main_chains(sequences.get(graph.code, ()))}
    sizes = [graph.num_ligand_atoms for graph in graphs]
    table = np.stack([bits for _, bits in ligands]) if ligands else np.zeros((0, BITS // 64), dtype=np.uint64)
    return {
        "codes": [code for code, _ in ligands],
        "fingerprints": torch.from_numpy(table.view(np.uint8).copy()),
        "sequences": sorted(chains),
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
    texts = ("codes", "sequences", "residues")
    numbers = ("elements", "pocket_elements", "ligand_size", "pK")
    bits = stored.get("fingerprints")
    sound = (
        all(_is_list_of(stored.get(name), str) for name in texts)
        and all(_is_list_of(stored.get(name), int, float) for name in numbers)
        and len(stored["ligand_size"]) == len(stored["pK"]) == 2
        and type(bits) is torch.Tensor
        and bits.dtype == torch.uint8
        and bits.shape == (len(stored["codes"]), BITS // 8)
    )
    if not sound:
        raise CheckpointError("the training set stored in the checkpoint is not described as this program does it")
    return Domain(
        tuple(stored["codes"]),
        np.ascontiguousarray(bits.numpy()).view(np.uint64),
        tuple(stored["sequences"]),
        frozenset(stored["elements"]),
        frozenset(stored["pocket_elements"]),
        frozenset(stored["residues"]),
        tuple(stored["ligand_size"]),
        tuple(stored["pK"]),
    )


@lru_cache(maxsize=4096)  # docking gives many poses of one ligand
def _nearest(domain: Domain, smiles: str) -> tuple[float, str]:
    return domain.nearest_ligand(smiles)


def _new_elements(elements: np.ndarray, known: frozenset[int], where: str) -> Iterable[str]:
    """What is said of the elements [atoms] that the training did not hold at that place."""
    new = set(elements.tolist()) - known
    if named := ", ".join(SYMBOLS[number] for number in sorted(new - {0})):
        yield f"new elements in the {where} ({named})"
    if 0 in new:
        yield f"an atom without an element (dummy or R group) in the {where}"


def _packed(fingerprint: DataStructs.ExplicitBitVect) -> np.ndarray:
    """[BITS / 64] uint64, in the same places for every fingerprint."""
    bits = np.zeros(BITS, dtype=np.uint8)
    bits[list(fingerprint.GetOnBits())] = 1
    return np.packbits(bits).view(np.uint64)


def _values(graphs: Sequence[ComplexGraph], feature: str, *, ligand: bool) -> list[int]:
    column = FEATURE_COLUMN[feature]
    found: set[int] = set()
    for graph in graphs:
        part = slice(0, graph.num_ligand_atoms) if ligand else slice(graph.num_ligand_atoms, None)
        found.update(graph.features[part, column].unique().tolist())
    return sorted(found)


def _is_list_of(value: Any, *kinds: type) -> bool:
    return type(value) is list and all(type(one) in kinds for one in value)
